"""The canonical setting of a crystal and its labels, independent of origin, axes, letters and representatives.

The letters and coordinates of a crystal are defined up to the affine normaliser of its group
(`crystal_env.symmetry.normaliser`): rock salt is ``225-a-Na-b-Cl`` as well as ``225-a-Cl-b-Na``.

- `key` is discrete and exact: the group, and the first list of letters and elements among all equivalent settings. It
  depends neither on coordinates nor on the lattice, so no tolerance enters. Crystals of one key have the same sites,
  but may differ in free coordinates and lattice.
- `wyckoff_template` drops the elements, `prototype` makes them anonymous.
- `canonical` is a crystal: of all equivalent settings the one with the most reduced lattice, then the first list of
  letters and elements, then the smallest coordinates. Differences below the tolerances count as ties, so that rounding
  decides nothing; only settings that differ by about a tolerance are sensitive to noise.

Along polar axes, where the group leaves the origin free, an atom of the rarest site is at 0. Mirror images count as the
same crystal, as their energies are equal; the eleven pairs of enantiomorphic groups (such as P4_1 and P4_3) differ.
"""

from functools import cmp_to_key, lru_cache
from math import gcd
from string import ascii_uppercase
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crystal_env import geometry
from crystal_env.elements import SYMBOLS
from crystal_env.symmetry import normaliser
from crystal_env.wyckoff import LETTERS, spelled, tables

_Fields = tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]

_LENGTH_TOLERANCE = 1e-3  # Å
_ANGLE_TOLERANCE = 1e-2  # degrees
_COORDINATE_TOLERANCE = 1e-3
_CODE = 128  # letter and element as one integer: _CODE * W + A


class Sites(Protocol):
    """An object with a space group and sites, such as a `crystal_env.crystal.Crystal`."""

    @property
    def G(self) -> int:
        """Space group number."""

    @property
    def W(self) -> NDArray[np.int64]:
        """Letter indices (n,)."""

    @property
    def A(self) -> NDArray[np.int64]:
        """Atomic numbers (n,)."""


def key(crystal: Sites) -> str:
    """Return the group and the first list of letters and elements, such as ``"225-a-Na-b-Cl"``."""
    permuted = normaliser.letter_permutations(crystal.G)[:, crystal.W]
    codes = np.sort(_CODE * permuted + crystal.A, axis=1)
    smallest = codes[np.lexsort(codes.T[::-1])[0]].tolist()
    return "-".join([str(crystal.G), *(f"{LETTERS[code // _CODE - 1]}-{SYMBOLS[code % _CODE]}" for code in smallest)])


def wyckoff_template(crystal: Sites) -> str:
    """Return the group and the letters of the sites, such as ``"221-abc"``, elements left aside.

    It is the alphabetically first list of letters among all equivalent settings, which is not always the one in `key`,
    whose order depends on the elements too.
    """
    return _template(crystal.G, tuple(crystal.W.tolist()))


def prototype(crystal: Sites) -> str:
    """Return the group, the anonymous formula and the letters of each element: ``"221-ABC3-a-b-c"`` of SrTiO3.

    Elements are in the order of their amounts, then of their letters. It is AFLOW's prototype label (Mehl et al.,
    Comput. Mater. Sci. 136, S1 (2017)) without the Pearson symbol, made independent of the setting.
    """
    elements = np.unique(crystal.A)
    sites = tuple(tuple(crystal.W[element == crystal.A].tolist()) for element in elements)
    return _prototype(crystal.G, sites)


@lru_cache(maxsize=1 << 16)
def _template(G: int, W: tuple[int, ...]) -> str:
    images = np.sort(normaliser.letter_permutations(G)[:, W], axis=1)
    smallest = images[np.lexsort(images.T[::-1])[0]]
    return f"{G}-{spelled(smallest)}"


@lru_cache(maxsize=1 << 16)
def _prototype(G: int, sites: tuple[tuple[int, ...], ...]) -> str:
    amounts = [int(tables().multiplicity[G, list(W)].sum()) for W in sites]
    ends = np.cumsum([len(W) for W in sites])[:-1]
    images = np.unique(normaliser.letter_permutations(G)[:, np.concatenate(sites)], axis=0)
    described = (
        sorted((amount, sorted(W.tolist())) for amount, W in zip(amounts, np.split(image, ends), strict=True))
        for image in images
    )
    counts = [amount // gcd(*amounts) for amount in sorted(amounts)]
    names = ascii_uppercase[: len(counts)]
    formula = "".join(name if count == 1 else f"{name}{count}" for name, count in zip(names, counts, strict=True))
    return "-".join([str(G), formula, *(spelled(W) for _, W in min(described))])


def canonical(
    G: int, W: NDArray[np.int64], A: NDArray[np.int64], XYZ: NDArray[np.float64], L: NDArray[np.float64]
) -> _Fields:
    """Return group, letters (n,), elements (n,), coordinates (n, 3) and lattice (6,) in the canonical setting."""
    projection = tables().projection[G, W]
    exact = np.einsum("nij,nj->ni", projection[:, :, :3], XYZ) + projection[:, :, 3]
    bases = _reduced_bases(G, L)
    images = [(row, *image) for row, P in enumerate(bases) for image in zip(*normaliser.maps(G, P), strict=True)]
    codes = np.array([_CODE * letters[W] + A for _, _, letters in images])
    order = codes.argsort(axis=1, kind="stable")
    codes = np.take_along_axis(codes, order, 1)
    best = codes[np.lexsort(codes.T[::-1])[0]]
    W, A = best // _CODE, best % _CODE

    points: list[NDArray[np.float64]] = []
    basis: list[int] = []
    for image in np.flatnonzero((codes == best).all(1)):
        row, p, _ = images[image]
        moved = _on_polar_origins(G, best, exact[order[image]] @ bases[row].T + p)
        points.append(_sorted_sites(best, _representatives(G, W, moved)))
        basis += [row] * len(moved)
    candidates = np.concatenate(points)
    chosen = int(_first_smallest(candidates.reshape(1, len(candidates), -1))[0])
    lattice = transformed_lattices(G, L[None], bases[[basis[chosen]]])[0]
    return G, W, A, candidates[chosen], lattice


def _reduced_bases(G: int, L: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the linear parts (k, 3, 3) of the normaliser that lead to the most reduced lattice, the nearest first.

    That is the lattice of the shortest axes, then of the shortest a and b, then the one with its angles all acute or
    all obtuse, monoclinic ones obtuse.
    """
    vectors = geometry.lattice_vectors(L[None])[0]
    metric, total = vectors @ vectors.T, np.eye(3, dtype=np.int64)
    parts = normaliser.linear_parts(G)
    inverse = np.rint(np.linalg.inv(parts)).astype(np.int64)
    while True:
        metrics = np.einsum("pji,jk,pkl->pil", inverse, metric, inverse)
        lengths = np.sqrt(np.diagonal(metrics, axis1=1, axis2=2))
        perimeter = lengths.sum(1)
        shortest = int(perimeter.argmin())
        if perimeter[shortest] > perimeter[0] - _LENGTH_TOLERANCE:
            break
        metric, total = metrics[shortest], parts[shortest] @ total
    cosines = metrics[:, [1, 0, 0], [2, 2, 1]] / (lengths[:, [1, 0, 0]] * lengths[:, [2, 2, 1]])
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    kept = np.arange(len(parts))
    for value, tolerance in (
        (perimeter, _LENGTH_TOLERANCE),
        (lengths[:, 0], _LENGTH_TOLERANCE),
        (lengths[:, 1], _LENGTH_TOLERANCE),
        (-np.abs(90 - angles.mean(1)), _ANGLE_TOLERANCE),
        (-angles[:, 0], _ANGLE_TOLERANCE),
        (-angles[:, 1], _ANGLE_TOLERANCE),
        (-angles[:, 2], _ANGLE_TOLERANCE),
    ):
        kept = kept[value[kept] <= value[kept].min() + tolerance]
    return parts[kept] @ total


def transformed_lattices(G: int, L: NDArray[np.float64], P: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return lattices (B, 6) in Å and degrees after the linear parts P (B, 3, 3) of maps of a group's normaliser."""
    vectors = np.rint(np.linalg.inv(P)).swapaxes(1, 2) @ geometry.lattice_vectors(L)
    lengths = np.linalg.norm(vectors, axis=2)
    unit = vectors / lengths[:, :, None]
    angles = np.degrees(np.arccos((unit[:, [1, 0, 0]] * unit[:, [2, 2, 1]]).sum(2)))
    parameters = np.concatenate([lengths, angles], axis=1)[:, tables().lattice_source[G]]
    transformed = np.where(tables().lattice_angle[G] > 0, tables().lattice_angle[G], parameters)
    return np.where((np.eye(3) == P).all((1, 2))[:, None], L, transformed)


def _on_polar_origins(G: int, codes: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sites (k, n, 3) with each atom of the rarest letter and element in turn at 0 along the polar axes."""
    polar = normaliser.polar_axes(G)
    if not polar.any():
        return points[None]
    kinds, kind, counts = np.unique(codes, return_inverse=True, return_counts=True)
    rarest = (counts * tables().multiplicity[G, kinds // _CODE]).argmin()
    rotations, shifts = normaliser.general_operations(G)
    atoms = np.einsum("mij,nj->nmi", rotations, points[kind == rarest]) + shifts / 24
    origins = (atoms.reshape(-1, 3) * polar) % 1
    first = np.unique(np.round(origins, 9) % 1, axis=0, return_index=True)[1]
    return points - origins[np.sort(first)][:, None]


def _representatives(G: int, W: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for sites (k, n, 3) anywhere on their orbits the smallest points on their letters' first operations."""
    rotations, shifts = normaliser.general_operations(G)
    projection = tables().projection[G, W]
    orbit = np.einsum("mij,knj->knmi", rotations, points) + shifts / 24
    on_first = np.einsum("nij,knmj->knmi", projection[:, :, :3], orbit) + projection[:, None, :, 3]
    off = on_first - orbit
    on_first -= np.floor(on_first)
    on_first[on_first > 1 - 1e-9] = 0.0
    on_first[np.abs(off - np.rint(off)).max(-1) > 1e-6] = np.inf
    k, n, m, _ = on_first.shape
    flat = on_first.reshape(k * n, m, 3)
    return flat[np.arange(k * n), _first_smallest(flat)].reshape(k, n, 3)


def _first_smallest(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for every row (B, m, d) the first vector that is smallest, coordinate by coordinate up to ties."""
    values = _unwrapped(vectors)
    kept = np.ones(values.shape[:2], bool)
    for column in np.moveaxis(values, 2, 0):
        smallest = np.where(kept, column, np.inf).min(1, keepdims=True)
        kept &= column <= smallest + _COORDINATE_TOLERANCE
    return kept.argmax(1)


def _sorted_sites(codes: NDArray[np.int64], sites: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sort the sites (k, n, 3) that share letter and element by their coordinates."""
    same = np.flatnonzero(codes[1:] == codes[:-1])
    if not len(same):
        return sites

    def compare(first: NDArray[np.float64], second: NDArray[np.float64]) -> int:
        apart = (first - second)[np.abs(first - second) > _COORDINATE_TOLERANCE]
        return int(np.sign(apart[0])) if len(apart) else 0

    by_value, ordered = cmp_to_key(compare), []
    for values, image in zip(np.dstack([np.tile(codes, (len(sites), 1)), _unwrapped(sites)]), sites, strict=True):
        keys = [by_value(value) for value in values]
        ordered.append(image[sorted(range(len(codes)), key=keys.__getitem__)])
    return np.array(ordered)


def _unwrapped(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coordinates in which those that nearly complete a lattice vector are just below 0."""
    return coordinates - (coordinates > 1 - _COORDINATE_TOLERANCE) * np.isfinite(coordinates)
