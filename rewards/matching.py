"""Crystals of the same structure: pymatgen's ``StructureMatcher`` among crystals of one reduced formula.

The matcher has its defaults (ltol 0.2, stol 0.3, 5 degrees, volumes scaled), cells are primitive, and no space group is
compared: only 7 % of the pairs that match inside MP-20 have the same one. The relation is not transitive, and not
always symmetric, so the results depend on the order of the crystals.

Results are those of the plain double loop over ``StructureMatcher().fit``. What is omitted cannot change them: pairs of
different formulas, which the matcher refuses first; the Niggli and primitive reduction of a cell, done once per crystal
instead of once per pair; pairs of reduced cells with different numbers of atoms, which the matcher refuses before it
compares sites; and crystals bitwise equal to an earlier one.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from math import gcd
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.wyckoff import N_ELEMENTS

if TYPE_CHECKING:
    from pymatgen.core import Structure

Structures: TypeAlias = "CrystalBatch | Sequence[Structure]"
"""Crystals, or any structures, of elements without charges or properties."""

_MIN_THICKNESS = 0.1  # Å
_CHUNK = 64  # crystals of one formula that a process compares with the reference at a time
_MIN_PARALLEL = 2000  # comparisons, which take about as long as the start of processes


class Reference:
    """Crystals that others are compared with, found by their reduced formulas.

    Args:
        crystals: the N crystals of the reference.
    """

    def __init__(self, crystals: CrystalBatch) -> None:
        self.crystals = crystals

    @cached_property
    def rows(self) -> dict[bytes, NDArray[np.int64]]:
        """Reduced formula -> rows of its crystals."""
        return rows_by_formula(self.crystals)

    def has_formula(self, crystals: Structures) -> NDArray[np.bool_]:
        """Return whether any crystal of the reference has the same reduced formula (B,)."""
        found = np.zeros(len(crystals), bool)
        for key, rows in rows_by_formula(crystals).items():
            found[rows] = key in self.rows
        return found

    def contains(self, crystals: Structures, name: str | None = None, n_jobs: int | None = 1) -> NDArray[np.bool_]:
        """Return whether any crystal of the reference has the same structure (B,).

        Args:
            crystals: B crystals.
            name: of the crystals, for a progress bar; None shows none.
            n_jobs: processes, None for one per core; few comparisons run in this one.
        """
        found = np.zeros(len(crystals), bool)
        parts = [
            (rows[start : start + _CHUNK], self.rows[key])
            for key, rows in rows_by_formula(crystals).items()
            if key in self.rows
            for start in range(0, len(rows), _CHUNK)
        ]
        jobs = [(_of(crystals, rows), self.crystals[known]) for rows, known in parts]
        work = [len(rows) * len(known) for rows, known in parts]
        for (rows, _), matches in zip(
            parts, _in_parallel(_matches_any, jobs, work, n_jobs, name, "novelty"), strict=True
        ):
            found[rows] = matches
        return found


def structure_labels(
    crystals: Structures,
    name: str | None = None,
    order: NDArray[np.int64] | None = None,
    n_jobs: int | None = 1,
) -> NDArray[np.int64]:
    """Return for every crystal (B,) the row of the first one with the same structure, its own if there is none.

    Args:
        crystals: B crystals.
        name: of the crystals, for a progress bar; None shows none.
        order: (B,) rows in the order of comparison, by default as they are listed.
        n_jobs: processes, None for one per core; few comparisons run in this one.
    """
    labels = np.arange(len(crystals))
    order = labels.copy() if order is None else order
    several = [order[rows] for rows in rows_by_formula(_of(crystals, order)).values() if len(rows) > 1]
    jobs = [(_of(crystals, rows), CrystalBatch.empty()) for rows in several]
    work = [len(rows) * (len(rows) - 1) // 2 for rows in several]
    for rows, found in zip(several, _in_parallel(_first_match, jobs, work, n_jobs, name, "uniqueness"), strict=True):
        labels[rows] = rows[found]
    return labels


def is_novel(
    crystals: Structures, training: CrystalBatch, name: str | None = None, n_jobs: int | None = 1
) -> NDArray[np.bool_]:
    """Return whether no training crystal of the same reduced formula has the same structure (B,)."""
    return ~Reference(training).contains(crystals, name, n_jobs)


def compositions(crystals: Structures) -> NDArray[np.int64]:
    """Return atoms per element (B, 119) of the primitive cells of crystals, of structures as they are."""
    if isinstance(crystals, CrystalBatch):
        return crystals.composition()
    numbers = [structure.atomic_numbers for structure in crystals]
    counts = [np.bincount(z, minlength=N_ELEMENTS + 1) for z in numbers]
    return np.array(counts, np.int64).reshape(-1, N_ELEMENTS + 1)


def reduced_formulas(crystals: Structures) -> list[bytes]:
    """Return the reduced formulas of crystals, as the bytes of their amounts."""
    counts = compositions(crystals)
    counts //= np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
    return [row.tobytes() for row in counts.astype(np.int16)]


def rows_by_formula(crystals: Structures) -> dict[bytes, NDArray[np.int64]]:
    """Return reduced formula -> rows of the crystals that have it."""
    rows: dict[bytes, list[int]] = {}
    for row, formula in enumerate(reduced_formulas(crystals)):
        rows.setdefault(formula, []).append(row)
    return {formula: np.array(members, np.int64) for formula, members in rows.items()}


def same(structure: "Structure", other: "Structure") -> bool:
    """Return whether two structures match."""
    return same_reduced(reduced_cell(structure), reduced_cell(other))


def reduced_cell(structure: "Structure") -> "Structure | None":
    """Return a structure in the reduced primitive cell in which the matcher compares it.

    It is None, which matches nothing, where two faces of the cell are less than 0.1 Å apart, for which the matcher
    would enumerate millions of lattice vectors, or where the cell cannot be reduced.
    """
    lattice = structure.lattice.matrix
    areas = np.linalg.norm(np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]]), axis=1)
    if not abs(np.linalg.det(lattice)) >= _MIN_THICKNESS * areas.max():  # neither for numbers that are not finite
        return None
    try:
        reduced = structure.get_reduced_structure()
        # a cell of one formula unit is primitive, the search would return a copy of it
        single = gcd(*map(int, reduced.composition.values())) == 1
        return reduced if single else reduced.get_primitive_structure()
    except (ValueError, ArithmeticError, IndexError):
        return None


def same_reduced(cell: "Structure | None", other: "Structure | None") -> bool:
    """Return whether two structures match, given in the cells of `reduced_cell`."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if cell is None or other is None or len(cell) != len(other):
        return False
    try:
        return bool(StructureMatcher().fit(cell, other, skip_structure_reduction=True))
    except (ValueError, ArithmeticError, IndexError):  # cells so flat that they cannot be compared
        return False


def _of(crystals: Structures, rows: NDArray[np.int64]) -> Structures:
    """Return the crystals of rows (n,)."""
    return crystals[rows] if isinstance(crystals, CrystalBatch) else [crystals[row] for row in rows]


def _distinct(crystals: Structures) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows (k,) of the first of bitwise equal crystals, and for each crystal (B,) its index among them."""
    if not isinstance(crystals, CrystalBatch):
        return np.arange(len(crystals)), np.arange(len(crystals))
    first, place = crystals.distinct()
    order = np.argsort(first)
    return first[order], np.argsort(order)[place]


def _reduced_cells(crystals: Structures) -> "list[Structure | None]":
    structures = crystals.to_structures(primitive=True) if isinstance(crystals, CrystalBatch) else crystals
    return [reduced_cell(structure) for structure in structures]


def _first_match(crystals: Structures, _: CrystalBatch) -> NDArray[np.int64]:
    """Return for every crystal (B,) the index of the first match that itself matches none before it."""
    first, place = _distinct(crystals)
    cells, labels = _reduced_cells(_of(crystals, first)), np.arange(len(first))
    representatives: list[int] = []
    for row, cell in enumerate(cells):
        labels[row] = next((one for one in representatives if same_reduced(cell, cells[one])), row)
        if labels[row] == row:
            representatives.append(row)
    found = first[labels][place]
    alone = np.array([cell is None for cell in cells], bool)[place]  # a failed reduction does not even match itself
    found[alone] = np.flatnonzero(alone)
    return found


def _matches_any(crystals: Structures, others: CrystalBatch) -> NDArray[np.bool_]:
    """Return for every crystal (B,) whether it matches any of the others."""
    first, place = _distinct(crystals)
    structures = others.to_structures(primitive=True)
    known = cache(lambda row: reduced_cell(structures[row]))  # only those that are compared

    def matches(cell: "Structure | None") -> bool:
        if cell is None:
            return False
        possible = (row for row, other in enumerate(structures) if len(other) % len(cell) == 0)
        return any(same_reduced(cell, known(row)) for row in possible)

    return np.array([matches(cell) for cell in _reduced_cells(_of(crystals, first))], bool)[place]


def _in_parallel(
    work: Callable[[Structures, CrystalBatch], NDArray[Any]],
    jobs: list[tuple[Structures, CrystalBatch]],
    comparisons: list[int],
    n_jobs: int | None,
    name: str | None,
    purpose: str,
) -> list[NDArray[Any]]:
    """Return the result of every job, in order; the longest jobs start first."""
    from tqdm import tqdm

    order = np.argsort(-np.array(comparisons, np.int64), kind="stable")
    results: Iterable[NDArray[Any]]
    if n_jobs == 1 or sum(comparisons) < _MIN_PARALLEL:
        results = (work(*jobs[job]) for job in order)
    else:
        from joblib import Parallel, delayed

        parallel = Parallel(n_jobs=-1 if n_jobs is None else n_jobs, return_as="generator", batch_size=8)
        results = parallel(delayed(work)(*jobs[job]) for job in order)
    bar = tqdm(results, total=len(jobs), desc=f"{name}: {purpose}", unit="formula", disable=name is None)
    found = dict(zip(order.tolist(), bar, strict=True))
    return [found[job] for job in range(len(jobs))]
