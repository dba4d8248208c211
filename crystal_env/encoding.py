"""The numbers of a crystal as an environment represents them, and the decisions that build a crystal.

A number has three forms. Its *value* is a fractional coordinate, a length in Å or an angle in degrees. Its *normalised
value* u lies in [0, 1]: a coordinate is u modulo 1; a length is ``n_atoms**(1/3) * 0.7 Å * (40 / 0.7)**u`` with the
atoms of the conventional cell; an angle is ``30° + 120° u``. These bounds contain every crystal of MP-20. Its *bin* b
is one of n: that of a coordinate or an angle sits at u = b / n, so that special fractions, 90° and 120° are exact, that
of a length at u = (b + 1/2) / n (`Vocabulary.normalised`).

A free gamma is bounded by alpha and beta, so that the cell exists and is not too flat (`gamma_bounds`).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crystal_env.errors import InputError
from crystal_env.geometry import multiplicities
from crystal_env.vocabulary import FIRST_ELEMENT, N_SYMBOLS, STOP, Phase, Vocabulary
from crystal_env.wyckoff import MAX_SITES, tables

LENGTH_BOUNDS = (0.7, 40.0)
"""Bounds of a / n_atoms^(1/3) in Å, n_atoms in the conventional cell."""
ANGLE_BOUNDS = (30.0, 150.0)
"""Bounds of the cell angles in degrees."""
MIN_ANGLE_VOLUME = 0.1
"""Smallest V / (a b c) of a cell whose three angles are free."""

_LOG_LENGTH = float(np.log(LENGTH_BOUNDS[0])), float(np.log(LENGTH_BOUNDS[1] / LENGTH_BOUNDS[0]))
_ANGLE = ANGLE_BOUNDS[0], ANGLE_BOUNDS[1] - ANGLE_BOUNDS[0]
_FIRST_LENGTH, _FIRST_ANGLE = int(Phase.A), int(Phase.ALPHA)
_ROUNDING = 1e-12  # of the normalised value of a number on a bound
_PAD = -1


class Decisions(NamedTuple):
    """The decisions of B crystals, left-aligned.

    Attributes:
        actions (B, T): action ids, -1 after the last one; in continuous mode (B, T, 2) of id and normalised value.
        lengths (B,): number of decisions.
    """

    actions: NDArray[np.int64] | NDArray[np.float32]
    lengths: NDArray[np.int64]


def denormalise(u: NDArray[np.float64], phase: NDArray[np.int64], n_atoms: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return coordinates, lengths in Å and angles in degrees (n,) for normalised values (n,) in numeric phases (n,)."""
    lengths = np.exp(_LOG_LENGTH[0] + _LOG_LENGTH[1] * u) * np.cbrt(n_atoms)
    angles = _ANGLE[0] + _ANGLE[1] * u
    return np.where(phase < _FIRST_LENGTH, u % 1, np.where(phase < _FIRST_ANGLE, lengths, angles))


def normalise_length(length: ArrayLike, n_atoms: ArrayLike) -> NDArray[np.float64]:
    """Return normalised values of lengths in Å; outside [0, 1] they are out of bounds."""
    return (np.log(np.asarray(length) / np.cbrt(n_atoms)) - _LOG_LENGTH[0]) / _LOG_LENGTH[1]


def normalise_angle(angle: ArrayLike) -> NDArray[np.float64]:
    """Return normalised values of angles in degrees; outside [0, 1] they are out of bounds."""
    return (np.asarray(angle) - _ANGLE[0]) / _ANGLE[1]


def normalise_lattice(L: NDArray[np.float64], n_atoms: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return normalised values (B, 6) of lattices (B, 6) whose conventional cells hold ``n_atoms`` (B,)."""
    return np.concatenate([normalise_length(L[:, :3], n_atoms[:, None]), normalise_angle(L[:, 3:])], axis=1)


def gamma_bounds(alpha: NDArray[np.float64], beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bounds (n, 2) of gamma in degrees, so that a cell with alpha and beta (n,) has V / abc of at least 0.1."""
    alpha, beta = np.radians(alpha), np.radians(beta)
    cosines = gamma_cosines(np.cos(alpha) * np.cos(beta), np.sin(alpha) * np.sin(beta))
    bounds = np.degrees(np.arccos(np.clip(cosines, -1, 1))).T
    return np.clip(bounds, *ANGLE_BOUNDS)


def gamma_cosines(cosines: Any, sines: Any) -> tuple[Any, Any]:
    """Return the cosines of the lower and the upper bound of gamma, which may lie outside [-1, 1].

    From (V / abc)^2 = sin^2(alpha) sin^2(beta) - (cos(gamma) - cos(alpha) cos(beta))^2.

    Args:
        cosines: cos(alpha) cos(beta), a numpy array or a tensor of any shape.
        sines: sin(alpha) sin(beta), likewise.
    """
    half = (sines**2 - MIN_ANGLE_VOLUME**2) ** 0.5
    return cosines + half, cosines - half


def gamma_allowed(u: NDArray[np.float64], alpha: NDArray[np.float64], beta: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which normalised values u (k,) of gamma are allowed (n, k) after alpha and beta (n,) in degrees."""
    bounds = normalise_angle(gamma_bounds(alpha, beta))
    return (u >= bounds[:, :1]) & (u <= bounds[:, 1:])


def bin_values(bins: NDArray[np.int64], phase: ArrayLike, n_atoms: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return the values (...) that bins (...) of n stand for: coordinates, lengths in Å, angles in degrees."""
    phases = np.asarray(phase)
    return denormalise(Vocabulary(n).normalised[phases, N_SYMBOLS + bins], phases, np.asarray(n_atoms))


def lattice_bins(L: NDArray[np.float64], n_atoms: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the nearest of n bins (B, 6) of lattice parameters (B, 6), -1 where a value is out of bounds."""
    u = normalise_lattice(np.concatenate([np.maximum(L[:, :3], 1e-9), L[:, 3:]], axis=1), np.maximum(n_atoms, 1))
    return np.where(_is_inside(u), _nearest_bins(u, n), _PAD).astype(np.int64)


def gamma_bins(bins: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Return which of n bins (B, n) of gamma are allowed after those of alpha and beta (B, 2)."""
    angles = bin_values(bins, _FIRST_ANGLE, 1, n)
    return gamma_allowed(Vocabulary(n).normalised[Phase.GAMMA, N_SYMBOLS : N_SYMBOLS + n], *angles.T)


def decisions(
    G: NDArray[np.int64],
    W: NDArray[np.int64],
    A: NDArray[np.int64],
    XYZ: NDArray[np.float64],
    L: NDArray[np.float64],
    vocabulary: Vocabulary,
) -> Decisions:
    """Return the actions that lead an environment from its start to B crystals, numbers on the nearest bins.

    Raises:
        ValueError: if a length or an angle lies outside the bounds of the environment.
    """
    size = len(G)
    T, W = tables(), W[:, :MAX_SITES]
    tokens = np.zeros((size, MAX_SITES, 5), np.int64)
    u, used = np.zeros(tokens.shape), np.zeros(tokens.shape, bool)
    tokens[:, :, 0], tokens[:, :, 1] = W, A[:, :MAX_SITES] + FIRST_ELEMENT - 1
    u[:, :, 2:] = XYZ[:, :MAX_SITES]
    used[:, :, :2] = W[:, :, None] > 0
    used[:, :, 2:] = T.free_coordinates[G[:, None], W]
    if vocabulary.bins:
        bins = np.rint(u[:, :, 2:] * vocabulary.bins).astype(np.int64) % vocabulary.bins
        tokens[:, :, 2:] = N_SYMBOLS + bins
    lattice_tokens, lattice_u = _lattice(L, multiplicities(G, W).sum(1), T.free_lattice[G], vocabulary)
    start = np.full((size, 1), vocabulary.first_group) + G[:, None] - 1
    stop = np.full((size, 1), STOP)
    tokens = np.concatenate([start, tokens.reshape(size, -1), stop, lattice_tokens], axis=1)
    u = np.concatenate([np.zeros((size, 1)), u.reshape(size, -1), np.zeros((size, 1)), lattice_u], axis=1)
    chooses, always = np.full((size, 1), vocabulary.chooses_group), np.ones((size, 1), bool)
    used = np.concatenate([chooses, used.reshape(size, -1), always, T.free_lattice[G]], axis=1)
    order = np.argsort(~used, axis=1, kind="stable")[:, : vocabulary.max_decisions]
    tokens = np.take_along_axis(np.where(used, tokens, _PAD), order, axis=1)
    lengths = used.sum(1)
    if vocabulary.bins:
        return Decisions(tokens, lengths)
    u = np.take_along_axis(np.where(used, u, 0), order, axis=1)
    return Decisions(np.stack([tokens, u], axis=-1).astype(np.float32), lengths)


def _is_inside(u: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (u >= -_ROUNDING) & (u <= 1 + _ROUNDING)


def _nearest_bins(u: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the nearest bins (B, 6), whole numbers, of the normalised values of lattices (B, 6)."""
    return np.clip(np.concatenate([np.floor(u[:, :3] * n), np.rint(u[:, 3:] * n)], axis=1), 0, n - 1)


def _lattice(
    L: NDArray[np.float64], n_atoms: NDArray[np.int64], free: NDArray[np.bool_], vocabulary: Vocabulary
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return ids and normalised values (B, 6) of the lattice parameters, of which some are free (B, 6)."""
    n = vocabulary.bins
    u = normalise_lattice(L, n_atoms)
    _check_bounds(L, free & ~_is_inside(u))
    u = np.clip(u, 0, 1)
    bins = _nearest_bins(u, n).astype(np.int64) if n else np.full(u.shape, STOP - N_SYMBOLS)
    rows = np.flatnonzero(free[:, 5])
    if len(rows):
        angles = bin_values(bins[rows, 3:5], _FIRST_ANGLE, 1, n) if n else L[rows, 3:5]
        low, high = normalise_angle(gamma_bounds(*angles.T)).T
        slack = 1 / n if n else 0.0
        if ((u[rows, 5] < low - slack) | (u[rows, 5] > high + slack)).any():
            raise InputError("a crystal has angles alpha, beta and gamma that make too flat a cell")
        if n:
            bins[rows, 5] = np.clip(bins[rows, 5], np.ceil(low * n), np.floor(high * n)).astype(np.int64)
    return N_SYMBOLS + bins, u


def _check_bounds(L: NDArray[np.float64], outside: NDArray[np.bool_]) -> None:
    if outside.any():
        row, parameter = np.argwhere(outside)[0]
        low, high = LENGTH_BOUNDS if parameter < 3 else ANGLE_BOUNDS
        per_atom = " Å times the cube root of the atoms of the cell" if parameter < 3 else "°"
        raise InputError(
            f"{outside.any(1).sum()} crystals have a lattice out of bounds; first is crystal {row} with "
            f"{Phase(Phase.A + parameter).name.lower()} = {L[row, parameter]:.6g}, "
            f"allowed is {low:g} to {high:g}{per_atom}"
        )
