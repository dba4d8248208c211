"""Properties of structures outside the representation, by the same definitions as those of crystals.

A generator is not to blame for the limits of this project's representation: a cell with more than 20 inequivalent sites
has atoms, a composition, an energy and a space group all the same.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.reward import Reward
from rewards import EnergyAboveHull
from rewards.matching import compositions
from rewards.validity import MIN_THICKNESS, MIN_VOLUME, composition_is_valid

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from rewards.screen import Screen

_MIN_DISTANCE = 0.5  # Å, as `rewards.Validity`


def properties(structures: "Sequence[Structure]", energy: Reward | None) -> tuple[NDArray[Any], ...]:
    """Return who is structurally valid, who is compositionally valid, space groups at 0.01 Å and energies, each (F,).

    Args:
        structures: F ordered structures of elements.
        energy: see `energies_above_hull`.
    """
    return (
        np.array([structurally_valid(structure) for structure in structures], bool),
        np.array([compositionally_valid(structure) for structure in structures], bool),
        np.array([space_group(structure) for structure in structures], np.int64),
        energies_above_hull(structures, energy),
    )


def structurally_valid(structure: "Structure", min_distance: float = _MIN_DISTANCE) -> bool:
    """Return whether no two atoms, periodic images included, are closer than a distance in Å."""
    if not structure.volume >= MIN_VOLUME or not _thickness(structure) >= MIN_THICKNESS:
        return False
    centres = structure.get_neighbor_list(min_distance)[0]
    return not len(centres)


def compositionally_valid(structure: "Structure") -> bool:
    """Return whether the charges of a structure can be neutral, by SMACT."""
    amounts = compositions([structure])[0]
    amounts = amounts // max(int(np.gcd.reduce(amounts)), 1)
    numbers = amounts.nonzero()[0]
    return composition_is_valid(tuple(zip(numbers.tolist(), amounts[numbers].tolist(), strict=True)))


def space_group(structure: "Structure", symprec: float = 0.01) -> int:
    """Return the number of the space group that the symmetry search finds, 0 if it finds none."""
    import moyopy

    from crystal_env.symmetry.standardise import _quiet_moyo, cell_arrays

    try:
        lattice, frac, numbers = cell_arrays(structure)
        if not structurally_valid(structure, 2 * symprec):  # moyo may search forever
            return 0
        cell = moyopy.Cell(lattice.tolist(), (frac - np.floor(frac)).tolist(), numbers.tolist())
        with _quiet_moyo():
            return int(moyopy.MoyoDataset(cell, symprec=symprec, setting=moyopy.Setting.standard()).number)
    except Exception:  # noqa: BLE001  moyopy raises plain exceptions of its own kinds
        return 0


def energies_above_hull(structures: "Sequence[Structure]", energy: Reward | None) -> NDArray[np.float64]:
    """Return energies above the hull (F,) in eV/atom, NaN where one fails the screen or has an unknown element.

    Rewards other than `EnergyAboveHull` are defined in the representation: they give no energies.
    """
    result = np.full(len(structures), np.nan)
    if not isinstance(energy, EnergyAboveHull) or not len(structures):
        return result
    rows = np.flatnonzero(passes_screen(structures, energy)).tolist()
    if rows:
        atoms = [structures[row].to_ase_atoms(msonable=False) for row in rows]
        counts = compositions([structures[row] for row in rows])
        result[rows] = energy.convex_hull().e_above_hull(counts, energy.potential.energies(atoms).total)
    if energy.max_depth is not None:
        result[result < -energy.max_depth] = np.nan
    return result


def passes_screen(structures: "Sequence[Structure]", energy: EnergyAboveHull) -> NDArray[np.bool_]:
    """Return for F structures whether they pass the screen and the hull knows their elements (F,)."""
    if not structures:
        return np.zeros(0, bool)
    missing = energy.convex_hull().missing_elements(compositions(structures))
    passes = [_passes(one, energy.screen) and not unknown for one, unknown in zip(structures, missing, strict=True)]
    return np.array(passes, bool)


def text_of(structure: "Structure") -> str:
    """Return a text that orders structures, the same for the same numbers."""
    numbers = np.concatenate([structure.lattice.matrix.ravel(), structure.frac_coords.ravel()])
    return f"{structure.formula} {sha256(np.round(numbers, 6).tobytes()).hexdigest()}"


def _passes(structure: "Structure", screen: "Screen") -> bool:
    return (
        1 <= len(structure) <= screen.max_atoms
        and screen.min_volume <= structure.volume / len(structure) <= screen.max_volume
        and _thickness(structure) >= screen.min_thickness
        and structurally_valid(structure, screen.min_distance)
    )


def _thickness(structure: "Structure") -> float:
    """Return the shortest distance in Å between opposite faces of the cell."""
    return float(min(structure.lattice.d_hkl(face) for face in np.eye(3, dtype=int)))
