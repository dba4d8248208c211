"""The content of a picture: atoms in and around the cell, bonds and coordination polyhedra."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import Crystal
from crystal_env.elements import SYMBOLS, covalent_radii

_BOND_TOLERANCE = 1.15  # bonds are shorter than this times the sum of the covalent radii
_MAX_COORDINATION = 8  # beyond it bonds only hide the atoms
_MAX_ATOMS = 30_000
_MAX_POLYHEDRA = 120


class Atoms(NamedTuple):
    """The N atoms in and around the cell.

    Attributes:
        numbers (N,): atomic numbers.
        positions (N, 3): Cartesian, in Å.
        core (N,): inside the cell or on its faces.
        interior (N,): inside the cell and not on its faces.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    core: NDArray[np.bool_]
    interior: NDArray[np.bool_]


def atoms_around_cell(crystal: Crystal, lattice: NDArray[np.float64]) -> Atoms:
    """Return the atoms of the cell, their images on its faces, and the surroundings within reach of bonds."""
    cell = crystal.to_batch().expand()
    reach = 2 * _BOND_TOLERANCE * covalent_radii()[cell.numbers].max()
    spacing = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    pad = reach / spacing
    if len(cell.frac) * np.prod(1 + 2 * pad) > _MAX_ATOMS:
        pad = np.zeros(3)
    shifts = np.stack(np.meshgrid(*(np.arange(-np.ceil(n), np.ceil(n) + 2) for n in pad), indexing="ij"), -1)
    frac = (cell.frac[:, None] + shifts.reshape(1, -1, 3)).reshape(-1, 3)
    numbers = np.repeat(cell.numbers, shifts.size // 3)
    edge = 0.02 / np.linalg.norm(lattice, axis=1)  # atoms this close to a face (Å) count as on it
    near = ((frac > -pad - edge) & (frac < 1 + pad + edge)).all(1)
    frac, numbers = frac[near], numbers[near]
    core = ((frac > -edge) & (frac < 1 + edge)).all(1)
    interior = ((frac > edge) & (frac < 1 - edge)).all(1)
    return Atoms(numbers, frac @ lattice, core, interior)


def find_neighbours(atoms: Atoms) -> dict[int, list[int]]:
    """Return the bonded neighbours of every atom of the core, a few more than can be shown."""
    from scipy.spatial import cKDTree

    core, radii = np.flatnonzero(atoms.core), covalent_radii()[atoms.numbers]
    reach = 2 * _BOND_TOLERANCE * radii.max()
    k = min(_MAX_COORDINATION + 6, len(radii))
    distance, index = cKDTree(atoms.positions).query(atoms.positions[core], k=k, distance_upper_bound=reach)
    distance, index = distance.reshape(len(core), k), index.reshape(len(core), k)
    found = np.isfinite(distance) & (index != core[:, None])
    index = np.where(found, index, 0)
    metal = _metallicity(atoms.numbers) == 2
    found &= distance < _BOND_TOLERANCE * (radii[core, None] + radii[index])
    if not metal.all():
        found &= ~(metal[core, None] & metal[index])
    return {int(i): row[mask].tolist() for i, row, mask in zip(core, index, found, strict=True)}


def _metallicity(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 2 for metals, 1 for metalloids, 0 for the others."""
    from pymatgen.core.periodic_table import Element

    kinds, inverse = np.unique(numbers, return_inverse=True)
    elements = [Element(SYMBOLS[z]) for z in kinds]
    return np.array([2 * e.is_metal or int(e.is_metalloid) for e in elements], np.int64)[inverse]


def find_polyhedra(atoms: Atoms, neighbours: dict[int, list[int]]) -> list[tuple[int, list[int]]]:
    """Return centre and ligands of cations that lie inside the cell or have all their ligands in it."""
    metallicity = _metallicity(atoms.numbers)
    found = [
        (centre, ligands)
        for centre, ligands in neighbours.items()
        if 4 <= len(ligands) <= _MAX_COORDINATION
        and (metallicity[ligands] < metallicity[centre]).all()
        and (atoms.interior[centre] or atoms.core[ligands].all())
    ]
    return found if len(found) <= _MAX_POLYHEDRA else []


def find_bonds(atoms: Atoms, neighbours: dict[int, list[int]], shown: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the pairs of bonded atoms that are both shown, once each, without those of crowded atoms."""
    crowded = {i for i, partners in neighbours.items() if len(partners) > _MAX_COORDINATION}
    pairs = {
        (min(i, j), max(i, j))
        for i, partners in neighbours.items()
        for j in partners
        if shown[j] and i not in crowded and j not in crowded
    }
    return sorted(pairs)
