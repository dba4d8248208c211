"""Affine normalisers of the space groups: every change of axes and origin that leaves a group's table as it is.

A map x -> P x + p of fractional coordinates belongs to the normaliser of a group if it maps the group's operations onto
themselves. It gives an equivalent setting of a crystal: letters are permuted, coordinates and lattice transformed.
For groups without an inversion this includes mirror images. Everything is derived from the general position of the
table; translations are multiples of 1/24 of a lattice vector (International Tables A, chapter 3.5).
"""

from functools import cache, lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.wyckoff import N_LETTERS, tables

_UNITS = 24
_TRICLINIC, _MONOCLINIC, _ORTHORHOMBIC, _TETRAGONAL, _HEXAGONAL = 2, 15, 74, 142, 194  # last groups of the systems
_GENERIC = np.array([0.1234, 0.2718, 0.3141])  # a point without symmetry


@cache
def general_operations(G: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all operations of a group: rotations (m, 3, 3), and translations (m, 3) in units of 1/24."""
    T = tables()
    rows = T.operations(G, int(T.n_letters[G]))
    return T.rotation[rows].astype(np.int64), np.rint(T.translation[rows] * _UNITS).astype(np.int64)


def polar_axes(G: int) -> NDArray[np.bool_]:
    """Return the axes (3,) along which the group leaves the origin free."""
    rotations, _ = general_operations(G)
    return (rotations == np.eye(3)).all((0, 1))


@cache
def linear_parts(G: int) -> NDArray[np.int64]:
    """Return one P (k, 3, 3) of every coset of the point group in the affine normaliser, the identity first.

    The normalisers of triclinic and monoclinic groups are infinite; theirs are the P with entries up to 1 and 2.
    """
    size = 2 if _TRICLINIC < G <= _MONOCLINIC else 1
    P = _unimodular(size)
    if G > _MONOCLINIC:
        metric = np.eye(3)
        if _ORTHORHOMBIC < G <= _TETRAGONAL:
            metric[2, 2] = 2
        elif _TETRAGONAL < G <= _HEXAGONAL:
            metric[:2, :2], metric[2, 2] = [[1, -0.5], [-0.5, 1]], 2
        P = P[(np.einsum("pji,jk,pkl->pil", P, metric, P) == metric).all((1, 2))]
    elif G > _TRICLINIC:
        P = P[(P[:, [0, 1, 1, 2], [1, 0, 2, 1]] == 0).all(1)]
    point_group = np.unique(general_operations(G)[0], axis=0)
    products = np.einsum("pij,rjk->prik", P, point_group).reshape(len(P), len(point_group), 9)
    codes = (products @ 5 ** np.arange(9)).min(1)  # the same for all members of a coset
    P = P[np.sort(np.unique(codes, return_index=True)[1])]
    if G <= _TRICLINIC:
        return P
    return P[[len(_solve(G, matrix)) > 0 for matrix in P]]


@cache
def _unimodular(size: int) -> NDArray[np.int64]:
    """Return integer matrices of determinant 1 or -1 with entries up to ``size``, those closest to the identity first.

    Beyond 1 only matrices that keep the b axis are listed.
    """
    entries = range(-size, size + 1)
    if size == 1:
        matrices = np.array(list(product(entries, repeat=9))).reshape(-1, 3, 3)
    else:
        net = np.array(list(product(entries, repeat=4)))
        matrices = np.zeros((2 * len(net), 3, 3), np.int64)
        matrices[:, 0, 0], matrices[:, 0, 2], matrices[:, 2, 0], matrices[:, 2, 2] = np.tile(net, (2, 1)).T
        matrices[:, 1, 1] = np.repeat([1, -1], len(net))
    matrices = matrices[np.abs(np.rint(np.linalg.det(matrices))) == 1]
    return matrices[np.abs(matrices - np.eye(3)).sum((1, 2)).argsort(kind="stable")]


class Maps(NamedTuple):
    """The k maps x -> P x + p of a normaliser that share their P.

    Attributes:
        p (k, 3): shifts in fractions of the lattice vectors, zero along polar axes, modulo lattice translations.
        letters (k, 28): the image of each letter index, 0 where there is none.
    """

    p: NDArray[np.float64]
    letters: NDArray[np.int64]


def maps(G: int, P: NDArray[np.int64]) -> Maps:
    """Return all maps of the normaliser with linear part P (3, 3); there are none if it is not in the normaliser."""
    return _maps(G, tuple(P.ravel().tolist()))


@lru_cache(maxsize=4096)
def _maps(G: int, rows: tuple[int, ...]) -> Maps:
    P = np.array(rows).reshape(3, 3)
    solutions = _solve(G, P)
    shifts = (solutions[0] + _translations(G)) % _UNITS if len(solutions) else solutions
    letters = np.array([_letter_permutation(G, P, p) for p in shifts], np.int64).reshape(-1, N_LETTERS)
    return Maps(shifts / _UNITS, letters)


@cache
def letter_permutations(G: int) -> NDArray[np.int64]:
    """Return all permutations (k, 28) of the group's letters by its affine normaliser, the identity first."""
    P = linear_parts(G)
    if G <= _TRICLINIC:
        parity = (P % 2).reshape(-1, 9) @ 2 ** np.arange(9)  # inversion centres depend on the parity alone
        P = P[np.sort(np.unique(parity, return_index=True)[1])]
    permutations = np.concatenate([maps(G, matrix).letters for matrix in P])
    unique, first = np.unique(permutations, axis=0, return_index=True)
    return unique[first.argsort()]


def _letter_permutation(G: int, P: NDArray[np.int64], p: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow a generic point of every letter (28,)."""
    T = tables()
    letters = np.arange(1, T.n_letters[G] + 1)
    rotations, shifts = general_operations(G)
    projection = T.projection[G, letters]
    points = (projection[:, :, :3] @ _GENERIC + projection[:, :, 3]) @ P.T + p / _UNITS
    images = np.einsum("mij,wj->wmi", rotations, points) + shifts / _UNITS
    projected = np.einsum("vij,wmj->vwmi", projection[..., :3], images) + projection[:, None, None, :, 3]
    off = projected - images
    on_letter = np.abs(off - np.rint(off)).max(-1).min(-1) < 1e-6  # (new letter, old letter)
    on_letter &= T.multiplicity[G, letters][:, None] == T.multiplicity[G, letters]
    permutation = np.zeros(N_LETTERS, np.int64)
    permutation[letters] = letters[on_letter.argmax(0)]
    return permutation


@cache
def _translations(G: int) -> NDArray[np.int64]:
    """Return the pure translations (k, 3) in units of 1/24, modulo lattice and shifts along polar axes, zero first."""
    solutions = _solve(G, np.eye(3, dtype=np.int64))
    shifted = (solutions[:, None] + _centring(G)) % _UNITS
    shifted[:, :, polar_axes(G)] = 0
    codes = (shifted @ _UNITS ** np.arange(3)).min(1)
    return solutions[np.sort(np.unique(codes, return_index=True)[1])]


def _centring(G: int) -> NDArray[np.int64]:
    rotations, shifts = general_operations(G)
    return shifts[(rotations == np.eye(3)).all((1, 2))]


def _solve(G: int, P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all p (k, 3), zero along polar axes, for which (P, p) carries every operation of the group into another.

    (P, p) turns (R, t) into (R', P t + p - R' p) with R' = P R P^-1, which must be an operation up to a lattice
    translation.
    """
    rotations, shifts = general_operations(G)
    centring = _centring(G)
    inverse = np.rint(np.linalg.inv(P)).astype(np.int64)
    solutions = _grid(*polar_axes(G).tolist())
    if not _in_lattice(centring @ P.T, centring).all():
        return solutions[:0]
    for rotation, shift in zip(rotations, shifts, strict=True):
        image = P @ rotation @ inverse
        same = np.flatnonzero((rotations == image).all((1, 2)))
        if not len(same):
            return solutions[:0]
        difference = solutions @ (np.eye(3, dtype=np.int64) - image).T + P @ shift - shifts[same[0]]
        solutions = solutions[_in_lattice(difference, centring)]
    return solutions


@cache
def _grid(*polar: bool) -> NDArray[np.int64]:
    axes = [np.arange(1 if is_polar else _UNITS) for is_polar in polar]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def _in_lattice(points: NDArray[np.int64], centring: NDArray[np.int64]) -> NDArray[np.bool_]:
    return ((points[:, None] - centring) % _UNITS == 0).all(2).any(1)
