"""Numbers over seeds: the interquartile mean and its interval (Agarwal et al., NeurIPS 2021)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from crystal_env.errors import InputError

_REPEATS = 10_000
_FEW = 3


def interquartile_mean(values: NDArray[np.float64] | Sequence[float]) -> float:
    """Return the mean of what is left of values, of any shape, without the lowest and the highest quarter."""
    return float(trim_mean(np.asarray(values, np.float64), 0.25, axis=None))


def aggregate(per_seed: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Return one number of the scores of several seeds, with its bootstrap interval at 95 %.

    Args:
        per_seed: a score for each seed.
        seed: of the resampling.

    Returns:
        ``value``: the interquartile mean, or the mean of fewer than three; ``interval``: its percentile bootstrap
        interval, None for one seed; and ``per_seed``.

    Raises:
        ValueError: if there is no score.
    """
    if not len(per_seed):
        raise InputError("per_seed must hold at least one score")
    scores = np.asarray(per_seed, np.float64)
    if len(scores) < _FEW:
        interval = [float(scores.min()), float(scores.max())] if len(scores) > 1 else None
        return {"value": float(scores.mean()), "interval": interval, "per_seed": scores.tolist()}
    low, high = stratified_interval(scores[:, None], seed)
    return {"value": interquartile_mean(scores), "interval": [low, high], "per_seed": scores.tolist()}


def stratified_interval(scores: NDArray[np.float64], seed: int = 0, repeats: int = _REPEATS) -> tuple[float, float]:
    """Return the 95 % interval of the interquartile mean of scores (seeds, tasks), seeds drawn anew for each task."""
    rng = np.random.default_rng(seed)
    n_seeds, n_tasks = scores.shape
    drawn = scores[rng.integers(n_seeds, size=(repeats, n_seeds, n_tasks)), np.arange(n_tasks)]
    means = trim_mean(drawn.reshape(repeats, -1), 0.25, axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
