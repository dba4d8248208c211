"""From any structure to sites on Wyckoff positions of the standard cell."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError, MissingFileError
from crystal_env.wyckoff import MAX_SITES, tables

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

_Cell = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]
_Fields = tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]

_MIN_VECTOR, _MAX_VECTOR = 0.1, 1e4  # Å
_MIN_VOLUME = 1e-4  # of the cell with lattice vectors of length 1
_GROUP_IN_CIF = re.compile(
    r"^\s*(_\S*space_group_name_H-M\S*|_\S*Int_Tables_number|_space_group_IT_number)[ \t]+(.+)$",
    re.MULTILINE | re.IGNORECASE,
)


def cell_arrays(source: "Structure | Atoms | str | Path") -> _Cell:
    """Return lattice (3, 3) in Å, fractional coordinates (N, 3) and atomic numbers (N,) of a structure.

    Args:
        source: a pymatgen structure, ASE atoms, the text of a CIF, or the path of a structure file.

    Raises:
        ValueError: if it is not periodic, has no volume, is empty or disordered, has coordinates that are not finite,
            or cannot be read.
    """
    structure: Any = read(source) if isinstance(source, str | Path) else source
    if hasattr(structure, "get_scaled_positions"):  # ASE
        if not structure.pbc.all():
            raise InputError(f"structure must be periodic along all three axes, got pbc = {structure.pbc.tolist()}")
        if len(structure):
            _check_cell(structure.cell[:])
        arrays = (structure.cell[:], structure.get_scaled_positions(wrap=False), structure.numbers)
    elif hasattr(structure, "frac_coords"):  # pymatgen
        if not structure.is_ordered:
            raise InputError(f"structure is disordered: {structure.composition.formula} has partial occupancies")
        arrays = (structure.lattice.matrix, structure.frac_coords, _numbers(structure))
    else:
        raise InputError(
            f"structure must be a pymatgen Structure, ASE Atoms, CIF text or a path, got {type(structure).__name__}"
        )
    lattice, frac, numbers = np.asarray(arrays[0], float), np.asarray(arrays[1], float), np.asarray(arrays[2], int)
    if not len(numbers):
        raise InputError("structure is empty: it has no atoms")
    _check_cell(lattice)
    if not np.isfinite(frac).all():
        raise InputError("structure has coordinates that are not finite")
    if numbers.min() < 1 or numbers.max() > 118:
        raise InputError(f"atomic numbers must be 1 to 118, got {sorted(set(numbers.tolist()))}")
    return lattice, frac, numbers


def _check_cell(lattice: NDArray[np.float64]) -> None:
    """Refuse cells that are not finite, without volume or of absurd size: moyo can panic or not terminate on them."""
    if not np.isfinite(lattice).all():
        raise InputError(f"structure has lattice vectors that are not finite, got {lattice.tolist()}")
    lengths = np.linalg.norm(lattice, axis=1)
    if lengths.min() < _MIN_VECTOR or lengths.max() > _MAX_VECTOR:
        allowed = f"{_MIN_VECTOR} to {_MAX_VECTOR} Å"
        raise InputError(f"lattice vectors must be {allowed} long, got {lengths.tolist()}")
    if abs(np.linalg.det(lattice / lengths[:, None])) < _MIN_VOLUME:
        raise InputError(f"structure needs three lattice vectors that span a cell, got {lattice.tolist()}")


def _numbers(structure: "Structure") -> list[int]:
    numbers = [int(site.specie.Z) for site in structure]
    if any(not 1 <= number <= 118 for number in numbers):  # pymatgen's dummies
        raise InputError(f"structure has sites that are no elements: {structure.composition.formula}")
    return numbers


def read(source: str | Path) -> "Structure":
    """Read the text of a CIF, or a structure file.

    Raises:
        ValueError: if there is no such file, or it cannot be read.
    """
    from pymatgen.core import Structure

    is_text = isinstance(source, str) and "\n" in source
    if not is_text and not Path(source).is_file():
        raise MissingFileError(f"no such structure file: {source}")
    try:
        with warnings.catch_warnings(record=True) as caught:  # pymatgen warns of rounded coordinates and the like
            warnings.simplefilter("always")
            structure = Structure.from_str(str(source), fmt="cif") if is_text else Structure.from_file(source)
    except Exception as error:  # pymatgen's readers raise exceptions of many kinds
        shown = "CIF text" if is_text else str(source)
        raise InputError(f"{shown} cannot be read as a structure: {type(error).__name__}: {error}") from error
    if any("Defaulting to P1" in str(warning.message) for warning in caught):
        _refuse_lost_symmetry(str(source) if is_text else Path(source).read_text(errors="replace"))
    return structure


def _refuse_lost_symmetry(cif: str) -> None:
    """Refuse a CIF whose space group pymatgen did not understand: in P1 it would be another crystal."""
    for name, value in _GROUP_IN_CIF.findall(cif):
        if value.strip().strip("'\"").replace(" ", "") not in ("P1", "1", "?", "."):
            raise InputError(f"CIF gives {name} {value.strip()}, but no symmetry operations that can be read")


def standardise(
    lattice: NDArray[np.float64], frac: NDArray[np.float64], numbers: NDArray[np.int64], symprec: float
) -> _Fields:
    """Find the symmetry and return ``G, W, A, XYZ, L`` of the conventional cell, sites sorted by letter and position.

    The letter of an orbit is that of the Wyckoff position whose first operation leaves one of its atoms in place.

    Raises:
        ValueError: if atoms overlap, no symmetry is found or there are more than 20 inequivalent sites.
    """
    import moyopy

    if not symprec > 0:
        raise InputError(f"symprec must be positive (Å), got {symprec}")
    closest = _closest(lattice, frac)
    if closest < 2 * symprec:  # moyo may not terminate
        raise InputError(f"overlapping atoms: {closest:.3g} Å apart, less than twice the symprec of {symprec} Å")
    try:
        cell = moyopy.Cell(lattice.tolist(), (frac - np.floor(frac)).tolist(), numbers.tolist())
        with _quiet_moyo():
            dataset = moyopy.MoyoDataset(cell, symprec=symprec, setting=moyopy.Setting.standard(), rotate_basis=False)
    except Exception as error:  # moyopy raises plain exceptions of its own kinds
        raise InputError(f"no symmetry found at symprec {symprec} Å: {error}") from error
    G = int(dataset.number)
    basis, positions = np.array(dataset.std_cell.basis), np.array(dataset.std_cell.positions)
    sites = _sites(G, basis, positions, np.array(dataset.std_cell.numbers), max(symprec, 1e-3))
    if len(sites) > MAX_SITES:
        raise InputError(f"structure has {len(sites)} inequivalent sites, at most {MAX_SITES} can be represented")
    sites.sort(key=lambda site: (site[0], *np.round(site[2], 6)))
    W, A, XYZ = (np.array(column) for column in zip(*sites, strict=True))
    return G, W, A, XYZ, _lattice_parameters(G, basis)


def _closest(lattice: NDArray[np.float64], frac: NDArray[np.float64]) -> float:
    """Return the shortest distance in Å between two atoms or from an atom to its image along a lattice vector."""
    closest = float(np.linalg.norm(lattice, axis=1).min())
    for atom in range(1, len(frac)):
        closest = min(closest, float(_distances(frac[:atom] - frac[atom], lattice).min()))
    return closest


@contextmanager
def _quiet_moyo() -> Iterator[None]:
    """Keep moyo from logging a warning for every supercell, about operations that are not used here."""
    logger = logging.getLogger("moyo")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _sites(
    G: int,
    basis: NDArray[np.float64],
    positions: NDArray[np.float64],
    numbers: NDArray[np.int64],
    tolerance: float,
) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Return letter, atomic number and representative of every orbit of the atoms in a standard cell."""
    T = tables()
    general = T.operations(G, int(T.n_letters[G]))
    rotation, translation = T.rotation[general], T.translation[general]
    sites, free = [], np.ones(len(numbers), bool)
    while free.any():
        atom = int(free.argmax())
        images = rotation @ positions[atom] + translation
        distance = _distances(images[:, None] - positions[None], basis)
        distance[:, ~free | (numbers != numbers[atom])] = np.inf
        nearest = distance.argmin(1)
        if distance[np.arange(len(images)), nearest].max() > tolerance:
            raise InputError(f"the atoms do not have the symmetry found, group {G}, within {tolerance} Å")
        orbit = np.unique(nearest)
        free[orbit] = False
        W, representative = _representative(G, basis, positions[orbit], tolerance)
        sites.append((W, int(numbers[atom]), representative))
    return sites


def _representative(
    G: int, basis: NDArray[np.float64], orbit: NDArray[np.float64], tolerance: float
) -> tuple[int, NDArray[np.float64]]:
    """Return the letter of an orbit, and its first atom that lies on the letter's first operation."""
    T = tables()
    letters = np.flatnonzero(T.multiplicity[G] == len(orbit))
    projection = T.projection[G, letters]
    projected = np.einsum("lij,nj->lni", projection[..., :3], orbit) + projection[:, None, :, 3]
    distance = _distances(projected - orbit, basis)
    if not len(letters) or distance.min() > tolerance:
        raise InputError(f"an orbit of {len(orbit)} atoms lies on no Wyckoff position of group {G}")
    best = int(distance.min(1).argmin())
    points = projected[best][distance[best] <= max(tolerance / 10, 2 * distance[best].min())]
    points -= np.floor(points)
    points[points > 1 - 1e-9] = 0.0
    first = np.lexsort(np.round(points.T[::-1], 6))[0]
    return int(letters[best]), points[first]


def _distances(difference: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return lengths in Å of fractional differences modulo lattice vectors, right where they are short."""
    return np.linalg.norm((difference - np.rint(difference)) @ basis, axis=-1)


def _lattice_parameters(G: int, basis: NDArray[np.float64]) -> NDArray[np.float64]:
    T = tables()
    lengths = np.linalg.norm(basis, axis=1)
    unit = basis / lengths[:, None]
    angles = np.degrees(np.arccos(np.clip([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]], -1, 1)))
    L = np.concatenate([lengths, angles])
    for parameter in range(3):  # lengths that are equal by symmetry get their mean
        L[parameter] = lengths[T.lattice_source[G, :3] == T.lattice_source[G, parameter]].mean()
    return np.where(T.lattice_angle[G] > 0, T.lattice_angle[G], L)
