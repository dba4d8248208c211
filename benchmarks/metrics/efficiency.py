"""Sample efficiency: growth of the best rewards over oracle calls.

``mean_top_k`` is the mean of the k best totals so far, averaged over every oracle call of the budget; the last value
stands for calls that were not made. PMO's area under the curve (Gao et al., NeurIPS Datasets and Benchmarks 2022) is
another number: it takes the mean of the k best at every 100th call only and integrates by the trapezoidal rule, from 0
at call 0. Totals are those of different crystals: to query a crystal again is no call.
"""

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError

TOPS = (1, 10, 100)


def efficiency(
    totals: NDArray[np.float64], budget: int, threshold: float, low: float = 0.0, high: float = 1.0
) -> dict[str, float | int | None]:
    """Return ``mean_top_k``, ``calls_to_k``, k = 1, 10, 100, ``calls_per_success`` and ``best`` of a run.

    Args:
        totals: (N,) in the order of the oracle's calls.
        budget: oracle calls that were allowed.
        threshold: lowest total of a success.
        low: total that is 0 in ``mean_top_k``.
        high: total that is 1.

    Returns:
        ``mean_top_k`` is between 0 and 1. ``calls_to_k`` is the call of the k-th success, None if there is none.
        ``calls_per_success`` is None without a success, and ``best``, the highest total, without a call.

    Raises:
        ValueError: if the budget is no call or less than the totals, or ``low`` is not below ``high``.
    """
    totals = np.asarray(totals, np.float64)
    if budget < max(len(totals), 1):
        raise InputError(f"budget must be at least 1 and the number of totals, got {budget} for {len(totals)}")
    if not low < high:
        raise InputError(f"low must be below high, got {low} and {high}")
    scaled = np.clip((totals - low) / (high - low), 0, 1)
    numbers: dict[str, float | int | None] = {}
    for k in TOPS:
        means = top_means(scaled, k)
        rest = (budget - len(means)) * (means[-1] if len(means) else 0.0)
        numbers[f"mean_top_{k}"] = float((means.sum() + rest) / budget)
    successes = np.flatnonzero(totals >= threshold)
    for k in TOPS:
        numbers[f"calls_to_{k}"] = int(successes[k - 1]) + 1 if len(successes) >= k else None
    numbers["calls_per_success"] = len(totals) / len(successes) if len(successes) else None
    numbers["best"] = float(totals.max()) if len(totals) else None
    return numbers


def top_means(totals: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the mean of the k largest of the first 1, 2 ... N of totals (N,), of as many as there are."""
    from heapq import heappush, heapreplace

    best: list[float] = []
    total, means = 0.0, np.zeros(len(totals))
    for i, value in enumerate(totals.tolist()):
        if len(best) < k:
            heappush(best, value)
            total += value
        elif value > best[0]:
            total += value - heapreplace(best, value)
        means[i] = total / len(best)
    return means


def curve(totals: NDArray[np.float64], budget: int, points: int = 200) -> dict[str, list[float]]:
    """Return at up to ``points`` numbers of calls the means of the best 1, 10 and 100, and of the latest totals.

    Args:
        totals: (N,) in the order of the oracle's calls.
        budget: oracle calls that were allowed: the points are spread over them.
        points: at most.

    Returns:
        ``calls``, ``top_1``, ``top_10``, ``top_100`` and ``mean``, the mean of the totals since the point before. Where
        fewer calls were made than allowed, the best stay as they are, and so does the mean.
    """
    totals = np.asarray(totals, np.float64)
    if not len(totals):
        return {"calls": [], **{f"top_{k}": [] for k in TOPS}, "mean": []}
    calls = np.unique(np.linspace(0, budget, min(points, budget) + 1).astype(np.int64))[1:]
    last = np.minimum(calls, len(totals)) - 1
    numbers = {f"top_{k}": top_means(totals, k)[last].tolist() for k in TOPS}
    sums = np.concatenate([[0.0], np.cumsum(totals)])
    ends = np.unique(last + 1)
    means = np.diff(sums[np.concatenate([[0], ends])]) / np.diff(np.concatenate([[0], ends]))
    numbers["mean"] = means[np.searchsorted(ends, last + 1)].tolist()
    return {"calls": [int(n) for n in calls], **numbers}
