"""The interface of potentials: energies of periodic structures, optionally forces and stress, on a declared scale."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crystal_env.integrity.digest import file_digest

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

MP2020 = "MP2020"
"""The scale of the Materials Project's energies with the corrections of `MaterialsProject2020Compatibility`."""

PBE = "PBE"
"""The scale of uncorrected GGA and GGA+U energies with the Materials Project's settings."""


class Energies(NamedTuple):
    """Total energies of B structures, in their order.

    Attributes:
        total (B,): energies of the given cells in eV, NaN where there is none.
        failures (B,): object array of None or the reason why there is none.
    """

    total: NDArray[np.float64]
    failures: NDArray[np.object_]


class Forces(NamedTuple):
    """Total energies, forces and stress of B structures, in their order.

    Attributes:
        total (B,): energies of the given cells in eV, NaN where there is none.
        forces: B arrays (n, 3) in eV/Å, NaN where there are none.
        stress (B, 3, 3): derivative of the energy by strain over the volume in eV/Å^3, NaN where there is none. It is
            positive where the cell tends to shrink, as in ASE.
        failures (B,): object array of None or the reason why there is none.
    """

    total: NDArray[np.float64]
    forces: list[NDArray[np.float64]]
    stress: NDArray[np.float64]
    failures: NDArray[np.object_]


@runtime_checkable
class Potential(Protocol):
    """An energy model.

    Attributes:
        name: name of the model, such as ``"chgnet-0.3.0"``, by which a hull of its own energies is recognised.
        scale: the scale of its energies, `MP2020`, `PBE`, or the name of any other. A hull of DFT energies can be used
            with a potential only if both have the same scale.
    """

    @property
    def name(self) -> str:
        """The name of the model."""
        ...

    @property
    def scale(self) -> str:
        """The name of the energy scale."""
        ...

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the energies of periodic structures; one that fails gets NaN and a reason and harms no other."""
        ...


@runtime_checkable
class ForceField(Potential, Protocol):
    """An energy model with forces and stress."""

    def forces(self, atoms: "Sequence[Atoms]") -> Forces:
        """Return energies, forces and stress; a structure that fails gets NaN and a reason and harms no other."""
        ...


def as_forces(atoms: "Sequence[Atoms]", results: list, failures: NDArray[np.object_]) -> Forces:
    """Return `Forces` from one triple of energy, forces and stress per structure, None where it failed."""
    total, stress = np.full(len(atoms), np.nan), np.full((len(atoms), 3, 3), np.nan)
    forces = [np.full((len(a), 3), np.nan) for a in atoms]
    for row, result in enumerate(results):
        if result is not None:
            total[row], forces[row], stress[row] = result
    return Forces(total, forces, stress, failures)


def as_energies(results: list, failures: NDArray[np.object_]) -> Energies:
    """Return `Energies` from one energy in eV per structure, None where it failed."""
    return Energies(np.array([np.nan if r is None else r for r in results], np.float64), failures)


def name_of_file(name: str, path: "Path") -> str:
    """Return the name of a model with weights from a user's file: with the first eight digits of the file's SHA-256.

    So two models whose files have the same name are never confused, neither by a hull nor by cached energies.
    """
    if not path.is_file():
        return name
    return f"{name}@{file_digest(path)[:8]}"
