"""Batches of crystals for training: in random order, cut into micro-batches of similar length."""

import numpy as np
from numpy.typing import NDArray

_OVERHEAD = 150
"""Tokens that a pass of the network could handle in the time that starting it takes."""


def epoch_order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order (size,) of the crystals in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(size)


def micro_batches(n_sites: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Cut a batch of crystals with given numbers of sites (B,) into parts, so that little time goes into padding.

    Each part is padded to its longest crystal; the cuts minimise the padded tokens and a constant for every part.

    Args:
        n_sites: of the crystals.
        max_tokens: most padded tokens of a part, unless a single crystal has more.

    Returns:
        Indices into the batch, which together are all of it.
    """
    order = np.argsort(n_sites, kind="stable")
    tokens, size = 5 * n_sites[order] + 1, len(n_sites)
    cost, start_of = np.zeros(size + 1), np.zeros(size + 1, np.int64)
    for end in range(1, size + 1):  # the cheapest way to cut the first ones
        padded = tokens[end - 1]
        starts = np.arange(max(0, min(end - 1, end - max_tokens // padded)), end)
        options = cost[starts] + (end - starts) * padded + _OVERHEAD
        start_of[end] = starts[options.argmin()]
        cost[end] = options.min()
    parts, end = [], size
    while end:
        parts.append(order[start_of[end] : end])
        end = int(start_of[end])
    return parts
