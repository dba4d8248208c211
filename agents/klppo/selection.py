"""Selection before the reward: which of the sampled crystals are worth a call, and which are relaxed."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.elements import MIN_CONTACT
from crystal_env.wyckoff import tables

FILTERS = ("contact", "repeat")
"""What can reject a crystal before it is scored."""


def select(
    crystals: CrystalBatch, size: int, filters: Iterable[str], known: set[str]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Return the rows of the first ``size`` crystals that pass, and filter -> rows before them that it rejects.

    Args:
        crystals: B crystals in the order of sampling.
        size: crystals that are wanted.
        filters: "contact" rejects distances below `MIN_CONTACT`, "repeat" a `Crystal.key` that is known or came before.
        known: keys of crystals that were scored before.
    """
    is_close = (
        crystals.min_contact(MIN_CONTACT) < MIN_CONTACT if "contact" in filters else np.zeros(len(crystals), bool)
    )
    passed: list[int] = []
    rejected: dict[str, list[int]] = {name: [] for name in filters}
    seen = set(known)
    for row, crystal in enumerate(crystals):
        if len(passed) == size:
            break
        key = crystal.key() if "repeat" in filters else ""
        if is_close[row]:
            rejected["contact"].append(row)
        elif key and key in seen:
            rejected["repeat"].append(row)
        else:
            passed.append(row)
            seen.add(key)
    return np.array(passed, np.int64), {name: np.array(rows, np.int64) for name, rows in rejected.items()}


def some_with_free_coordinates(crystals: CrystalBatch, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows, in order, of a random fraction of those of B crystals that have free coordinates."""
    free = np.flatnonzero(tables().free_coordinates[crystals.G[:, None], crystals.W].any((1, 2)))
    size = round(fraction * len(free))
    return np.sort(rng.choice(free, size, replace=False)) if size else np.zeros(0, np.int64)
