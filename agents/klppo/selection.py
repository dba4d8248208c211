"""Selection before the reward: which of the sampled crystals are worth a call."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch

_MIN_DISTANCE = 0.5  # Å; every screen rejects closer atoms


def select(
    crystals: CrystalBatch, size: int, filters: Iterable[str], known: set[str]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the rows of the first ``size`` crystals that pass, and reason -> number of those before them that do not.

    If no more than ``size`` crystals are given, all of them pass.

    Args:
        crystals: B crystals in the order of sampling.
        size: crystals that are wanted.
        filters: "distance" rejects atoms closer than 0.5 Å, "repeat" a `Crystal.key` that is known or came before.
        known: keys of crystals that were scored before.
    """
    if len(crystals) <= size:
        return np.arange(len(crystals)), {}
    too_close = (
        crystals.min_distance(_MIN_DISTANCE) < _MIN_DISTANCE if "distance" in filters else [False] * len(crystals)
    )
    rejected, seen = {"distance": 0, "repeat": 0}, set(known)
    rows: list[int] = []
    for row, crystal in enumerate(crystals):
        if len(rows) == size:
            break
        key = crystal.key() if "repeat" in filters else ""
        if too_close[row]:
            rejected["distance"] += 1
        elif key and key in seen:
            rejected["repeat"] += 1
        else:
            rows.append(row)
            seen.add(key)
    return np.array(rows, np.int64), rejected
