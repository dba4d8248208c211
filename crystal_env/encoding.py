"""From finished crystals back to the decisions that make them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.vocabulary import (
    FIRST_ELEMENT,
    N_SYMBOLS,
    STOP,
    Phase,
    Vocabulary,
    angle_to_unit,
    gamma_bounds,
    length_to_unit,
    unit_to_value,
)
from crystal_env.wyckoff import MAX_SITES, tables

_NEVER = -1
_ROUNDING = 1e-12  # of a unit value that comes from a number on a bound


class Decisions(NamedTuple):
    """The decisions of B crystals, left-aligned.

    Attributes:
        actions (B, T): action ids, -1 after the last one; in continuous mode (B, T, 2) of id and unit value.
        lengths (B,): number of decisions.
    """

    actions: NDArray[np.int64] | NDArray[np.float32]
    lengths: NDArray[np.int64]


def decisions(crystals: CrystalBatch, vocabulary: Vocabulary) -> Decisions:
    """Return the actions that lead an environment from its start to these crystals, numbers on the nearest bins.

    Raises:
        ValueError: if a length or an angle lies outside the bounds of the environment.
    """
    size = len(crystals)
    T, G, W = tables(), crystals.G, crystals.W[:, :MAX_SITES]
    tokens = np.zeros((size, MAX_SITES, 5), np.int64)
    units, used = np.zeros(tokens.shape), np.zeros(tokens.shape, bool)
    tokens[:, :, 0], tokens[:, :, 1] = W, crystals.A[:, :MAX_SITES] + FIRST_ELEMENT - 1
    units[:, :, 2:] = crystals.XYZ[:, :MAX_SITES]
    used[:, :, :2] = W[:, :, None] > 0
    used[:, :, 2:] = T.free_coordinates[G[:, None], W]
    if vocabulary.bins:
        bins = np.rint(units[:, :, 2:] * vocabulary.bins).astype(np.int64) % vocabulary.bins
        tokens[:, :, 2:] = N_SYMBOLS + bins
    lattice_tokens, lattice_units = _lattice(crystals, vocabulary)
    start = np.full((size, 1), vocabulary.first_group) + G[:, None] - 1
    stop = np.full((size, 1), STOP)
    tokens = np.concatenate([start, tokens.reshape(size, -1), stop, lattice_tokens], axis=1)
    units = np.concatenate([np.zeros((size, 1)), units.reshape(size, -1), np.zeros((size, 1)), lattice_units], axis=1)
    chooses, always = np.full((size, 1), vocabulary.chooses_group), np.ones((size, 1), bool)
    used = np.concatenate([chooses, used.reshape(size, -1), always, T.free_lattice[G]], axis=1)
    order = np.argsort(~used, axis=1, kind="stable")[:, : vocabulary.max_decisions]
    tokens = np.take_along_axis(np.where(used, tokens, _NEVER), order, axis=1)
    lengths = used.sum(1)
    if vocabulary.bins:
        return Decisions(tokens, lengths)
    units = np.take_along_axis(np.where(used, units, 0), order, axis=1)
    return Decisions(np.stack([tokens, units], axis=-1).astype(np.float32), lengths)


def _lattice(crystals: CrystalBatch, vocabulary: Vocabulary) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return ids and unit values (B, 6) of the lattice parameters."""
    bins, free = vocabulary.bins, tables().free_lattice[crystals.G]
    units = np.zeros((len(crystals), 6))
    units[:, :3] = length_to_unit(crystals.L[:, :3], crystals.n_atoms()[:, None])
    units[:, 3:] = angle_to_unit(crystals.L[:, 3:])
    outside = free & ((units < -_ROUNDING) | (units > 1 + _ROUNDING))
    if outside.any():
        row, parameter = np.argwhere(outside)[0]
        raise InputError(
            f"{outside.any(1).sum()} crystals have a lattice out of bounds; first is crystal {row} with "
            f"{Phase(Phase.A + parameter).name.lower()} = {crystals.L[row, parameter]:.6g}"
        )
    units = np.clip(units, 0, 1)
    tokens = np.full(units.shape, STOP)
    if bins:
        tokens[:, :3] = N_SYMBOLS + np.clip(np.floor(units[:, :3] * bins), 0, bins - 1).astype(np.int64)
        tokens[:, 3:] = N_SYMBOLS + np.clip(np.rint(units[:, 3:] * bins), 0, bins - 1).astype(np.int64)
    rows = np.flatnonzero(free[:, 5])
    if len(rows):
        low, high = _gamma_units(crystals, rows, tokens, vocabulary).T
        slack = 1 / bins if bins else 0.0
        if ((units[rows, 5] < low - slack) | (units[rows, 5] > high + slack)).any():
            raise InputError("a crystal has angles alpha, beta and gamma that make too flat a cell")
        if bins:
            nearest = np.clip(tokens[rows, 5] - N_SYMBOLS, np.ceil(low * bins), np.floor(high * bins))
            tokens[rows, 5] = N_SYMBOLS + nearest.astype(np.int64)
    return tokens, units


def _gamma_units(
    crystals: CrystalBatch, rows: NDArray[np.int64], tokens: NDArray[np.int64], vocabulary: Vocabulary
) -> NDArray[np.float64]:
    """Return the bounds (n, 2) of gamma's unit value, given alpha and beta as they will be played."""
    angles = crystals.L[rows, 3:5]
    if vocabulary.bins:
        units = vocabulary.unit[Phase.ALPHA][tokens[rows, 3:5]].ravel()
        phase, n_atoms = np.full(len(units), int(Phase.ALPHA)), np.ones(len(units), np.int64)
        angles = unit_to_value(units, phase, n_atoms).reshape(-1, 2)
    return angle_to_unit(gamma_bounds(angles[:, 0], angles[:, 1]))


def lattice_bins(crystals: CrystalBatch, n: int) -> NDArray[np.int64]:
    """Return the bins (B, 6) of the lattice parameters, -1 where a value is out of bounds."""
    lengths = length_to_unit(np.maximum(crystals.L[:, :3], 1e-9), np.maximum(crystals.n_atoms(), 1)[:, None])
    units = np.concatenate([lengths, angle_to_unit(crystals.L[:, 3:])], axis=1)
    bins = np.concatenate([np.floor(units[:, :3] * n), np.rint(units[:, 3:] * n)], axis=1)
    inside = (units >= -_ROUNDING) & (units <= 1 + _ROUNDING)
    return np.where(inside, np.clip(bins, 0, n - 1), -1).astype(np.int64)


def gamma_bins(bins: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Return which bins (B, n) of gamma are allowed after those of alpha and beta (B, 2)."""
    unit = Vocabulary(n).unit[Phase.GAMMA, N_SYMBOLS : N_SYMBOLS + n]
    angles = unit_to_value(unit[bins], np.full(bins.shape, int(Phase.ALPHA)), np.ones(bins.shape, np.int64))
    bounds = angle_to_unit(gamma_bounds(*angles.T))
    return (unit >= bounds[:, :1]) & (unit <= bounds[:, 1:])
