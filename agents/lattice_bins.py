"""Lattices on the bins of the discrete environment."""

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.vocabulary import (
    N_SYMBOLS,
    Phase,
    Vocabulary,
    angle_to_unit,
    gamma_bounds,
    length_to_unit,
    unit_to_value,
)

_SLACK = 1e-12  # the unit value of a number at a bound may be rounded past it


def lattice_bins(crystals: CrystalBatch, n: int) -> NDArray[np.int64]:
    """Return the bins (B, 6) of the lattice parameters, -1 where a value is out of bounds."""
    lengths = length_to_unit(np.maximum(crystals.L[:, :3], 1e-9), np.maximum(crystals.n_atoms(), 1)[:, None])
    units = np.concatenate([lengths, angle_to_unit(crystals.L[:, 3:])], axis=1)
    bins = np.concatenate([np.floor(units[:, :3] * n), np.rint(units[:, 3:] * n)], axis=1)
    inside = (units >= -_SLACK) & (units <= 1 + _SLACK)
    return np.where(inside, np.clip(bins, 0, n - 1), -1).astype(np.int64)


def gamma_bins(bins: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Return which bins (B, n) of gamma are allowed after those of alpha and beta (B, 2)."""
    unit = Vocabulary(n).unit[Phase.GAMMA, N_SYMBOLS : N_SYMBOLS + n]
    angles = unit_to_value(unit[bins], np.full(bins.shape, int(Phase.ALPHA)), np.ones(bins.shape, np.int64))
    bounds = angle_to_unit(gamma_bounds(*angles.T))
    return (unit >= bounds[:, :1]) & (unit <= bounds[:, 1:])
