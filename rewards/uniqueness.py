"""Uniqueness within a batch."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.reward import RewardResult, without_failure
from rewards.matching import rows_by_formula, same
from rewards.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal


class Uniqueness:
    """1 / k for a crystal whose structure occurs k times in its batch: the totals add up to the number of structures.

    Structures are the same by pymatgen's ``StructureMatcher`` with its defaults among equal reduced formulas, whatever
    their space groups. As that relation is not transitive, all crystals that a chain of matches connects are one
    structure; so the order of the batch does not matter. Terms are ``copies`` (k) and ``success``, 1 for a
    structure that occurs once. A crystal that fails the screen is not compared, and gets 0, 0 copies and a reason.

    It depends on the batch, so it must not be cached.

    Args:
        screen: limits that a crystal must meet.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> salt = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-{0}-{0}-{0}-90-90-90"
        >>> Uniqueness()([Crystal.from_string(salt.format(a)) for a in (5.6, 5.7)]).total
        array([0.5, 0.5])
    """

    floor: ClassVar[float] = 0.0
    """The lowest total."""

    def __init__(self, screen: Screen | None = None) -> None:
        self.screen = screen or Screen()

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        failures, copies = self.screen(crystals), np.zeros(len(crystals))
        rows = without_failure(failures)
        first, place = crystals[rows].distinct()
        labels = connected(crystals[rows][first])[place]
        copies[rows] = np.bincount(labels, minlength=1)[labels]
        total = np.divide(1.0, copies, out=np.zeros(len(crystals)), where=copies > 0)
        return RewardResult(total, {"copies": copies, "success": (copies == 1).astype(np.float64)}, failures)


def connected(crystals: CrystalBatch) -> NDArray[np.int64]:
    """Return for every crystal (B,) the label of its connected component of matching structures."""
    labels = np.arange(len(crystals))
    for rows in rows_by_formula(crystals).values():
        ordered = sorted(rows.tolist(), key=lambda row: str(crystals[row]))  # the matcher may not be symmetric
        structures = crystals[ordered].to_structures(primitive=True) if len(ordered) > 1 else []
        for later in range(1, len(structures)):
            for earlier in range(later):
                one, other = labels[ordered[earlier]], labels[ordered[later]]
                if one != other and same(structures[earlier], structures[later]):
                    labels[labels == other] = one
    return labels
