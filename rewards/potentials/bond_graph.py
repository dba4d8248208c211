"""Bonds and bond angles of a periodic structure as index arrays, the input of graph neural network potentials."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SAME_POINT = 1e-8


class Bonds(NamedTuple):
    """The E directed bonds of a structure: every bond is there in both directions.

    Attributes:
        center, neighbor (E,): atom indices.
        image (E, 3): the lattice translation of the neighbour.
        distance (E,): lengths in Å.
        undirected (E,): index of the undirected bond, the same for both directions.
        directed (E / 2,): for every undirected bond the index of one of its directions.
    """

    center: NDArray[np.int64]
    neighbor: NDArray[np.int64]
    image: NDArray[np.int64]
    distance: NDArray[np.float64]
    undirected: NDArray[np.int64]
    directed: NDArray[np.int64]


def find_neighbors(
    positions: ArrayLike, lattice: ArrayLike, cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return centres (E,), neighbours (E,), images (E, 3) and distances (E,) in Å of all pairs up to a distance.

    Args:
        positions: Cartesian coordinates (n, 3) in Å.
        lattice: lattice vectors as rows (3, 3) in Å.
        cutoff: the largest distance in Å.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    points = np.ascontiguousarray(positions, np.float64)
    center, neighbor, image, distance = find_points_in_spheres(
        points, points, r=cutoff, pbc=np.ones(3, np.int64), lattice=np.ascontiguousarray(lattice, np.float64)
    )
    keep = (center != neighbor) | (distance > _SAME_POINT)
    return center[keep], neighbor[keep], np.rint(image[keep]).astype(np.int64), distance[keep]


def find_bonds(positions: ArrayLike, lattice: ArrayLike, cutoff: float) -> Bonds:
    """Return all bonds up to a length; the arguments are those of `find_neighbors`."""
    return _pair(*find_neighbors(positions, lattice, cutoff))


def _pair(
    center: NDArray[np.int64], neighbor: NDArray[np.int64], image: NDArray[np.int64], distance: NDArray[np.float64]
) -> Bonds:
    """Match every directed bond with its reverse; one without (at the cutoff, by rounding) is left out."""
    reach = int(np.abs(image).max(initial=0))
    shape = (int(center.max(initial=0)) + 1,) * 2 + (2 * reach + 1,) * 3
    code = np.ravel_multi_index((center, neighbor, *(image + reach).T), shape)
    reverse_code = np.ravel_multi_index((neighbor, center, *(reach - image).T), shape)
    has_reverse = np.isin(reverse_code, code)
    center, neighbor, image = center[has_reverse], neighbor[has_reverse], image[has_reverse]
    distance, code, reverse_code = distance[has_reverse], code[has_reverse], reverse_code[has_reverse]
    order = np.argsort(code)
    reverse = order[np.searchsorted(code, reverse_code, sorter=order)]
    directed = np.flatnonzero(np.arange(len(code)) < reverse)
    undirected = np.empty(len(code), np.int64)
    undirected[directed] = undirected[reverse[directed]] = np.arange(len(directed))
    return Bonds(center, neighbor, image, distance, undirected, directed)


def count_angles(bonds: Bonds, cutoff: float) -> int:
    """Return the number of angles that `find_angles` would list."""
    degree = np.bincount(bonds.center[bonds.distance <= cutoff])
    return int((degree * (degree - 1)).sum())


def find_angles(bonds: Bonds, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all ordered pairs of different directed bonds from one atom, both at most ``cutoff`` Å long.

    Returns:
        the first and the second directed bond of every angle, (A,) each.
    """
    short = np.flatnonzero(bonds.distance <= cutoff)
    short = short[np.argsort(bonds.center[short], kind="stable")]
    center = bonds.center[short]
    degree = np.bincount(center)
    start = np.cumsum(degree) - degree
    partners = degree[center]
    first = np.repeat(np.arange(len(short)), partners)
    within = np.arange(len(first)) - np.repeat(np.cumsum(partners) - partners, partners)
    second = start[center[first]] + within
    different = first != second
    return short[first[different]], short[second[different]]
