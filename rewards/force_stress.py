"""Distance of a crystal from mechanical equilibrium, by forces and stress."""

from typing import ClassVar

import numpy as np

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult, without_failure
from rewards.distinct import once_per_crystal
from rewards.potentials import ForceField, Potential, load_potential
from rewards.screen import Screen

_MIN, _MAX = 1e-2, 1e2  # eV/Å of the force and eV/Å^3 of the stress


class ForceStress:
    """Minus the logarithm of mean force plus mean stress, the published code's first reward.

    The total is ``-log(f + s)`` with f the mean length of the forces in eV/Å and s the mean absolute principal stress
    in eV/Å^3, each clipped to [0.01, 100]: from -5.3 to 3.9. (The published code takes the mean absolute component of
    the stress, which depends on the orientation of the crystal.) Terms are ``force``, ``stress`` and ``success``, 1 if
    f is at most ``threshold``. A crystal that fails the screen or breaks the potential gets -log(200), the terms 100
    and a reason.

    Args:
        potential: name of a potential with forces and stress, or the potential.
        threshold: mean force in eV/Å that counts as success.
        screen: limits that a crystal must meet before the potential runs.

    Attributes:
        floor: the lowest total, -log(200).

    Raises:
        ValueError: if the potential is unknown or has no forces, or ``threshold`` is not a positive number.
    """

    floor: ClassVar[float] = -float(np.log(2 * _MAX))

    def __init__(
        self, potential: str | Potential = "chgnet", threshold: float = 0.1, screen: Screen | None = None
    ) -> None:
        self.threshold = finite_number("threshold", threshold, above=0)
        potential = load_potential(potential)
        if not isinstance(potential, ForceField):
            raise InputError(f"potential must have forces and stress, {potential.name} has not")
        self.potential = potential
        self.screen = screen or Screen()

    @once_per_crystal
    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        """Score B crystals; see the class for the terms."""
        failures = self.screen(crystals)
        force, stress = np.full((2, len(crystals)), _MAX)
        rows = without_failure(failures)
        if len(rows):
            found = self.potential.forces(crystals[rows].to_atoms())
            failures[rows] = found.failures
            force[rows] = [np.linalg.norm(f, axis=1).mean() for f in found.forces]
            known = np.isfinite(found.stress).all((1, 2))
            stress[rows[known]] = np.abs(np.linalg.eigvalsh(found.stress[known])).mean(1)
        scored = np.zeros(len(crystals), bool)
        scored[without_failure(failures)] = True
        force = np.clip(np.where(scored, force, _MAX), _MIN, _MAX)
        stress = np.clip(np.where(scored, stress, _MAX), _MIN, _MAX)
        success = (scored & (force <= self.threshold)).astype(np.float64)
        return RewardResult(-np.log(force + stress), {"force": force, "stress": stress, "success": success}, failures)
