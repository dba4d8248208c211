"""The bulk modulus by an equation of state."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult, without_failure
from rewards.distinct import once_per_crystal
from rewards.goal import Goal, Kind
from rewards.potentials import Potential, load_potential
from rewards.screen import Screen

_GPA = 160.21766208  # of one eV/Å^3
_ROUNDS = 6  # fits, between which the volumes move towards the minimum


class BulkModulus:
    """The bulk modulus in GPa at the volume of lowest energy, the fractional coordinates and the cell's shape kept.

    Energies at ``points`` volumes within ``strain`` of the crystal's own are fitted with the third-order
    Birch-Murnaghan equation of state (Phys. Rev. 71, 809 (1947), Eq. 1), a cubic in V^(-2/3). If its minimum lies
    outside, the volumes are shifted towards it, at most five times. Terms are ``bulk_modulus`` (GPa), ``volume_ratio``
    (the volume of lowest energy over the crystal's), ``potential_calls`` and ``success``. The total is never below
    ``floor``. A crystal that fails the screen, breaks the potential or has no minimum nearby gets ``floor``, the terms
    0 and a reason.

    Args:
        potential: name of a potential, or the potential.
        goal: ``"maximise"``, ``"minimise"``, or for a ``target`` the loss ``"mse"``, ``"mae"`` or ``"success"``.
        target: the target value in GPa.
        tolerance: distance in GPa from the target that counts as success.
        points: number of volumes of a fit, at least 5.
        strain: largest relative change of the volume.
        floor: the lowest total, also that of a crystal that cannot be scored.
        screen: limits that a crystal must meet before the potential runs.

    Raises:
        ValueError: if a number is out of range or the potential unknown.
    """

    def __init__(
        self,
        potential: str | Potential = "chgnet",
        goal: Kind = "maximise",
        target: float | None = None,
        tolerance: float = 0.0,
        points: int = 7,
        strain: float = 0.06,
        floor: float = -1000.0,
        screen: Screen | None = None,
    ) -> None:
        self.points = integer("points", points, least=5)
        self.strain = finite_number("strain", strain, above=0, most=0.3)
        self.floor = finite_number("floor", floor)
        self.potential = load_potential(potential)
        self.goal = Goal(goal, target, tolerance)
        self.screen = screen or Screen()

    @once_per_crystal
    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        """Score B crystals; see the class for the terms."""
        failures = self.screen(crystals)
        modulus, ratio, calls = np.zeros((3, len(crystals)))
        centre = np.ones(len(crystals))
        active = without_failure(failures)
        for _ in range(_ROUNDS):
            if not len(active):
                break
            scale = centre[active, None] * np.linspace(1 - self.strain, 1 + self.strain, self.points)  # (A, points)
            energies, reasons = self._energies(crystals[active], scale)
            calls[active] += self.points
            fit = birch_murnaghan(scale, energies)
            inside = fit.modulus > 0
            inside &= (scale[:, 0] <= fit.volume) & (fit.volume <= scale[:, -1])
            volumes = crystals[active].volume_per_atom() * crystals[active].n_atoms(primitive=True)
            modulus[active] = fit.modulus * _GPA / volumes
            ratio[active] = fit.volume
            failures[active] = reasons
            centre[active] = np.take_along_axis(scale, np.nan_to_num(energies, nan=np.inf).argmin(1)[:, None], 1)[:, 0]
            active = active[~inside & [reason is None for reason in reasons]]
        failures[active] = "the energy has no minimum near the crystal's volume"
        rows, total = without_failure(failures), np.full(len(crystals), self.floor)
        total[rows] = np.maximum(self.goal.reward(modulus[rows]), self.floor)
        success = np.zeros(len(crystals))
        success[rows] = self.goal.reached(modulus[rows])
        kept = np.isin(np.arange(len(crystals)), rows)
        terms = {"bulk_modulus": np.where(kept, modulus, 0.0), "volume_ratio": np.where(kept, ratio, 0.0)}
        return RewardResult(total, {**terms, "potential_calls": calls, "success": success}, failures)

    def _energies(
        self, crystals: CrystalBatch, scale: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
        """Return the energies (A, points) at the relative volumes (A, points), and the first reason of each crystal."""
        strained = []
        for atoms, volumes in zip(crystals.to_atoms(), scale, strict=True):
            for volume in volumes:
                copy = atoms.copy()  # type: ignore[no-untyped-call]
                copy.set_cell(atoms.cell.array * volume ** (1 / 3), scale_atoms=True)
                strained.append(copy)
        found = self.potential.energies(strained)
        reasons = [next((r for r in part if r is not None), None) for part in found.failures.reshape(scale.shape)]
        return found.total.reshape(scale.shape), np.array([*reasons, None], object)[:-1]


class EquationOfState(NamedTuple):
    """Minima of fitted energies: volume (B,) and bulk modulus (B,) in the units of the energies over the volumes."""

    volume: NDArray[np.float64]
    modulus: NDArray[np.float64]


def birch_murnaghan(volumes: NDArray[np.float64], energies: NDArray[np.float64]) -> EquationOfState:
    """Return the minima of third-order Birch-Murnaghan equations of state, NaN where a fit has none.

    Args:
        volumes: volumes (B, n) of every fit.
        energies: energies (B, n) at them.
    """
    volume, modulus = np.full((2, len(volumes)), np.nan)
    for row in np.flatnonzero(np.isfinite(energies).all(1)):
        middle = volumes[row].mean()
        x = (volumes[row] / middle) ** (-2 / 3)
        cubic = np.polynomial.Polynomial.fit(x, energies[row], 3).convert()
        first, second = cubic.deriv(), cubic.deriv(2)
        roots = first.roots()
        real = roots[np.abs(roots.imag) < 1e-9].real
        minima = real[(real > 0) & (second(real) > 0)]
        if len(minima):
            x0 = minima[np.abs(minima - 1).argmin()]
            # with E'(x0) = 0:  V d2E/dV2 = (4/9) x0^2 E''(x0) / V
            volume[row] = middle * x0**-1.5
            modulus[row] = 4 / 9 * x0**2 * second(x0) / volume[row]
    return EquationOfState(volume, modulus)
