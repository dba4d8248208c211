"""Moves of a crystal that keep its group and letters: each as likely to be proposed as its reverse."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from agents.crystalformer.tokens import normalised_lattice
from crystal_env.crystal import CrystalBatch
from crystal_env.encoding import bin_values, lattice_bins
from crystal_env.geometry import representatives
from crystal_env.grammar.constraints import Constraints
from crystal_env.vocabulary import Phase
from crystal_env.wyckoff import N_ELEMENTS, N_SLOTS, tables

MOVES = ("new crystal", "element", "coordinates", "lattice")
"""What a step can propose; the first is not made here."""

N_UNIFORMS = 10
"""Uniform random numbers that a proposal takes: kind, site, element, moving axis or parameter, and six steps."""
_KIND, _SITE, _ELEMENT, _MOVING, _STEPS = range(5)

_ELEMENT_MOVE, _COORDINATE_MOVE = 1, 2
_MIN_BIN_SCALE = 0.7  # of a step on bins, so that the next ones are reached
_LATTICE_BIN_SCALE = 1 / 24  # standard deviation of a lattice step on bins, as a fraction of them

_Rows = NDArray[np.int64]
_Reals = NDArray[np.float64]


class Moves:
    """Proposes one change of each crystal: an element, the coordinates of a site, or the lattice.

    A crystal is offered the kinds that can change it: an element where a site may hold another one, which no site can
    under a formula, and coordinates where a site has a free one. Which these are follows from group, letters and
    constraints, which all moves keep; a site and its new element are chosen evenly among the possible others, and
    coordinates and lattices make steps of a symmetric distribution in the variables of the network's density, or on its
    bins. So the proposals cancel in the acceptance. What a proposal leads to need not be possible: then the network
    gives it no probability.

    Args:
        coordinate_scale: standard deviation of a coordinate's step, in fractions of an axis.
        lattice_scale: standard deviation of a lattice step, in Å per cube root of the atoms and in radians.
        bins: numeric bins, 0 for densities.
        rules: the constraints of the crystals.
    """

    def __init__(self, coordinate_scale: float, lattice_scale: float, bins: int, rules: Constraints) -> None:
        self._coordinate_scale, self._lattice_scale = coordinate_scale, lattice_scale
        self._bins, self._rules = bins, rules

    def propose(self, crystals: CrystalBatch, uniforms: _Reals) -> tuple[CrystalBatch, NDArray[np.int64]]:
        """Return changed crystals (B,) and which of `MOVES` each has made (B,), given uniform numbers (B, 10)."""
        changed, every = crystals[np.arange(len(crystals))], np.arange(N_SLOTS) < crystals.n_sites()[:, None]
        variable = every & (self._alternatives.sum(-1) > 1)
        free = every & tables().free_coordinates[crystals.G[:, None], crystals.W].any(-1)
        kinds = np.stack([variable.any(1), free.any(1), np.ones(len(crystals), bool)], axis=1)
        kind = 1 + _nth(kinds, uniforms[:, _KIND])
        rows = np.flatnonzero(kind == _ELEMENT_MOVE)
        self._move_elements(changed, rows, _nth(variable[rows], uniforms[rows, _SITE]), uniforms[rows])
        rows = np.flatnonzero(kind == _COORDINATE_MOVE)
        self._move_coordinates(changed, rows, _nth(free[rows], uniforms[rows, _SITE]), uniforms[rows])
        rows = np.flatnonzero(kind > _COORDINATE_MOVE)
        self._move_lattices(changed, rows, uniforms[rows])
        return changed, kind

    @cached_property
    def _alternatives(self) -> NDArray[np.bool_]:
        """Elements (21, 119) that each site may hold, those alike for tied sites; none where it cannot change."""
        rules, allowed = self._rules, np.zeros((N_SLOTS, N_ELEMENTS + 1), bool)
        if rules.formula is None:
            allowed[:, list(rules.elements)] = True
        for site, elements in enumerate(rules.site_elements):
            if elements is not None:
                allowed[site] &= np.isin(np.arange(N_ELEMENTS + 1), elements)
        for sites in map(list, rules.tied_sites):
            allowed[sites] = allowed[sites].all(0)
        return allowed

    @cached_property
    def _tied(self) -> NDArray[np.bool_]:
        """Which sites hold the same element as each site (21, 21), itself included."""
        tied = np.eye(N_SLOTS, dtype=bool)
        for sites in map(list, self._rules.tied_sites):
            tied[np.ix_(sites, sites)] = True
        return tied

    def _move_elements(self, crystals: CrystalBatch, rows: _Rows, site: _Rows, uniforms: _Reals) -> None:
        others = self._alternatives[site]
        others[np.arange(len(rows)), crystals.A[rows, site]] = False
        new = _nth(others, uniforms[:, _ELEMENT])
        placed = crystals.W[rows] > 0
        crystals.A[rows] = np.where(self._tied[site] & placed, new[:, None], crystals.A[rows])

    def _move_coordinates(self, crystals: CrystalBatch, rows: _Rows, site: _Rows, uniforms: _Reals) -> None:
        G, W = crystals.G[rows], crystals.W[rows, site]
        free = tables().free_coordinates[G, W]
        if self._bins:
            shift = self._bin_steps(free, uniforms, self._coordinate_scale * self._bins, (self._bins - 1) // 2)
            moved = np.rint(crystals.XYZ[rows, site] * self._bins + shift) / self._bins
        else:
            shift = np.where(free, ndtri(uniforms[:, _STEPS : _STEPS + 3]), 0.0)
            moved = crystals.XYZ[rows, site] + self._coordinate_scale * shift
        moved = representatives(G, W, moved - np.floor(moved))
        crystals.XYZ[rows, site] = moved - np.floor(moved)

    def _move_lattices(self, crystals: CrystalBatch, rows: _Rows, uniforms: _Reals) -> None:
        part, T = crystals[rows], tables()
        free = T.free_lattice[part.G]
        if self._bins:
            steps = self._bin_steps(free, uniforms, _LATTICE_BIN_SCALE * self._bins, self._bins - 1)
            bins = lattice_bins(part.L, part.n_atoms(), self._bins) + steps
            inside = ((bins >= 0) & (bins < self._bins)) | ~free
            L = np.where(inside, _values(np.clip(bins, 0, self._bins - 1), part, self._bins), 1e-6)
        else:
            L = normalised_lattice(part) + self._lattice_scale * ndtri(uniforms[:, _STEPS : _STEPS + 6])
            L = np.concatenate([L[:, :3] * np.cbrt(part.n_atoms())[:, None], np.degrees(L[:, 3:])], axis=1)
            L = np.where(L > 0, L, 1e-6)  # no such lattice has a probability
        L = np.where(free, L, part.L)
        angle = T.lattice_angle[part.G]
        crystals.L[rows] = np.where(angle > 0, angle, np.take_along_axis(L, T.lattice_source[part.G], axis=1))

    @staticmethod
    def _bin_steps(free: NDArray[np.bool_], uniforms: _Reals, scale: float, most: int) -> NDArray[np.int64]:
        """Return whole steps (n, k) of free numbers (n, k), as likely as their negatives.

        One of the numbers, chosen evenly, does not stay where it is.
        """
        steps = np.arange(-most, most + 1)
        weights = np.exp(-0.5 * (steps / max(scale, _MIN_BIN_SCALE)) ** 2)
        moving = np.arange(free.shape[1]) == _nth(free, uniforms[:, _MOVING])[:, None]
        u = uniforms[:, _STEPS : _STEPS + free.shape[1]]
        stays = steps[_quantile(weights, u)]
        moves = steps[_quantile(np.where(steps == 0, 0.0, weights), u)]
        return np.where(free, np.where(moving, moves, stays), 0)


def _nth(allowed: NDArray[np.bool_], u: _Reals) -> NDArray[np.int64]:
    """Choose one of the allowed columns (n, k) of each row evenly, given uniform numbers (n,)."""
    rank = np.floor(u * allowed.sum(1)).astype(np.int64)
    return (np.cumsum(allowed, axis=1) > rank[:, None]).argmax(1)


def _quantile(weights: _Reals, u: _Reals) -> NDArray[np.int64]:
    """Return the choices that uniform numbers make among weights (k,)."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, u * cumulative[-1], side="right")


def _values(bins: NDArray[np.int64], crystals: CrystalBatch, n: int) -> _Reals:
    """Return lattice parameters (B, 6) in Å and degrees that bins (B, 6) stand for."""
    return bin_values(bins, np.arange(Phase.A, Phase.DONE), crystals.n_atoms()[:, None], n)
