"""How soon an agent finds what is good: learning curves over oracle calls, and the areas under them.

As PMO has it (Gao et al., NeurIPS Datasets and Benchmarks 2022): the mean of the k best totals so far, averaged over
the oracle calls of the budget; the last value counts for calls that were not made. Totals are those of different
crystals, since repeated ones are no calls.
"""

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError

TOPS = (1, 10, 100)


def efficiency(
    totals: NDArray[np.float64], budget: int, threshold: float, low: float = 0.0, high: float = 1.0
) -> dict[str, float | int | None]:
    """Return ``auc top-k``, ``calls to k`` and ``burden`` of a run, k = 1, 10, 100, and its ``best`` total.

    Args:
        totals: (N,) in the order of the oracle's calls.
        budget: oracle calls that were allowed.
        threshold: total from which on a crystal counts as a success.
        low: total that counts as 0 in the areas.
        high: total that counts as 1.

    Returns:
        The areas are between 0 and 1. ``calls to k`` is the call of the k-th success, None if there is none. ``burden``
        is the number of calls for each success, None without a success.

    Raises:
        ValueError: if the budget is no call or less than the totals, or ``low`` is not below ``high``.
    """
    totals = np.asarray(totals, np.float64)
    if budget < max(len(totals), 1):
        raise InputError(f"budget must be at least 1 and the number of totals, got {budget} for {len(totals)}")
    if not low < high:
        raise InputError(f"low must be below high, got {low} and {high}")
    share = np.clip((totals - low) / (high - low), 0, 1)
    numbers: dict[str, float | int | None] = {}
    for k in TOPS:
        means = top_means(share, k)
        rest = (budget - len(means)) * (means[-1] if len(means) else 0.0)
        numbers[f"auc top-{k}"] = float((means.sum() + rest) / budget)
    successes = np.flatnonzero(totals >= threshold)
    for k in TOPS:
        numbers[f"calls to {k}"] = int(successes[k - 1]) + 1 if len(successes) >= k else None
    numbers["burden"] = len(totals) / len(successes) if len(successes) else None
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
        ``calls``, ``top-1``, ``top-10``, ``top-100`` and ``mean``, the mean of the totals since the point before. Where
        fewer calls were made than allowed, the best stay as they are, and so does the mean.
    """
    totals = np.asarray(totals, np.float64)
    if not len(totals):
        return {"calls": [], **{f"top-{k}": [] for k in TOPS}, "mean": []}
    calls = np.unique(np.linspace(0, budget, min(points, budget) + 1).astype(np.int64))[1:]
    last = np.minimum(calls, len(totals)) - 1
    numbers = {f"top-{k}": top_means(totals, k)[last].tolist() for k in TOPS}
    sums = np.concatenate([[0.0], np.cumsum(totals)])
    ends = np.unique(last + 1)
    means = np.diff(sums[np.concatenate([[0], ends])]) / np.diff(np.concatenate([[0], ends]))
    numbers["mean"] = means[np.searchsorted(ends, last + 1)].tolist()
    return {"calls": [int(n) for n in calls], **numbers}
