"""From the samples and queries of an agent to numbers: score, rates, efficiency and learning curve of one seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness.scores import SCORES, EvaluatedAgent
from benchmarks.metrics.efficiency import curve, efficiency
from benchmarks.metrics.sample import SampleMetrics, evaluate_sample
from benchmarks.metrics.summary import summarise
from benchmarks.samples.samples import Samples
from benchmarks.tasks import Task
from benchmarks.tasks.oracle import task_reward
from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult, Scorer
from rewards import EnergyAboveHull

_POINTS = 60  # of a learning curve


def evaluate_agent(
    task: Task,
    samples: Samples,
    trace: tuple[CrystalBatch, RewardResult],
    reference: CrystalBatch,
    n_jobs: int | None = None,
) -> EvaluatedAgent:
    """Compute the rewards and the metrics of an agent's samples.

    Args:
        task: the task, of one case.
        samples: the agent's samples.
        trace: the crystals that the oracle scored, with their rewards.
        reference: crystals that are not novel.
        n_jobs: processes that compare structures, None for one a core.
    """
    result = score_samples(task_reward(task), samples, task.floor)
    energy = EnergyAboveHull() if task.stability else None
    metrics = evaluate_sample(samples, reference, energy, n_jobs=n_jobs)
    return EvaluatedAgent(task, metrics, result, *trace, reference)


def score_samples(reward: Any, samples: Samples, floor: float) -> RewardResult:
    """Return the rewards of samples (B,); rewards are defined in the representation, so other structures fail."""
    n = len(samples.structures)
    outside = RewardResult(np.full(n, floor), {}, np.full(n, "outside the representation", object))
    joined = RewardResult.concatenate([score_crystals(reward, samples.crystals, floor), outside], floor)
    n_crystals = len(samples.crystals)
    return joined.take(samples.merge(np.arange(n_crystals), n_crystals + np.arange(n)))


def score_crystals(reward: Any, crystals: CrystalBatch, floor: float, size: int = 128) -> RewardResult:
    """Return the rewards of crystals (B,), computed in batches, with the floor for crystals that break the reward."""
    scorer = Scorer(reward, floor)
    parts = [scorer(crystals[start : start + size]) for start in range(0, len(crystals), size)]
    return RewardResult.concatenate(parts, floor)


def seed_numbers(cases: Sequence[EvaluatedAgent]) -> dict[str, Any]:
    """Return the score, the rates, the efficiency and the learning curve of the cases of one seed, JSON-plain."""
    task = cases[0].task
    scores = [SCORES[task.score](one) for one in cases]
    reasons = [reason for one in cases for reason in one.samples.failures.values()]
    low, high = task.range
    efficiencies = [
        efficiency(one.trace_result.total, task.budget, task.threshold, low=low, high=high) for one in cases
    ]
    curves = [curve(one.trace_result.total, task.budget, _POINTS) for one in cases]
    return {
        "score": float(np.mean([score for score, _ in scores])),
        "details": [details for _, details in scores],
        "calls": sum(len(one.trace) for one in cases),
        "budget": task.budget * len(cases),
        "failures": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        "summary": summarise(SampleMetrics.concatenate([one.metrics for one in cases])),
        "efficiency": {name: _mean([one[name] for one in efficiencies]) for name in efficiencies[0]},
        "curve": {name: _columns([one[name] for one in curves]) for name in curves[0]},
    }


def _mean(values: list[Any]) -> float | None:
    """Return the mean over cases to six decimals, None where one has none."""
    return None if any(value is None for value in values) else round(float(np.mean(values)), 6)


def _columns(values: list[list[Any]]) -> list[float | None]:
    return [_mean(list(column)) for column in zip(*values, strict=True)]
