"""Rewards of the tasks, between 0 and 1: target densities and bulk moduli, and two objectives at once."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.reward import Reward, RewardResult, without_failure
from rewards import BulkModulus, Density, EnergyAboveHull, Screen, Validity

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal

MAX_MODULUS = 400.0  # GPa: diamond has 443, beyond it a potential is more often wrong than right
MAX_ENERGY = 0.5  # eV/atom above the hull, where stability reaches 0
_MAX_DEPTH = 0.2  # eV/atom below the hull of an accepted energy


class Target:
    """One minus the distance of a term of a reward from a target, as a fraction of a width; 0 at the lowest.

    Terms are those of the reward, with ``success`` 1 from ``threshold`` on. A crystal that cannot be scored gets 0.

    Args:
        reward: reward that has the term.
        term: name of the term.
        target: target value.
        width: distance with the reward 0.
        threshold: lowest total of a success.
    """

    floor = 0.0

    def __init__(self, reward: Reward, term: str, target: float, width: float, threshold: float) -> None:
        self.reward, self.term = reward, term
        self.target, self.width, self.threshold = float(target), float(width), float(threshold)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals."""
        crystals = as_batch(crystals)
        result: RewardResult = self.reward(crystals)
        total, rows = np.zeros(len(crystals)), without_failure(result.failures)
        total[rows] = 1 - np.minimum(np.abs(result.terms[self.term][rows] - self.target) / self.width, 1)
        return RewardResult(
            total, result.terms | {"success": (total >= self.threshold).astype(np.float64)}, result.failures
        )


class DensityTarget(Target):
    """Closeness of the mass density to a target; a crystal that is not valid gets 0.

    Otherwise the easiest way to any density is a cell with atoms on top of each other. Valid means `Validity`, and no
    two atoms closer than ``min_distance``.

    Args:
        target: g/cm^3; 18 is the task of MatInvent.
        width: g/cm^3.
        threshold: lowest total of a success.
        min_distance: Å.
    """

    def __init__(
        self, target: float = 18.0, width: float = 10.0, threshold: float = 0.9, min_distance: float = 1.0
    ) -> None:
        screen = Screen(min_distance=min_distance)
        super().__init__(Density(target, screen=screen), "density", target, width, threshold)
        self.valid = Validity()

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals."""
        crystals = as_batch(crystals)
        result, valid = super().__call__(crystals), self.valid(crystals).success()
        for row in np.flatnonzero(~valid):
            result.failures[row] = result.failures[row] or "not valid"
        terms = result.terms | {"valid": valid.astype(np.float64), "success": result.terms["success"] * valid}
        return RewardResult(result.total * valid, terms, result.failures)


class BulkModulusTarget(Target):
    """Closeness of the bulk modulus by the embedded CHGNet to a target.

    Args:
        target: GPa; 300 is the task of CrystalGym and MatInvent.
        width: GPa.
        threshold: lowest total of a success.
    """

    def __init__(self, target: float = 300.0, width: float = 250.0, threshold: float = 0.8) -> None:
        super().__init__(BulkModulus(floor=0.0), "bulk_modulus", target, width, threshold)


class StiffAndStable:
    """Half for a high bulk modulus, half for a low energy above the hull, both by the embedded CHGNet.

    The total is ``min(K, 400 GPa) / 800 GPa + (0.5 eV/atom - E) / 1 eV/atom`` with E clipped to 0 to 0.5 eV/atom, so it
    is between 0 and 1. Terms are ``bulk_modulus`` (GPa), ``e_above_hull`` (eV/atom) and ``success``, 1 for at least
    200 GPa at no more than 0.1 eV/atom. A crystal that one of them cannot score gets 0; so does one more than 0.2
    eV/atom below the hull, where the potential errs.
    """

    floor = 0.0

    def __init__(self) -> None:
        self.energy = EnergyAboveHull(max_depth=_MAX_DEPTH)
        self.modulus = BulkModulus(floor=0.0)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        energy = self.energy(crystals)
        failures, modulus = energy.failures.copy(), np.zeros(len(crystals))
        rows = without_failure(failures)
        stiff = self.modulus(crystals[rows])
        modulus[rows], failures[rows] = stiff.terms["bulk_modulus"], stiff.failures
        rows, total = without_failure(failures), np.zeros(len(crystals))
        e_above_hull = energy.terms["e_above_hull"]
        total[rows] = (stiffness(modulus) / 2 + stability(e_above_hull) / 2)[rows]
        scored = np.isin(np.arange(len(crystals)), rows)
        success = scored & (modulus >= MAX_MODULUS / 2) & (e_above_hull <= 0.1)
        terms = {
            "bulk_modulus": np.where(scored, modulus, 0.0),
            "e_above_hull": e_above_hull,
            "success": success.astype(np.float64),
        }
        return RewardResult(total, terms, failures)


def stiffness(modulus: np.ndarray) -> np.ndarray:
    """Return bulk moduli in GPa as fractions (B,) of 400 GPa, at most 1."""
    return np.clip(modulus / MAX_MODULUS, 0, 1)


def stability(e_above_hull: np.ndarray) -> np.ndarray:
    """Return energies above the hull in eV/atom as numbers (B,) from 1, on the hull and below, to 0, at 0.5 eV/atom."""
    return np.clip(1 - e_above_hull / MAX_ENERGY, 0, 1)
