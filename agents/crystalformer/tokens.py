"""Crystals as tensors: what the network reads."""

from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crystal_env.crystal import CrystalBatch
from crystal_env.grammar.state import CrystalStates
from crystal_env.wyckoff import N_SLOTS, tables


class Tokens(NamedTuple):
    """B crystals in n slots.

    Attributes:
        G (B,): space groups.
        W (B, n): letters, 0 = pad.
        A (B, n): atomic numbers, 0 = pad.
        XYZ (B, n, 3): fractional coordinates of the representatives.
        L (B, 6): lengths divided by the cube root of the atoms in the conventional cell, in Å; angles in radians.
    """

    G: Tensor
    W: Tensor
    A: Tensor
    XYZ: Tensor
    L: Tensor

    @classmethod
    def from_crystals(
        cls, crystals: CrystalBatch, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Self:
        """Return crystals as tensors, with one slot more than the crystal of most sites has."""
        n = int(crystals.n_sites().max(initial=0)) + 1
        W, A, XYZ = (_slots(array, n) for array in (crystals.W, crystals.A, crystals.XYZ))
        return cls(
            torch.from_numpy(crystals.G).to(device),
            torch.from_numpy(W).to(device),
            torch.from_numpy(A).to(device),
            torch.from_numpy(XYZ).to(device, dtype),
            torch.from_numpy(normalised_lattice(crystals)).to(device, dtype),
        )

    @classmethod
    def from_states(cls, states: CrystalStates, dtype: torch.dtype, device: torch.device) -> Self:
        """Return unfinished crystals as tensors, as far as they are decided; the lattice is left out."""
        rows, n = np.arange(len(states)), min(int(states.site.max(initial=0)) + 2, N_SLOTS)
        every = np.repeat(rows, n), np.tile(np.arange(n), len(rows))
        W, A, XYZ = states.site_of(*every)
        return cls(
            torch.from_numpy(states.G.copy()).to(device),
            torch.from_numpy(W.reshape(-1, n)).to(device),
            torch.from_numpy(A.reshape(-1, n)).to(device),
            torch.from_numpy(XYZ.reshape(-1, n, 3)).to(device, dtype),
            torch.zeros(len(rows), 6, dtype=dtype, device=device),
        )


def _slots(array: NDArray[Any], n: int) -> NDArray[Any]:
    """Return the first n slots (B, n, ...), a full crystal having one empty slot more."""
    return array[:, :n] if n <= array.shape[1] else np.pad(array, [(0, 0), (0, 1), (0, 0)][: array.ndim])


def normalised_lattice(crystals: CrystalBatch) -> NDArray[np.float64]:
    """Return lengths per cube root of the number of atoms in Å, and angles in radians (B, 6)."""
    n_atoms = tables().multiplicity[crystals.G[:, None], crystals.W].sum(1)
    return np.concatenate(
        [crystals.L[:, :3] / np.cbrt(np.maximum(n_atoms, 1))[:, None], np.radians(crystals.L[:, 3:])], axis=1
    )
