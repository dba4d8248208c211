"""Many structures relaxed at once: FIRE on atoms and cell, with one batched call of the potential a step.

FIRE is that of Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), with the constants of ASE. The cell moves by
strains: a step multiplies it by the exponential of a symmetric matrix, which the atoms follow.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from tqdm import tqdm

if TYPE_CHECKING:
    from ase import Atoms

    from rewards.potentials import ForceField
    from rewards.relaxation.symmetry_projection import SymmetryProjection

_STEP, _LONGEST_STEP = 0.1, 1.0
_LONGEST_MOVE = 0.2  # Å
_PATIENCE, _FASTER, _SLOWER = 5, 1.1, 0.5
_MIXING, _LESS_MIXING = 0.1, 0.99


@dataclass
class Walker:
    """A structure on its way to a minimum.

    Attributes:
        atoms: the structure as it is now; it is changed in place.
        projection: brings forces and stress back to a symmetry, None to leave them free.
        steps: how many it has taken.
        energy: of the last evaluation in eV.
        converged: whether the largest force is below the limit.
        failure: None or the reason why it has stopped.
        seconds: what it has taken, the time of a batch shared out by atoms.
    """

    atoms: "Atoms"
    projection: "SymmetryProjection | None" = None
    steps: int = 0
    energy: float = np.nan
    converged: bool = False
    failure: str | None = None
    seconds: float = 0.0
    _velocity: Any = None
    _time_step: float = _STEP
    _mixing: float = _MIXING
    _uphill_free: int = 0

    def force(self, forces: NDArray[np.float64], stress: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the generalised force (n + 3, 3) in eV/Å: on the atoms, and the virial per atom on the cell."""
        if self.projection is not None:
            forces, stress = self.projection.forces(forces), self.projection.stress(stress)
        virial = -self.atoms.get_volume() * (stress + stress.T) / 2  # type: ignore[no-untyped-call]
        return np.concatenate([forces, virial / len(forces)])

    def move(self, force: NDArray[np.float64]) -> None:
        """Take a step along a generalised force."""
        if self._velocity is None:
            self._velocity = np.zeros_like(force)
        elif (force * self._velocity).sum() > 0:
            along = np.linalg.norm(self._velocity) / np.linalg.norm(force) * force
            self._velocity = (1 - self._mixing) * self._velocity + self._mixing * along
            if self._uphill_free > _PATIENCE:
                self._time_step = min(self._time_step * _FASTER, _LONGEST_STEP)
                self._mixing *= _LESS_MIXING
            self._uphill_free += 1
        else:
            self._velocity = np.zeros_like(force)
            self._mixing, self._uphill_free = _MIXING, 0
            self._time_step *= _SLOWER
        self._velocity = self._velocity + self._time_step * force
        step = self._time_step * self._velocity
        step *= min(1.0, _LONGEST_MOVE / max(float(np.linalg.norm(step)), 1e-300))
        n = len(self.atoms)
        strain = expm(step[n:] / n)
        positions = self.atoms.positions @ strain + step[:n]
        self.atoms.set_cell(self.atoms.cell.array @ strain)
        self.atoms.set_positions(positions)
        self.steps += 1


def relax(
    walkers: Sequence[Walker],
    potential: "ForceField",
    *,
    fmax: float,
    steps: int,
    seconds: float,
    progress: bool = False,
) -> None:
    """Relax structures until every force is below a limit; they are changed in place.

    Args:
        walkers: the structures.
        potential: gives energies, forces and stress.
        fmax: convergence in eV/Å: the longest row of the generalised force.
        steps: most steps of a structure.
        seconds: most time of a structure.
        progress: show a bar of the finished ones, with the time left.
    """
    active = list(walkers)
    with tqdm(total=len(active), unit="crystal", desc="relax", disable=not progress) as bar:
        while active:
            start = time.perf_counter()
            result = potential.forces([walker.atoms for walker in active])
            share = (time.perf_counter() - start) / sum(len(walker.atoms) for walker in active)
            going = []
            for row, walker in enumerate(active):
                walker.seconds += share * len(walker.atoms)
                if result.failures[row] is not None or not np.isfinite(result.total[row]):
                    walker.failure = result.failures[row] or f"the potential gave {result.total[row]}"
                    continue
                walker.energy = float(result.total[row])
                force = walker.force(result.forces[row], result.stress[row])
                walker.converged = bool(np.linalg.norm(force, axis=1).max() < fmax)
                if walker.converged or walker.steps >= steps:
                    continue
                if walker.seconds > seconds:
                    walker.failure = f"TimeoutError: it takes more than {seconds:g} s"
                    continue
                walker.move(force)
                going.append(walker)
            bar.update(len(active) - len(going))
            active = going
