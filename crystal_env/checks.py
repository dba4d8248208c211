"""Validation of the arrays of a crystal."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from crystal_env.errors import InputError
from crystal_env.geometry import angle_volume
from crystal_env.wyckoff import MAX_SITES, N_ELEMENTS, N_GROUPS, spelled, tables


def as_numbers(name: str, values: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """Return a copy of an array in another dtype.

    Raises:
        ValueError: if the values are not numbers, or not whole where an integer dtype asks for it.
    """
    try:
        given = np.array(values)
        array = given.astype(dtype)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} must be an array of numbers, got {values!r}") from error
    if array.dtype.kind == "i" and not np.array_equal(array, given):
        raise InputError(f"{name} must hold whole numbers, got {given.tolist()}")
    return array


def check_crystal(
    G: int, W: NDArray[np.int64], A: NDArray[np.int64], XYZ: NDArray[np.float64], L: NDArray[np.float64]
) -> None:
    """Check group, letters (n,), elements (n,), coordinates (n, 3) and lattice (6,) of one crystal.

    Raises:
        ValueError: naming the array, what it holds and what is allowed.
    """
    T, n = tables(), W.size
    if isinstance(G, bool) or not isinstance(G, int | np.integer) or not 1 <= G <= N_GROUPS:
        raise InputError(f"space group G must be an integer from 1 to {N_GROUPS}, got {G!r}")
    if W.ndim != 1 or not 1 <= n <= MAX_SITES:
        raise InputError(f"W must hold 1 to {MAX_SITES} sites, got shape {W.shape}")
    for name, array, shape in (("A", A, (n,)), ("XYZ", XYZ, (n, 3)), ("L", L, (6,))):
        if array.shape != shape:
            raise InputError(f"{name} must have shape {shape}, got {array.shape}")
    if W.min() < 1 or W.max() > T.n_letters[G]:
        raise InputError(f"letters of group {G} have indices 1 to {T.n_letters[G]}, got W = {W.tolist()}")
    if (W[1:] < T.successor[G, W[:-1]]).any():
        raise InputError(
            f"letters must not decrease, nor repeat where they leave no freedom, got {spelled(W)!r} in group {G}"
        )
    if A.min() < 1 or A.max() > N_ELEMENTS:
        raise InputError(f"atomic numbers A must be 1 to {N_ELEMENTS}, got {A.tolist()}")
    if not np.isfinite(XYZ).all() or XYZ.min() < 0 or XYZ.max() >= 1:
        raise InputError(f"coordinates XYZ must lie in [0, 1), got {XYZ.tolist()}")
    projection = T.projection[G, W]
    off = np.einsum("nij,nj->ni", projection[:, :, :3], XYZ) + projection[:, :, 3] - XYZ
    if np.abs(off - np.rint(off)).max() > 1e-3:
        site = int(np.abs(off - np.rint(off)).max(1).argmax())
        raise InputError(
            f"site {site} at {XYZ[site].tolist()} does not lie on the first operation of letter "
            f"{spelled(W)[site]!r} of group {G}"
        )
    _check_lattice(int(G), L)


def _check_lattice(G: int, L: NDArray[np.float64]) -> None:
    T = tables()
    if not np.isfinite(L).all() or L[:3].min() <= 0 or L[3:].min() <= 0 or L[3:].max() >= 180:
        raise InputError(f"lattice L must have positive lengths and angles between 0 and 180, got {L.tolist()}")
    if angle_volume(L[3:]) <= 0:
        raise InputError(f"no cell has the angles {L[3:].tolist()}")
    expected = np.where(T.lattice_angle[G] > 0, T.lattice_angle[G], L[T.lattice_source[G]])
    if not np.allclose(L, expected, rtol=1e-6, atol=1e-3):
        raise InputError(f"lattice L of group {G} must be of the form {expected.tolist()}, got {L.tolist()}")
