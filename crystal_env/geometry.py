"""From symmetry-inequivalent sites to atoms, cells and distances, for a whole batch at once.

B crystals are the arrays of `crystal_env.crystal.CrystalBatch`: ``G (B,)``, ``W (B, n)``, ``A (B, n)``,
``XYZ (B, n, 3)`` and ``L (B, 6)`` in Å and degrees.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.wyckoff import tables

_PAIRS_PER_CHUNK = 1 << 20


class AtomArrays(NamedTuple):
    """All atoms of B crystals, one after the other.

    Attributes:
        lattice (B, 3, 3): rows are the lattice vectors in Å, a along x and b in the xy plane.
        counts (B,): atoms per crystal, N in total.
        numbers (N,): atomic numbers.
        frac (N, 3): fractional coordinates in [0, 1).
        is_site (N,): True for the first atom of every orbit, the representative.
    """

    lattice: NDArray[np.float64]
    counts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    frac: NDArray[np.float64]
    is_site: NDArray[np.bool_]


def representatives(G: int | NDArray[np.int64], W: NDArray[np.int64], XYZ: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points (n, 3) with the coordinates that the letters (n,) fix filled in, the free ones as they are.

    The same numbers give the same bits, whatever the batch.
    """
    T = tables()
    R, free = T.projection[G, W], T.free_coordinates[G, W]
    x, y, z = XYZ[:, None].transpose(2, 0, 1)  # (n, 1) each
    points = R[:, :, 0] * x + R[:, :, 1] * y + R[:, :, 2] * z + R[:, :, 3]
    points -= np.floor(points)
    points[points >= 1 - 1e-12] = 0.0
    return np.where(free, XYZ, points) + 0.0  # no minus zero


def lattice_vectors(L: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return lattice vectors as rows (B, 3, 3) in Å for lattice parameters (B, 6) in Å and degrees."""
    cos, sin = np.cos(np.radians(L[:, 3:])), np.sin(np.radians(L[:, 3:]))
    cos[L[:, 3:] == 90] = 0.0  # exact zeros keep orthogonal cells orthogonal
    vectors = np.zeros((len(L), 3, 3))
    vectors[:, 0, 0] = 1.0
    vectors[:, 1, 0], vectors[:, 1, 1] = cos[:, 2], sin[:, 2]
    vectors[:, 2, 0] = cos[:, 1]
    vectors[:, 2, 1] = (cos[:, 0] - cos[:, 1] * cos[:, 2]) / sin[:, 2]
    vectors[:, 2, 2] = np.sqrt(np.maximum(1 - vectors[:, 2, 0] ** 2 - vectors[:, 2, 1] ** 2, 0))
    return vectors * L[:, :3, None]


def angle_volume(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (V / abc)^2 for cell angles (..., 3) in degrees; not positive where no cell has these angles."""
    cos = np.cos(np.radians(angles))
    return 1 - (cos**2).sum(-1) + 2 * cos.prod(-1)


def multiplicities(G: NDArray[np.int64], W: NDArray[np.int64], primitive: bool = False) -> NDArray[np.int64]:
    """Return the atoms of every site (B, n), 0 for pads, in the conventional or the primitive cell."""
    table = tables().primitive_multiplicity if primitive else tables().multiplicity
    return table[G[:, None], W]


def volumes_per_atom(G: NDArray[np.int64], W: NDArray[np.int64], L: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return volumes per atom (B,) in Å^3."""
    shape = np.sqrt(np.maximum(angle_volume(L[:, 3:]), 0))
    return L[:, :3].prod(1) * shape / np.maximum(multiplicities(G, W).sum(1), 1)


def expand(
    G: NDArray[np.int64],
    W: NDArray[np.int64],
    A: NDArray[np.int64],
    XYZ: NDArray[np.float64],
    L: NDArray[np.float64],
    primitive: bool = False,
) -> AtomArrays:
    """Return all atoms of the conventional or, by the centring vectors of the table, of the primitive cells."""
    T = tables()
    row, site = np.nonzero(W)
    group, letter = G[row], W[row, site]
    multiplicity = (T.primitive_multiplicity if primitive else T.multiplicity)[group, letter]
    first = np.cumsum(multiplicity) - multiplicity
    atom_site = np.repeat(np.arange(len(row)), multiplicity)
    operation = T.offset[group, letter][atom_site] + np.arange(len(atom_site)) - first[atom_site]
    points = XYZ[row, site][atom_site]
    frac = np.einsum("nij,nj->ni", T.rotation[operation], points) + T.translation[operation]
    lattice = lattice_vectors(L)
    if primitive:
        vectors = T.primitive_vectors[G]
        frac = np.einsum("nj,njk->nk", frac, np.linalg.inv(vectors)[row[atom_site]])
        lattice = vectors @ lattice
    frac -= np.floor(frac)
    frac[frac >= 1 - 1e-12] = 0.0
    is_site = np.zeros(len(frac), bool)
    is_site[first] = True
    counts = np.bincount(row, multiplicity, len(G)).astype(np.int64)
    return AtomArrays(lattice, counts, A[row, site][atom_site].astype(np.int64), frac, is_site)


def min_distances(
    G: NDArray[np.int64],
    W: NDArray[np.int64],
    A: NDArray[np.int64],
    XYZ: NDArray[np.float64],
    L: NDArray[np.float64],
    cutoff: float,
    radii: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the shortest interatomic distance (B,) in Å of every crystal, periodic images of an atom included.

    The search ends at ``cutoff`` (Å), the result for a crystal without a shorter distance. By symmetry only the
    distances from one atom of every orbit are needed. With radii (119,) by atomic number, in Å, distances and cutoff
    are in units of the sum of the two atoms' radii.
    """
    radii = np.full(A.max(initial=0) + 1, 0.5) if radii is None else radii
    pairs = np.count_nonzero(W, axis=1) * multiplicities(G, W, primitive=True).sum(1)
    chunk = np.cumsum(pairs) // _PAIRS_PER_CHUNK
    parts = []
    for k in np.unique(chunk):
        rows = chunk == k
        atoms = expand(G[rows], W[rows], A[rows], XYZ[rows], L[rows], primitive=True)
        parts.append(_min_distances(atoms, cutoff, radii))
    return np.concatenate([np.zeros(0), *parts])


def _min_distances(atoms: AtomArrays, cutoff: float, radii: NDArray[np.float64]) -> NDArray[np.float64]:
    site, atom, row = _site_atom_pairs(atoms)
    unit = radii[atoms.numbers[site]] + radii[atoms.numbers[atom]]
    spacing = 1 / np.linalg.norm(np.linalg.inv(atoms.lattice), axis=1)  # (B, 3) between lattice planes
    largest = np.zeros(len(atoms.counts))
    np.maximum.at(largest, row, unit)
    reach = np.floor(cutoff * largest[:, None] / spacing + 0.5).astype(np.int64)  # images within the cutoff
    difference = atoms.frac[site] - atoms.frac[atom]
    difference -= np.rint(difference)
    shortest = np.full(len(atoms.counts), float(cutoff))
    for images in np.unique(reach, axis=0):
        pairs = np.flatnonzero((reach == images).all(1)[row])
        shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in images), indexing="ij"), -1).reshape(-1, 3)
        is_zero = (shifts == 0).all(1)
        for part in np.array_split(pairs, max(1, len(pairs) * len(shifts) // _PAIRS_PER_CHUNK)):
            vectors = np.einsum("psi,pij->psj", difference[part, None] + shifts, atoms.lattice[row[part]])
            squared = np.einsum("psj,psj->ps", vectors, vectors)
            squared[np.ix_(site[part] == atom[part], is_zero)] = np.inf  # an atom is no neighbour of itself
            np.minimum.at(shortest, row[part], np.sqrt(squared.min(1)) / unit[part])
    return shortest


def _site_atom_pairs(atoms: AtomArrays) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return for all pairs of a representative and an atom of its crystal: both atom indices and the crystal's."""
    site = np.flatnonzero(atoms.is_site)
    row = np.repeat(np.arange(len(atoms.counts)), atoms.counts)[site]
    counts = atoms.counts[row]
    start = (np.cumsum(atoms.counts) - atoms.counts)[row]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(site, counts), np.repeat(start, counts) + within, np.repeat(row, counts)
