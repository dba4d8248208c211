"""Relaxation: crystals brought to a nearby minimum of a potential's energy, many at a time."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.errors import InputError
from rewards.potentials import ForceField, load_potential
from rewards.relaxation.fire import FireState, relax
from rewards.relaxation.symmetry_projection import symmetry_projection
from rewards.screen import Screen


class Relaxed(NamedTuple):
    """B crystals after relaxation, in their order.

    Attributes:
        crystals: the relaxed ones; one that failed is as it was.
        failures (B,): object array of None or the reason why a crystal could not be relaxed.
    """

    crystals: CrystalBatch
    failures: NDArray[np.object_]


class RelaxationPaths(NamedTuple):
    """How B crystals were relaxed.

    Attributes:
        energies (B,): of the primitive cells at the end in eV, NaN where it failed.
        steps (B,): steps taken.
        converged (B,): whose forces are below the limit.
    """

    energies: NDArray[np.float64]
    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class Relaxation:
    """Relaxes cell and atoms of crystals together, with FIRE and one batched call of the potential a step.

    What comes out is written down anew, with `Crystal.from_structure`: another origin may be chosen, and the space
    group is a higher one where atoms or cell have moved to where it is. A crystal that is not converged after ``steps``
    is what it has become by then. Identical crystals are relaxed once.

    Args:
        potential: name of a potential, the potential, or an ASE calculator; it must have forces and stress.
        fmax: convergence in eV/Å: of the forces on atoms, and of those on the cell, the stress times the volume per
            atom, in eV.
        steps: most steps of a crystal.
        seconds: most time of a crystal; beyond, it counts as failed. The time of a batch is shared out by atoms.
        symmetry: ``"keep"`` imposes the space group's operations on each step, ``"free"`` follows the forces as they
            are. A symmetric crystal then leaves its symmetry only where rounding grows.
        screen: limits a crystal must keep before the potential is asked.
        device: a torch device for a potential given by name, such as ``"cpu"`` or ``"cuda"``.
        progress: show a bar with the time left.

    Raises:
        ValueError: if the potential is unknown or has no forces, ``symmetry`` is another, or ``fmax``, ``steps`` or
            ``seconds`` is not positive.

    Example:
        >>> relax = Relaxation()
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-6-6-6-90-90-90")
        >>> relaxed, failures = relax(rock_salt.to_batch())
        >>> bool(5.6 < relaxed[0].L[0] < 5.8)
        True
    """

    potential: Any = "chgnet"
    fmax: float = 0.1
    steps: int = 100
    seconds: float = 120.0
    symmetry: str = "keep"
    screen: Screen = field(default_factory=Screen)
    device: str = "cpu"
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("fmax", "steps", "seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.symmetry not in ("keep", "free"):
            raise InputError(f"symmetry must be 'keep' or 'free', got {self.symmetry!r}")
        self.force_field()

    def __call__(self, crystals: CrystalBatch) -> Relaxed:
        """Relax B crystals; one that breaks is as it was, with a reason, and harms no other."""
        return self.with_paths(crystals)[0]

    def with_paths(self, crystals: CrystalBatch) -> tuple[Relaxed, RelaxationPaths]:
        """Relax B crystals, and also return their energies, steps, and who has converged."""
        first, place = crystals.distinct()
        relaxed, failures = list(crystals[first]), self.screen(crystals[first])
        states: dict[int, FireState] = {}
        for row, crystal in enumerate(relaxed):
            if failures[row] is None:
                try:
                    projection = symmetry_projection(crystal) if self.symmetry == "keep" else None
                    states[row] = FireState(crystal.to_atoms(), projection)
                except ValueError as error:
                    failures[row] = str(error)
        relax(
            list(states.values()),
            self.force_field(),
            fmax=self.fmax,
            steps=self.steps,
            seconds=self.seconds,
            progress=self.progress,
        )
        energies, steps, converged = np.full(len(first), np.nan), np.zeros(len(first), int), np.zeros(len(first), bool)
        for row, state in states.items():
            steps[row], failures[row] = state.steps, state.failure
            if state.failure is None:
                try:
                    relaxed[row] = Crystal.from_structure(state.atoms)
                except ValueError as error:
                    failures[row] = f"what it has become cannot be written down: {error}"
                    continue
                energies[row], converged[row] = state.energy, state.converged
        result = Relaxed(CrystalBatch.from_crystals(relaxed)[place], failures[place])
        return result, RelaxationPaths(energies[place], steps[place], converged[place])

    def force_field(self) -> ForceField:
        """Return the potential."""
        if hasattr(self.potential, "get_property"):
            from rewards.potentials.ase import ASEPotential

            return ASEPotential(self.potential, n_jobs=1)
        options = {"device": self.device} if isinstance(self.potential, str) and self.device != "cpu" else {}
        potential = load_potential(self.potential, **options)
        if not isinstance(potential, ForceField):
            raise InputError(f"potential must have forces and stress, {potential.name} has not")
        return potential
