"""Intervals: of a rate over attempts, of a statistic over crystals, of a score over seeds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError

MIN_SEEDS = 5
"""Minimum number of seeds for an interval at 95 %; the score of fewer has their range instead."""

_LEVEL = 0.95
_Z = 1.959964  # quantile of the normal distribution at 97.5 %


def rate(count: int, total: int) -> dict[str, Any]:
    """Return a rate with its count, its total and Wilson's interval at 95 %, JSON-plain."""
    count, total = int(count), int(total)
    return {"count": count, "total": total, "rate": count / max(total, 1), "interval": list(wilson(count, total))}


def wilson(count: int, total: int, z: float = _Z) -> tuple[float, float]:
    """Return Wilson's interval of a rate, by default at 95 % (Wilson, J. Am. Stat. Assoc. 22, 209 (1927))."""
    if not total:
        return 0.0, 1.0
    rate, weight = count / total, z**2 / total
    middle, width = rate + weight / 2, z * np.sqrt(rate * (1 - rate) / total + weight / (4 * total))
    low, high = (middle - width) / (1 + weight), (middle + width) / (1 + weight)
    return (float(low) if count else 0.0), (float(high) if count < total else 1.0)  # rounding leaves the bounds there


def bootstrap(
    values: NDArray[np.float64], statistic: Callable[..., Any] = np.mean, repeats: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval at 95 % of a statistic of values (N,), None where there are none.

    It is meant for hundreds of crystals. Of a few seeds it is much too narrow; see `over_seeds`.
    """
    if not len(values):
        return None
    rng = np.random.default_rng(seed)
    resampled = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(repeats)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def t_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of Student's interval at 95 % of the means of values (S, ...) over the first axis, S > 1."""
    from scipy.stats import t

    n = len(values)
    half = t.ppf((1 + _LEVEL) / 2, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    mean = values.mean(axis=0)
    return mean - half, mean + half


def over_seeds(per_seed: Sequence[float]) -> dict[str, Any]:
    """Return one number of the scores of several seeds.

    Args:
        per_seed: a score for each seed.

    Returns:
        ``value``: the mean. ``interval`` and ``interval_kind``: of five and more seeds Student's interval of the mean
        at 95 % and ``"t"``; of two to four, for which an interval at that level would hardly say anything, the lowest
        and the highest score and ``"range"``; None for one. ``per_seed``: the scores.

    Raises:
        ValueError: if there is no score.
    """
    if not len(per_seed):
        raise InputError("per_seed must hold at least one score")
    scores = np.asarray(per_seed, np.float64)
    interval, kind = None, None
    if len(scores) >= MIN_SEEDS:
        low, high = t_interval(scores)
        interval, kind = [float(low), float(high)], "t"
    elif len(scores) > 1:
        interval, kind = [float(scores.min()), float(scores.max())], "range"
    return {"value": float(scores.mean()), "interval": interval, "interval_kind": kind, "per_seed": scores.tolist()}


def interval_name(n_seeds: int) -> str:
    """Return what stands beside the mean over seeds, such as ``"95 % t interval of 5 seeds"``."""
    if n_seeds >= MIN_SEEDS:
        return f"95 % t interval of {n_seeds} seeds"
    return f"range of {n_seeds} seeds" if n_seeds > 1 else "one seed"
