"""Equivalent settings of crystals: another origin, axes and letters, by the normaliser of the group."""

import numpy as np
from numpy.typing import NDArray

from crystal_env import geometry
from crystal_env.crystal import CrystalBatch
from crystal_env.encoding import ANGLE_BOUNDS, gamma_bounds, normalise_lattice
from crystal_env.sampling import sample_masked
from crystal_env.symmetry import normaliser
from crystal_env.symmetry.canonical import transformed_lattices
from crystal_env.wyckoff import N_LETTERS, tables

_MONOCLINIC = 15  # last group whose normaliser is infinite
_LONGER = 1.001  # perimeters of a cell up to this factor count as the same
_DIGITS = 6  # of coordinates that decide their order, as in `Crystal.from_structure`
_CHUNK = 512  # crystals at a time, for the memory of all atoms on their orbits


def equivalents(crystals: CrystalBatch, rng: np.random.Generator) -> CrystalBatch:
    """Return crystals in a random equivalent setting, each by a map x -> P x + p of the affine normaliser of its group.

    P is sampled uniformly among the linear parts of `crystal_env.symmetry.normaliser` that do not increase a + b + c.
    In triclinic and monoclinic groups they must not lead out of the bounds of the environment either; the identity is
    always allowed. Then p is sampled uniformly among the shifts that go with P. Polar axes, along which the group
    leaves the origin free, are not shifted.

    Sites are sorted by letter and position and represented by the first of their atoms on the letter's first operation,
    as `Crystal.from_structure` does. A chiral crystal may become its mirror image, which no energy tells apart; only in
    the eleven pairs of mirrored groups (such as P4_1 and P4_3) it never does.

    Args:
        crystals: B crystals, left unchanged.
        rng: samples the maps.
    """
    new = CrystalBatch.empty(len(crystals))
    new.G[:] = crystals.G
    for G in np.unique(crystals.G).tolist():
        members = np.flatnonzero(crystals.G == G)
        for start in range(0, len(members), _CHUNK):
            rows = members[start : start + _CHUNK]
            new.W[rows], new.A[rows], new.XYZ[rows], new.L[rows] = _re_set(G, crystals[rows], rng)
    return new


def _re_set(
    G: int, crystals: CrystalBatch, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return W, A, XYZ, L of crystals of one group after random maps."""
    P, p, letters = _sample_maps(G, crystals, rng)
    W = np.take_along_axis(letters, crystals.W, axis=1)
    XYZ = np.zeros_like(crystals.XYZ)
    row, slot = np.nonzero(W)
    points = geometry.representatives(G, crystals.W[row, slot], crystals.XYZ[row, slot])
    XYZ[row, slot] = _representatives(G, W[row, slot], np.einsum("nij,nj->ni", P[row], points) + p[row])

    order = np.lexsort((_position_codes(XYZ), np.where(W > 0, W, N_LETTERS)))
    W, A = np.take_along_axis(W, order, 1), np.take_along_axis(crystals.A, order, 1)
    XYZ = np.take_along_axis(XYZ, order[:, :, None], 1)
    XYZ[row, slot] = geometry.representatives(G, W[row, slot], XYZ[row, slot])
    return W, A, XYZ, transformed_lattices(G, crystals.L, P)


def _sample_maps(
    G: int, crystals: CrystalBatch, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return P (B, 3, 3), p (B, 3) and what each letter becomes (B, 28)."""
    parts, size = normaliser.linear_parts(G), len(crystals)
    allowed = _allowed_parts(G, crystals) if G <= _MONOCLINIC else np.ones((size, len(parts)), bool)
    chosen = sample_masked(allowed, rng)
    p, letters = np.zeros((size, 3)), np.zeros((size, N_LETTERS), np.int64)
    for part in np.unique(chosen):
        rows = np.flatnonzero(chosen == part)
        maps = normaliser.maps(G, parts[part])
        which = rng.integers(len(maps.p), size=len(rows))
        p[rows], letters[rows] = maps.p[which], maps.letters[which]
    return parts[chosen], p, letters


def _allowed_parts(G: int, crystals: CrystalBatch) -> NDArray[np.bool_]:
    """Return which of the k linear parts (B, k) neither make the cell longer nor lead out of bounds."""
    parts = normaliser.linear_parts(G)
    inverse = np.rint(np.linalg.inv(parts))
    forms = np.einsum("kji,kli->jlki", inverse, inverse).reshape(9, -1)  # of the squared lengths of the new axes
    vectors = geometry.lattice_vectors(crystals.L)
    metric = (vectors @ vectors.swapaxes(1, 2)).reshape(-1, 9)
    perimeter = np.sqrt(metric @ forms).reshape(len(crystals), len(parts), 3).sum(2)
    allowed = perimeter <= _LONGER * crystals.L[:, :3].sum(1, keepdims=True)
    row, part = np.nonzero(allowed)
    lattices = transformed_lattices(G, crystals.L[row], parts[part])
    allowed[row, part] = _within_bounds(lattices, crystals.n_atoms()[row])
    allowed[:, 0] = True  # the identity
    return allowed


def _within_bounds(L: NDArray[np.float64], n_atoms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether the environment could build lattices (B, 6) with so many atoms (B,) in the conventional cell."""
    u = normalise_lattice(L, n_atoms)
    low, high = gamma_bounds(*np.clip(L[:, 3:5], *ANGLE_BOUNDS).T).T
    return ((u >= 0) & (u <= 1)).all(1) & (L[:, 5] >= low) & (L[:, 5] <= high)


def _representatives(G: int, W: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for sites (n, 3) anywhere on their orbits the first of the atoms on their letters' first operations."""
    rotations, shifts = normaliser.general_operations(G)
    projection = tables().projection[G, W]
    orbit = (points @ rotations.reshape(-1, 3).T).reshape(len(points), -1, 3) + shifts / 24
    on_first = orbit @ projection[:, :, :3].swapaxes(1, 2) + projection[:, None, :, 3]
    off = on_first - orbit
    on_first -= np.floor(on_first)
    on_first[on_first > 1 - 1e-9] = 0.0
    is_on_first = (np.abs(off - np.rint(off)) < 1e-6).all(2)
    first = np.where(is_on_first, _position_codes(on_first), np.iinfo(np.int64).max).argmin(1)
    return on_first[np.arange(len(points)), first]


def _position_codes(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return integers (...) that order points (..., 3) in the unit cell by their rounded coordinates."""
    return np.rint(points * 10**_DIGITS).astype(np.int64) @ (1 << np.array([40, 20, 0]))
