"""Moves of a crystal that keep its group and letters: each as likely to be proposed as its reverse."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.crystalformer.tokens import normalised_lattice
from crystal_env.crystal import CrystalBatch
from crystal_env.encoding import bin_values, lattice_bins
from crystal_env.geometry import representatives
from crystal_env.vocabulary import Phase
from crystal_env.wyckoff import tables

MOVES = ("new crystal", "element", "coordinates", "lattice")
"""What a step can propose; the first is not made here."""


class Moves:
    """Proposes one change of each crystal: an element, the coordinates of a site, or the lattice.

    Coordinates and lattices make steps of a symmetric distribution in the variables of the network's density, or on
    its bins, so that the proposals cancel in the acceptance. What a proposal leads to need not be possible: then the
    network gives it no probability.

    Args:
        coordinate_width: standard deviation of a coordinate's step, in fractions of an axis.
        lattice_width: standard deviation of a lattice step, in Å per cube root of the atoms and in radians.
        bins: numeric bins, 0 for densities.
        elements: atomic numbers that are proposed.
    """

    def __init__(self, coordinate_width: float, lattice_width: float, bins: int, elements: Sequence[int]) -> None:
        self._widths, self._bins, self._elements = (coordinate_width, lattice_width), bins, np.array(elements)

    def propose(self, crystals: CrystalBatch, rng: np.random.Generator) -> tuple[CrystalBatch, NDArray[np.int64]]:
        """Return changed crystals (B,) and which of `MOVES` each has made (B,)."""
        size = len(crystals)
        changed = crystals[np.arange(size)]
        kind, site = rng.integers(1, len(MOVES), size), (rng.random(size) * crystals.n_sites()).astype(np.int64)
        rows = np.flatnonzero(kind == 1)
        changed.A[rows, site[rows]] = self._elements[rng.integers(len(self._elements), size=len(rows))]
        self._move_coordinates(changed, np.flatnonzero(kind == 2), site, rng)
        self._move_lattice(changed, np.flatnonzero(kind == 3), rng)
        return changed, kind

    def _move_coordinates(
        self, crystals: CrystalBatch, rows: NDArray[np.int64], site: NDArray[np.int64], rng: np.random.Generator
    ) -> None:
        G, W = crystals.G[rows], crystals.W[rows, site[rows]]
        shift = self._steps((len(rows), 3), self._widths[0] * self._bins, rng) / max(self._bins, 1)
        if not self._bins:
            shift = rng.normal(0.0, self._widths[0], (len(rows), 3))
        moved = crystals.XYZ[rows, site[rows]] + np.where(tables().free_coordinates[G, W], shift, 0.0)
        moved = np.rint(moved * self._bins) / self._bins if self._bins else moved
        moved = representatives(G, W, moved - np.floor(moved))
        crystals.XYZ[rows, site[rows]] = moved - np.floor(moved)

    def _move_lattice(self, crystals: CrystalBatch, rows: NDArray[np.int64], rng: np.random.Generator) -> None:
        part, T = crystals[rows], tables()
        free = T.free_lattice[part.G]
        if self._bins:
            bins = lattice_bins(part.L, part.n_atoms(), self._bins) + self._steps(free.shape, self._bins / 24, rng)
            inside = ((bins >= 0) & (bins < self._bins)) | ~free
            L = np.where(inside, _values(np.clip(bins, 0, self._bins - 1), part, self._bins), 1e-6)
        else:
            L = normalised_lattice(part) + rng.normal(0.0, self._widths[1], free.shape)
            L = np.concatenate([L[:, :3] * np.cbrt(part.n_atoms())[:, None], np.degrees(L[:, 3:])], axis=1)
            L = np.where(L > 0, L, 1e-6)  # no such lattice has a probability
        L = np.where(free, L, part.L)
        angle = T.lattice_angle[part.G]
        crystals.L[rows] = np.where(angle > 0, angle, np.take_along_axis(L, T.lattice_source[part.G], axis=1))

    @staticmethod
    def _steps(shape: tuple[int, ...], width: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return whole numbers, as likely as their negatives."""
        return np.rint(rng.normal(0.0, max(width, 0.7), shape)).astype(np.int64)


def _values(bins: NDArray[np.int64], crystals: CrystalBatch, n: int) -> NDArray[np.float64]:
    """Return lattice parameters (B, 6) in Å and degrees that bins (B, 6) stand for."""
    return bin_values(bins, np.arange(Phase.A, Phase.DONE), crystals.n_atoms()[:, None], n)
