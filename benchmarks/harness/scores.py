"""The numbers that rank agents, one function each: higher is better, and with them come details that explain them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.rollout import Drawn
from benchmarks.metrics.efficiency import efficiency
from benchmarks.metrics.pareto import dominated_area, pareto_front
from benchmarks.metrics.sample import STABLE, Examination, first_of_each, fixed_order
from benchmarks.tasks import Task
from benchmarks.tasks.oracle import task_reward
from benchmarks.tasks.perovskites import PerovskiteTable
from benchmarks.tasks.targets import stability, stiffness
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import mp20_group_counts
from crystal_env.reward import RewardResult
from rewards.matching import is_novel, reduced_formulas, same, structure_labels

_CANDIDATES = 10


class Judged(NamedTuple):
    """What is known of an agent in one case of a task, after one seed.

    Attributes:
        task: the task, of one case.
        drawn: what it has drawn.
        sample: what is known of the n crystals among that.
        result: what these are worth by the task's reward.
        trace: the crystals that the oracle was asked for, in order.
        trace_result: what these are worth.
        reference: crystals that are not novel.
    """

    task: Task
    drawn: Drawn
    sample: Examination
    result: RewardResult
    trace: CrystalBatch
    trace_result: RewardResult
    reference: CrystalBatch


Score = tuple[float, dict[str, Any]]


def area_top_10(judged: Judged) -> Score:
    """Return the area under the curve of the ten best over oracle calls, as a share; and the regret of the best."""
    task, totals = judged.task, judged.trace_result.total
    low, high = task.range
    details = {"best total": float(totals.max(initial=task.floor))}
    reward = task_reward(task)
    if isinstance(reward, PerovskiteTable):
        details |= {"simple regret, eV": reward.best - details["best total"]}
    numbers = efficiency(totals, task.budget, task.threshold, low=low, high=high)
    return float(numbers["auc top-10"] or 0), details


def valid_and_unique(judged: Judged) -> Score:
    """Return how many different structures are valid, as a share of all attempts."""
    valid = judged.sample.structural & judged.sample.compositional
    return _share(judged, first_of_each(judged.sample, valid)), {}


def unique_successes(judged: Judged) -> Score:
    """Return how many different structures reach the aim, as a share of all attempts."""
    reached = judged.result.success()
    return _share(judged, first_of_each(judged.sample, reached)), {"successes": int(reached.sum())}


def sun(judged: Judged) -> Score:
    """Return the share of stable, unique and novel crystals, S.U.N. at 0.1 eV/atom."""
    return _share(judged, sun_rows(judged.sample)), {}


def sun_successes(judged: Judged) -> Score:
    """Return the share of S.U.N. crystals that also reach the aim."""
    rows = sun_rows(judged.sample, judged.result.success())
    reached = judged.result.success()
    return _share(judged, rows), {"successes": int(reached.sum()), "S.U.N.": len(sun_rows(judged.sample))}


def mean_sun_of_groups(judged: Judged) -> Score:
    """Return the mean over requested space groups of their S.U.N. shares, each with its crystals in MP-20."""
    requested, rows = judged.drawn.requested, sun_rows(judged.sample)
    found = judged.drawn.requested[judged.drawn.rows[rows]]
    counts, shares = mp20_group_counts(), {}
    for group in np.unique(requested):
        n = int((requested == group).sum())
        share = float((found == group).sum() / n)
        shares[str(group)] = {"S.U.N.": share, "of": n, "in MP-20": int(counts[group - 1]) if group else 0}
    return float(np.mean([entry["S.U.N."] for entry in shares.values()])), {"groups": shares}


def match_rate(judged: Judged) -> Score:
    """Return 1 if one of the ten best crystals is the known structure of the composition, else 0."""
    truth = ground_truth(judged.task.constraints["formula"])
    best = np.argsort(-judged.result.total, kind="stable")
    best = best[np.sort(np.unique(judged.sample.label[best], return_index=True)[1])][:_CANDIDATES]
    structures = judged.sample.crystals[best].to_structures(primitive=True)
    rank = next((i + 1 for i, structure in enumerate(structures) if any(same(structure, t) for t in truth)), None)
    return float(rank is not None), {"rank of the match": rank, "formula": judged.task.constraints["formula"]}


def sun_structures_found(judged: Judged) -> Score:
    """Return the number of S.U.N. structures among all crystals that the oracle was asked for, and their templates."""
    energies = judged.trace_result.terms.get("e_above_hull", np.zeros(0))
    rows = np.flatnonzero(judged.trace_result.success() & (energies <= STABLE))
    stable = judged.trace[rows]
    if not len(stable):
        return 0.0, {"templates": 0, "formulas": 0}
    labels = structure_labels(stable, "found", fixed_order(stable, energies[rows]), n_jobs=None)
    distinct = stable[np.unique(labels)]
    novel = distinct[is_novel(distinct, judged.reference, "found", n_jobs=None)]
    templates = {(int(G), tuple(letters.tolist())) for G, letters in zip(novel.G, novel.W, strict=True)}
    return float(len(novel)), {"templates": len(templates), "formulas": len(set(reduced_formulas(novel)))}


def hypervolume(judged: Judged) -> Score:
    """Return the area that valid crystals dominate: bulk modulus up to 400 GPa by energy from 0.5 eV/atom to the hull.

    It is a share of the whole rectangle. What the potential cannot score does not count.
    """
    terms = judged.result.terms
    valid = judged.sample.structural & judged.sample.compositional
    valid &= judged.result.scored
    if not valid.any():
        return 0.0, {"front": []}
    stiff, stable = stiffness(terms["bulk_modulus"])[valid], stability(terms["e_above_hull"])[valid]
    front = pareto_front(np.stack([stiff, stable], 1))
    rows = np.flatnonzero(valid)[front]
    points = [[float(terms["bulk_modulus"][row]), float(terms["e_above_hull"][row])] for row in rows]
    return dominated_area(np.stack([stiff, stable], 1)), {"front": points}


SCORES: dict[str, Callable[[Judged], Score]] = {
    "AUC top-10": area_top_10,
    "valid and unique": valid_and_unique,
    "unique successes": unique_successes,
    "S.U.N.": sun,
    "S.U.N. successes": sun_successes,
    "mean S.U.N. of groups": mean_sun_of_groups,
    "match rate": match_rate,
    "S.U.N. structures found": sun_structures_found,
    "hypervolume": hypervolume,
}
OF_BEST = frozenset({"AUC top-10", "match rate", "hypervolume"})  # a few crystals make these, not many


def sun_rows(sample: Examination, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return the rows of a sample, one a structure, that are stable at 0.1 eV/atom and novel."""
    stable = sample.e_above_hull <= STABLE  # NaN is not
    rows = first_of_each(sample, stable if among is None else stable & among)
    return rows[sample.novel[rows]]


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


def _share(judged: Judged, rows: NDArray[np.int64]) -> float:
    return len(rows) / len(judged.drawn.requested)
