"""From what an agent has drawn to numbers: score, shares, efficiency and checks of one seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.rollout import Drawn
from benchmarks.harness.scores import SCORES, Judged
from benchmarks.metrics.efficiency import curve, efficiency
from benchmarks.metrics.sample import Examination, examine, summarise
from benchmarks.tasks import Task
from benchmarks.tasks.oracle import task_reward
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult, Scorer
from rewards import EnergyAboveHull

_POINTS = 60  # of a learning curve
REFERENCE = ("mp20_train.csv.gz", "mp20_val.csv.gz")


def load_reference(paths: Sequence[Path], needed: bool) -> tuple[CrystalBatch, tuple[Path, ...]]:
    """Return the crystals that are not novel, and the files that they come from: by default MP-20's.

    Args:
        paths: files of crystals; by default ``mp20_train.csv.gz`` and ``mp20_val.csv.gz`` of $CRYSTALGEN_DATA.
        needed: whether it is an error if the default files are not there; else nothing is known.

    Raises:
        ValueError: if a file cannot be read.
    """
    files = tuple(paths) or tuple(data_folder() / name for name in REFERENCE)
    if not paths and (missing := [path.name for path in files if not path.is_file()]):
        if needed:
            raise InputError(
                f"reference must name files of known crystals, such as {REFERENCE}: $CRYSTALGEN_DATA holds no {missing}"
            )
        return CrystalBatch.empty(), ()
    read = [CrystalBatch.load(path) if path.suffix == ".npz" else load_crystals(path).crystals for path in files]
    return CrystalBatch.concatenate(read), files


def judge(
    task: Task,
    drawn: Drawn,
    trace: tuple[CrystalBatch, RewardResult],
    reference: CrystalBatch,
    name: str,
    n_jobs: int | None = None,
) -> Judged:
    """Find out everything about what was drawn.

    Args:
        task: the task, of one case.
        drawn: what the agent has drawn.
        trace: what the oracle was asked for.
        reference: crystals that are not novel.
        name: of the progress bars.
        n_jobs: processes that compare structures, None for one a core.
    """
    reward = task_reward(task)
    result = in_chunks(reward, drawn.crystals, task.floor)
    energy = EnergyAboveHull(max_depth=None) if task.judge else not_judged
    sample = examine(drawn.crystals, reference, energy, name, n_jobs)
    return Judged(task, drawn, sample, result, *trace, reference)


def in_chunks(reward: Any, crystals: CrystalBatch, floor: float, size: int = 128) -> RewardResult:
    """Return what crystals (B,) are worth, a part at a time, with the floor for what breaks the reward."""
    scorer = Scorer(reward, floor)
    parts = [scorer(crystals[start : start + size]) for start in range(0, len(crystals), size)]
    return RewardResult.concatenate(parts, floor)


def not_judged(crystals: Any) -> RewardResult:
    """Give no crystal an energy."""
    n = len(as_batch(crystals))
    reasons = np.full(n, "energies are not asked for in this task", object)
    return RewardResult(np.zeros(n), {"e_above_hull": np.zeros(n)}, reasons)


def numbers(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the score, the shares, the efficiency and the learning curve of the cases of one seed, JSON-plain."""
    task = judged[0].task
    scores = [SCORES[task.score](one) for one in judged]
    missing = sum(len(one.drawn.requested) - len(one.drawn.rows) for one in judged)
    summary = summarise(together([one.sample for one in judged]), missing)
    reasons = [reason for one in judged for reason in one.drawn.failures if reason is not None]
    low, high = task.range
    efficiencies = [
        efficiency(one.trace_result.total, task.budget, task.threshold, low=low, high=high) for one in judged
    ]
    curves = [curve(one.trace_result.total, task.budget, _POINTS) for one in judged]
    return {
        "score": float(np.mean([score for score, _ in scores])),
        "details": [details for _, details in scores],
        "calls": sum(len(one.trace) for one in judged),
        "budget": task.budget * len(judged),
        "attempts without a crystal": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        "summary": summary,
        "efficiency": {name: _mean([one[name] for one in efficiencies]) for name in efficiencies[0]},
        "curve": {name: _columns([one[name] for one in curves]) for name in curves[0]},
    }


def together(samples: Sequence[Examination]) -> Examination:
    """Return several samples as one; structures are the same only within one of them."""
    starts = np.cumsum([0, *(len(sample.label) for sample in samples)])
    shifted = [sample._replace(label=sample.label + start) for sample, start in zip(samples, starts, strict=False)]
    columns = {name: [getattr(sample, name) for sample in shifted] for name in Examination._fields}
    crystals = CrystalBatch.concatenate(columns.pop("crystals"))
    return Examination(crystals, **{name: np.concatenate(values) for name, values in columns.items()})


def _mean(values: list[Any]) -> float | None:
    """Return the mean over cases to six decimals, None where one has none."""
    return None if any(value is None for value in values) else round(float(np.mean(values)), 6)


def _columns(values: list[list[Any]]) -> list[float | None]:
    return [_mean(list(column)) for column in zip(*values, strict=True)]
