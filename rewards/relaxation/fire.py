"""Batched FIRE on atoms and cell: one call of the potential for all structures at every step.

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

_TIME_STEP, _MAX_TIME_STEP = 0.1, 1.0
_MAX_MOVE = 0.2  # Å
_PATIENCE, _FASTER, _SLOWER = 5, 1.1, 0.5
_MIXING, _LESS_MIXING = 0.1, 0.99


@dataclass
class FireState:
    """The state of one structure during a relaxation.

    Attributes:
        atoms: the current structure, changed in place.
        projection: projects forces and stress onto a symmetry, None to leave them free.
        steps: number of steps taken.
        energy: energy in eV at the last evaluation.
        converged: whether the largest force is below the limit.
        failure: None or the reason why the relaxation has stopped.
        seconds: time spent, that of a batch divided among its structures in proportion to their atoms.
    """

    atoms: "Atoms"
    projection: "SymmetryProjection | None" = None
    steps: int = 0
    energy: float = np.nan
    converged: bool = False
    failure: str | None = None
    seconds: float = 0.0
    _velocity: Any = None
    _time_step: float = _TIME_STEP
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
                self._time_step = min(self._time_step * _FASTER, _MAX_TIME_STEP)
                self._mixing *= _LESS_MIXING
            self._uphill_free += 1
        else:
            self._velocity = np.zeros_like(force)
            self._mixing, self._uphill_free = _MIXING, 0
            self._time_step *= _SLOWER
        self._velocity = self._velocity + self._time_step * force
        step = self._time_step * self._velocity
        step *= min(1.0, _MAX_MOVE / max(float(np.linalg.norm(step)), 1e-300))
        n = len(self.atoms)
        strain = expm(step[n:] / n)
        positions = self.atoms.positions @ strain + step[:n]
        self.atoms.set_cell(self.atoms.cell.array @ strain)
        self.atoms.set_positions(positions)
        self.steps += 1


def relax(
    states: Sequence[FireState],
    potential: "ForceField",
    *,
    fmax: float,
    steps: int,
    seconds: float,
    progress: bool = False,
) -> None:
    """Relax structures until every force is below a limit; they are changed in place.

    Args:
        states: the structures.
        potential: the model of energies, forces and stress.
        fmax: convergence in eV/Å: the norm of the longest row of the generalised force.
        steps: maximum number of steps of a structure.
        seconds: maximum time of a structure.
        progress: show a bar of the finished structures, with the time left.
    """
    active = list(states)
    with tqdm(total=len(active), unit="crystal", desc="relax", disable=not progress) as bar:
        while active:
            start = time.perf_counter()
            result = potential.forces([state.atoms for state in active])
            seconds_per_atom = (time.perf_counter() - start) / sum(len(state.atoms) for state in active)
            remaining = []
            for row, state in enumerate(active):
                state.seconds += seconds_per_atom * len(state.atoms)
                if result.failures[row] is not None or not np.isfinite(result.total[row]):
                    state.failure = result.failures[row] or f"the potential gave {result.total[row]}"
                    continue
                state.energy = float(result.total[row])
                force = state.force(result.forces[row], result.stress[row])
                state.converged = bool(np.linalg.norm(force, axis=1).max() < fmax)
                if state.converged or state.steps >= steps:
                    continue
                if state.seconds > seconds:
                    state.failure = f"TimeoutError: the relaxation takes more than {seconds:g} s"
                    continue
                state.move(force)
                remaining.append(state)
            bar.update(len(active) - len(remaining))
            active = remaining
