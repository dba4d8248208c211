"""The mass density: a property that needs no model."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.elements import SYMBOLS
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult
from rewards.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

_GRAMS_PER_CM3 = 1.66053906660  # of one dalton in Å^3 (CODATA 2018)


class Density:
    """Minus the distance of the mass density from a target in g/cm^3.

    The total is ``-min(|density - target|, clip)``. Terms are ``density`` and ``success``, 1 within ``tolerance``. A
    crystal that fails the screen, with atoms on top of each other or the like, gets ``-clip``, the terms 0 and a
    reason: else nonsense would be the easiest way to any density.

    Args:
        target: density in g/cm^3.
        tolerance: distance in g/cm^3 that counts as success.
        clip: largest distance in g/cm^3 that is told apart.
        screen: limits a crystal must keep.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> round(float(Density(target=2.0)([rock_salt]).terms["density"][0]), 2)
        2.16
    """

    def __init__(
        self, target: float = 3.0, tolerance: float = 0.3, clip: float = 10.0, screen: Screen | None = None
    ) -> None:
        for name, value in (("target", target), ("tolerance", tolerance), ("clip", clip)):
            if not 0 < value < np.inf:
                raise InputError(f"{name} must be a positive number, got {value!r}")
        self.target, self.tolerance, self.clip = float(target), float(tolerance), float(clip)
        self.screen = screen or Screen()

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        failures = self.screen(crystals)
        passed = np.array([failure is None for failure in failures], bool)
        density = np.zeros(len(crystals))
        density[passed] = densities(crystals[passed])
        away = np.where(passed, np.minimum(np.abs(density - self.target), self.clip), self.clip)
        success = (passed & (away <= self.tolerance)).astype(np.float64)
        return RewardResult(-away, {"density": density, "success": success}, failures)


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
