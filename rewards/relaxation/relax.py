"""Relaxation of crystals to a nearby local minimum of a potential's energy, batched."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.errors import InputError
from rewards.distinct import once_per_crystal
from rewards.potentials import ForceField, load_potential
from rewards.potentials.ase import ASEPotential
from rewards.relaxation.fire import FireState, relax
from rewards.relaxation.symmetry_projection import symmetry_projection
from rewards.screen import Screen


class Relaxed(NamedTuple):
    """B crystals after relaxation, in their order.

    Attributes:
        crystals: the relaxed ones; one that failed is unchanged.
        failures (B,): object array of None or the reason why a crystal could not be relaxed.
    """

    crystals: CrystalBatch
    failures: NDArray[np.object_]


class RelaxationPaths(NamedTuple):
    """Energies, steps and convergence of B relaxations.

    Attributes:
        energies (B,): final energies of the primitive cells in eV, NaN where it failed.
        steps (B,): numbers of steps.
        converged (B,): whether the forces are below the limit.
    """

    energies: NDArray[np.float64]
    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]


class Relaxations(NamedTuple):
    """All results of B relaxations: the fields of `Relaxed` and `RelaxationPaths`."""

    crystals: CrystalBatch
    failures: NDArray[np.object_]
    energies: NDArray[np.float64]
    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> "Relaxations":
        """Return the results of the given rows (n,), repeats allowed."""
        per_crystal = self.failures[rows], self.energies[rows], self.steps[rows], self.converged[rows]
        return Relaxations(self.crystals[rows], *per_crystal)


@dataclass(frozen=True)
class Relaxation:
    """Relaxes cell and atoms of crystals together, with FIRE and one batched call of the potential per step.

    A relaxed structure is standardised with `Crystal.from_structure`: the origin may differ, and the space group is a
    supergroup where atoms or cell have moved onto its positions. A crystal that has not converged after ``steps`` is
    returned as it is then. Identical crystals are relaxed once.

    Args:
        potential: name of a potential, the potential, or an ASE calculator; it must have forces and stress.
        fmax: convergence in eV/Å of the forces on atoms, and in eV of those on the cell, the stress times the volume
            per atom.
        steps: maximum number of steps of a crystal.
        seconds: maximum time of a crystal, after which it has failed. The time of a batch is divided among its
            crystals in proportion to their atoms.
        symmetry: ``"keep"`` projects each step onto the symmetry of the space group, ``"free"`` follows the forces as
            they are. A symmetric crystal then loses its symmetry only as rounding errors grow.
        screen: limits that a crystal must meet before the potential runs.
        device: a torch device for a potential given by name, such as ``"cpu"`` or ``"cuda"``.
        progress: show a bar with the time left.

    Raises:
        ValueError: if the potential is unknown or has no forces, ``symmetry`` is unknown, or ``fmax``, ``steps`` or
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
        finite_number("fmax", self.fmax, above=0)
        finite_number("seconds", self.seconds, above=0)
        integer("steps", self.steps, least=1)
        if self.symmetry not in ("keep", "free"):
            raise InputError(f"symmetry must be 'keep' or 'free', got {self.symmetry!r}")
        self.force_field()

    def __call__(self, crystals: CrystalBatch) -> Relaxed:
        """Relax B crystals; one that fails is returned unchanged with a reason, and harms no other."""
        return self.with_paths(crystals)[0]

    def with_paths(self, crystals: CrystalBatch) -> tuple[Relaxed, RelaxationPaths]:
        """Relax B crystals, and also return their energies, steps and convergence."""
        result = self._relax_distinct(crystals)
        return Relaxed(*result[:2]), RelaxationPaths(*result[2:])

    @once_per_crystal
    def _relax_distinct(self, crystals: CrystalBatch) -> Relaxations:
        return self.relax_each(crystals)

    def relax_each(self, crystals: CrystalBatch) -> Relaxations:
        """Relax B crystals, for a caller that has removed repeats: each of them takes its own calculation."""
        relaxed, failures = list(crystals), self.screen(crystals)
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
        n = len(crystals)
        energies, steps, converged = np.full(n, np.nan), np.zeros(n, int), np.zeros(n, bool)
        for row, state in states.items():
            steps[row], failures[row] = state.steps, state.failure
            if state.failure is None:
                try:
                    relaxed[row] = Crystal.from_structure(state.atoms)
                except ValueError as error:
                    failures[row] = f"the relaxed structure cannot be represented: {error}"
                    continue
                energies[row], converged[row] = state.energy, state.converged
        return Relaxations(CrystalBatch.from_crystals(relaxed), failures, energies, steps, converged)

    def force_field(self) -> ForceField:
        """Return the potential."""
        if hasattr(self.potential, "get_property"):
            return ASEPotential(self.potential, n_jobs=1)
        options = {"device": self.device} if isinstance(self.potential, str) and self.device != "cpu" else {}
        potential = load_potential(self.potential, **options)
        if not isinstance(potential, ForceField):
            raise InputError(f"potential must have forces and stress, {potential.name} has not")
        return potential
