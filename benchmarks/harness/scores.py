"""The scores that rank agents, one function each: higher is better, and details explain them.

Names of scores and of their details are identifiers; `benchmarks.metrics.labels` has their labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.efficiency import efficiency
from benchmarks.metrics.pareto import dominated_area, pareto_front
from benchmarks.metrics.properties import fixed_order
from benchmarks.metrics.sample import STABLE, SampleMetrics
from benchmarks.samples.samples import Samples
from benchmarks.tasks import Task
from benchmarks.tasks.oracle import task_reward
from benchmarks.tasks.perovskites import PerovskiteTable
from benchmarks.tasks.targets import stability, stiffness
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import mp20_group_counts
from crystal_env.reward import RewardResult
from crystal_env.symmetry.canonical import wyckoff_template
from rewards.matching import is_novel, reduced_formulas, same, structure_labels

_CANDIDATES = 10


@dataclass(frozen=True, eq=False)
class EvaluatedAgent:
    """An agent's samples and queries in one case of a task, after one seed.

    Attributes:
        task: the task, of one case.
        metrics: the samples with their metrics.
        result: the task's reward of the samples (B,).
        trace: the crystals that the oracle scored, in order.
        trace_result: their rewards.
        reference: crystals that are not novel.
    """

    task: Task
    metrics: SampleMetrics
    result: RewardResult
    trace: CrystalBatch
    trace_result: RewardResult
    reference: CrystalBatch

    @property
    def samples(self) -> Samples:
        """The samples."""
        return self.metrics.samples


Score = tuple[float, dict[str, Any]]


def mean_top_10(agent: EvaluatedAgent) -> Score:
    """Return the mean of the ten best totals so far, averaged over oracle calls, and the regret of the best."""
    task, totals = agent.task, agent.trace_result.total
    low, high = task.range
    details = {"best_total": float(totals.max(initial=task.floor))}
    reward = task_reward(task)
    if isinstance(reward, PerovskiteTable):
        details |= {"simple_regret": reward.best - details["best_total"]}
    numbers = efficiency(totals, task.budget, task.threshold, low=low, high=high)
    return float(numbers["mean_top_10"] or 0), details


def valid_unique(agent: EvaluatedAgent) -> Score:
    """Return the rate of different valid structures."""
    return _rate(agent, agent.metrics.first_of_each(agent.metrics.valid)), {}


def unique_successes(agent: EvaluatedAgent) -> Score:
    """Return the rate of different structures that succeed."""
    success = agent.result.success()
    return _rate(agent, agent.metrics.first_of_each(success)), {"successes": int(success.sum())}


def sun(agent: EvaluatedAgent) -> Score:
    """Return the rate of stable, unique and novel samples, S.U.N. at 0.1 eV/atom."""
    return _rate(agent, agent.metrics.sun()), {}


def sun_successes(agent: EvaluatedAgent) -> Score:
    """Return the rate of S.U.N. samples among those that succeed."""
    success = agent.result.success()
    chosen = agent.metrics.sun(among=success)
    return _rate(agent, chosen), {"successes": int(success.sum()), "sun": int(agent.metrics.sun().sum())}


def mean_sun_of_groups(agent: EvaluatedAgent) -> Score:
    """Return the mean over requested space groups of their S.U.N. rates, each with its number of crystals in MP-20."""
    requested = agent.samples.requested
    found = requested[agent.samples.rows[agent.metrics.sun()]]
    counts, rates = mp20_group_counts(), {}
    for group in np.unique(requested):
        total = int((requested == group).sum())
        rate = float((found == group).sum() / total)
        rates[str(group)] = {"sun": rate, "total": total, "in_mp20": int(counts[group - 1]) if group else 0}
    return float(np.mean([entry["sun"] for entry in rates.values()])), {"groups": rates}


def match_rate(agent: EvaluatedAgent) -> Score:
    """Return 1 if one of the ten best samples is the known structure of the composition, else 0."""
    truth = ground_truth(agent.task.constraints["formula"])
    best = np.argsort(-agent.result.total, kind="stable")
    best = best[np.sort(np.unique(agent.metrics.label[best], return_index=True)[1])][:_CANDIDATES]
    structures = [_structure(agent.samples[int(position)]) for position in best]
    rank = next((i + 1 for i, structure in enumerate(structures) if any(same(structure, t) for t in truth)), None)
    return float(rank is not None), {"match_rank": rank, "formula": agent.task.constraints["formula"]}


def sun_structures_found(agent: EvaluatedAgent) -> Score:
    """Return the number of S.U.N. structures among all crystals that the oracle scored, and of their templates."""
    energies = agent.trace_result.terms.get("e_above_hull", np.zeros(0))
    rows = np.flatnonzero(agent.trace_result.success() & (energies <= STABLE))  # NaN is not
    stable = agent.trace[rows]
    if not len(stable):
        return 0.0, {"templates": 0, "formulas": 0}
    order = fixed_order(stable, energies[rows])
    distinct = stable[np.unique(structure_labels(stable, "found", order, n_jobs=None))]
    novel = distinct[is_novel(distinct, agent.reference, "found", n_jobs=None)]
    templates = {wyckoff_template(crystal) for crystal in novel}
    return float(len(novel)), {"templates": len(templates), "formulas": len(set(reduced_formulas(novel)))}


def hypervolume(agent: EvaluatedAgent) -> Score:
    """Return the area that valid crystals dominate: bulk modulus up to 400 GPa by energy from 0.5 eV/atom to the hull.

    It is a fraction of the whole rectangle. Crystals that the potential cannot score do not count.
    """
    terms, valid = agent.result.terms, agent.metrics.valid & agent.result.scored
    if not valid.any():
        return 0.0, {"front": []}
    stiff, stable = stiffness(terms["bulk_modulus"])[valid], stability(terms["e_above_hull"])[valid]
    front = pareto_front(np.stack([stiff, stable], 1))
    rows = np.flatnonzero(valid)[front]
    points = [[float(terms["bulk_modulus"][row]), float(terms["e_above_hull"][row])] for row in rows]
    return dominated_area(np.stack([stiff, stable], 1)), {"front": points}


SCORES: dict[str, Callable[[EvaluatedAgent], Score]] = {
    score.__name__: score
    for score in (
        mean_top_10,
        valid_unique,
        unique_successes,
        sun,
        sun_successes,
        mean_sun_of_groups,
        match_rate,
        sun_structures_found,
        hypervolume,
    )
}
OF_BEST = frozenset({"mean_top_10", "match_rate", "hypervolume"})
"""Scores of a few crystals, not of many."""

FROM_TRACE = frozenset({"mean_top_10", "sun_structures_found"})
"""Scores of the crystals that the oracle scored, not of the samples."""


def ground_truth(formula: str) -> list[Any]:
    """Return the structures that MP-20's validation set has of a composition.

    Raises:
        ValueError: if the set is not there, or has none.
    """
    from pymatgen.core import Composition

    path = data_folder() / "mp20_val.csv.gz"
    if not path.is_file():
        raise InputError(f"the known structures are in {path.name}: $CRYSTALGEN_DATA must be the folder that has it")
    crystals = load_crystals(path).crystals
    wanted = Composition(formula)
    counts = np.zeros(crystals.composition().shape[1], np.int64)
    for element, amount in wanted.items():
        counts[element.Z] = int(amount)
    amounts = crystals.composition()
    amounts //= np.maximum(np.gcd.reduce(amounts, axis=1, keepdims=True), 1)
    rows = np.flatnonzero((amounts == counts // np.gcd.reduce(counts)).all(1))
    if not len(rows):
        raise InputError(f"{path.name} has no structure of {formula}")
    structures: list[Any] = crystals[rows].to_structures(primitive=True)
    return structures


def _structure(sample: Any) -> Any:
    return sample.to_structure(primitive=True) if hasattr(sample, "to_structure") else sample


def _rate(agent: EvaluatedAgent, chosen: NDArray[np.bool_]) -> float:
    return float(chosen.sum() / agent.samples.n_attempts)
