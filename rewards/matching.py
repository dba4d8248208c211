"""Crystals of the same structure: pymatgen's ``StructureMatcher`` among crystals of one reduced formula.

The matcher has its defaults (ltol 0.2, stol 0.3, 5 degrees, volumes scaled), cells are primitive, and no space group is
compared: only 7 % of the pairs that match inside MP-20 share one. The relation is neither transitive nor, now and then,
symmetric, so whoever goes through crystals has to say in which order.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch

if TYPE_CHECKING:
    from pymatgen.core import Structure


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

    def contains(self, crystals: CrystalBatch, name: str | None = None, n_jobs: int | None = 1) -> NDArray[np.bool_]:
        """Return whether any crystal of the reference has the same structure (B,).

        Args:
            crystals: B crystals.
            name: of the crystals, for a progress bar; None shows none.
            n_jobs: processes, None for one a core.
        """
        found = np.zeros(len(crystals), bool)
        parts = [(rows, self.rows[key]) for key, rows in rows_by_formula(crystals).items() if key in self.rows]
        jobs = [(crystals[rows], self.crystals[known]) for rows, known in parts]
        for (rows, _), alike in zip(parts, _in_parallel(_alike_any, jobs, n_jobs, name, "novelty"), strict=True):
            found[rows] = alike
        return found


def structure_labels(
    crystals: CrystalBatch,
    name: str | None = None,
    order: NDArray[np.int64] | None = None,
    n_jobs: int | None = 1,
) -> NDArray[np.int64]:
    """Return for every crystal (B,) the row of the first one with the same structure, its own if there is none.

    Args:
        crystals: B crystals.
        name: of the crystals, for a progress bar; None shows none.
        order: (B,) rows in the order in which they are gone through, by default as they are listed.
        n_jobs: processes, None for one a core.
    """
    labels = np.arange(len(crystals))
    order = labels.copy() if order is None else order
    several = [order[rows] for rows in rows_by_formula(crystals[order]).values() if len(rows) > 1]
    jobs = [(crystals[rows], CrystalBatch.empty()) for rows in several]
    for rows, found in zip(several, _in_parallel(_first_alike, jobs, n_jobs, name, "uniqueness"), strict=True):
        labels[rows] = rows[found]
    return labels


def is_novel(
    crystals: CrystalBatch, training: CrystalBatch, name: str | None = None, n_jobs: int | None = 1
) -> NDArray[np.bool_]:
    """Return whether no training crystal of the same reduced formula has the same structure (B,)."""
    return ~Reference(training).contains(crystals, name, n_jobs)


def reduced_formulas(crystals: CrystalBatch) -> list[bytes]:
    """Return the reduced formulas of crystals, as the bytes of their amounts."""
    counts = crystals.composition()
    counts //= np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
    return [row.tobytes() for row in counts.astype(np.int16)]


def rows_by_formula(crystals: CrystalBatch) -> dict[bytes, NDArray[np.int64]]:
    """Return reduced formula -> rows of the crystals that have it."""
    rows: dict[bytes, list[int]] = {}
    for row, formula in enumerate(reduced_formulas(crystals)):
        rows.setdefault(formula, []).append(row)
    return {formula: np.array(members, np.int64) for formula, members in rows.items()}


def same(structure: "Structure", other: "Structure") -> bool:
    """Return whether the matcher takes two structures for the same."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    try:
        return bool(StructureMatcher().fit(structure, other))
    except (ValueError, ArithmeticError, IndexError):  # cells so flat that they cannot be reduced
        return False


def _first_alike(crystals: CrystalBatch, _: CrystalBatch) -> NDArray[np.int64]:
    """Return for every crystal (B,) the place of the first one that is alike and was not alike another before."""
    structures, labels = crystals.to_structures(primitive=True), np.arange(len(crystals))
    distinct: list[int] = []
    for row, structure in enumerate(structures):
        labels[row] = next((first for first in distinct if same(structure, structures[first])), row)
        if labels[row] == row:
            distinct.append(row)
    return labels


def _alike_any(crystals: CrystalBatch, others: CrystalBatch) -> NDArray[np.bool_]:
    """Return for every crystal (B,) whether any of the others is alike."""
    known = others.to_structures(primitive=True)
    return np.array([any(same(s, other) for other in known) for s in crystals.to_structures(primitive=True)], bool)


def _in_parallel(
    work: Callable[[CrystalBatch, CrystalBatch], NDArray[Any]],
    jobs: list[tuple[CrystalBatch, CrystalBatch]],
    n_jobs: int | None,
    name: str | None,
    purpose: str,
) -> list[NDArray[Any]]:
    """Return what work gives for every job, in order."""
    if n_jobs == 1 and name is None:
        return [work(*job) for job in jobs]
    from joblib import Parallel, delayed
    from tqdm import tqdm

    results = Parallel(n_jobs=-1 if n_jobs is None else n_jobs, return_as="generator", batch_size=8)(
        delayed(work)(*job) for job in jobs
    )
    return list(tqdm(results, total=len(jobs), desc=f"{name}: {purpose}", unit="formula", disable=name is None))
