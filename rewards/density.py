"""The mass density, a property that needs no model."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.elements import SYMBOLS
from crystal_env.reward import RewardResult, without_failure
from rewards.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

_GRAMS_PER_CM3 = 1.66053906660  # of one dalton in Å^3 (CODATA 2018)


class Density:
    """Minus the distance of the mass density from a target in g/cm^3.

    The total is ``-min(|density - target|, clip)``. Terms are ``density`` and ``success``, 1 within ``tolerance``. A
    crystal that fails the screen, with coinciding atoms or the like, gets ``-clip``, the terms 0 and a reason:
    otherwise unphysical cells would be the easiest way to any density.

    Args:
        target: density in g/cm^3.
        tolerance: distance in g/cm^3 that counts as success.
        clip: distance in g/cm^3 beyond which all totals are the same.
        screen: limits that a crystal must meet.

    Attributes:
        floor: the lowest total, ``-clip``.

    Raises:
        ValueError: if a number is not positive and finite.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> round(float(Density(target=2.0)([rock_salt]).terms["density"][0]), 2)
        2.16
    """

    def __init__(
        self, target: float = 3.0, tolerance: float = 0.3, clip: float = 10.0, screen: Screen | None = None
    ) -> None:
        self.target = finite_number("target", target, above=0)
        self.tolerance = finite_number("tolerance", tolerance, above=0)
        self.clip = finite_number("clip", clip, above=0)
        self.screen = screen or Screen()

    @property
    def floor(self) -> float:
        """The lowest total."""
        return -self.clip

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        failures = self.screen(crystals)
        rows, density = without_failure(failures), np.zeros(len(crystals))
        distance, success = np.full(len(crystals), self.clip), np.zeros(len(crystals))
        density[rows] = densities(crystals[rows])
        distance[rows] = np.minimum(np.abs(density[rows] - self.target), self.clip)
        success[rows] = distance[rows] <= self.tolerance
        return RewardResult(-distance, {"density": density, "success": success}, failures)


def densities(crystals: CrystalBatch) -> NDArray[np.float64]:
    """Return the mass densities (B,) of crystals in g/cm^3."""
    counts = crystals.composition()
    masses: NDArray[np.float64] = counts @ _masses() / np.maximum(counts.sum(1), 1)
    return _GRAMS_PER_CM3 * masses / crystals.volume_per_atom()


@cache
def _masses() -> NDArray[np.float64]:
    """Return the masses (119,) of the elements in daltons."""
    from pymatgen.core import Element

    return np.array([0.0, *(float(Element(symbol).atomic_mass) for symbol in SYMBOLS[1:])])
