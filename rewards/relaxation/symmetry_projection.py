"""Projection of forces and stress onto the symmetry of a crystal."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env import geometry
from crystal_env.crystal import CrystalBatch
from crystal_env.symmetry import normaliser

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal


class SymmetryProjection(NamedTuple):
    """The action of a crystal's m rotations on the n atoms of its primitive cell.

    Attributes:
        rotations (m, 3, 3): Cartesian rotations, acting on row vectors from the right.
        source (m, n): index of the atom that each rotation maps onto an atom.
    """

    rotations: NDArray[np.float64]
    source: NDArray[np.int64]

    def forces(self, forces: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return vectors (n, 3) on the atoms, averaged over the operations."""
        return np.einsum("mni,mij->nj", forces[self.source], self.rotations) / len(self.rotations)

    def stress(self, stress: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a tensor (3, 3), averaged over the rotations, and symmetric."""
        mean = np.einsum("mji,jk,mkl->il", self.rotations, stress, self.rotations) / len(self.rotations)
        return (mean + mean.T) / 2


def symmetry_projection(crystal: "Crystal") -> SymmetryProjection:
    """Return the operations of a crystal on its primitive cell, the atoms in the order of `Crystal.to_atoms`.

    Raises:
        ValueError: if an operation does not map the atoms onto each other, as in a hand-made crystal whose coordinates
            do not lie on its letters.
    """
    batch = CrystalBatch.from_crystals([crystal])
    conventional = geometry.lattice_vectors(batch.L)[0]
    cell = batch.expand(primitive=True)
    atoms = cell.frac @ cell.lattice[0]
    rotations, shifts = normaliser.general_operations(crystal.G)
    _, first = np.unique(rotations.reshape(-1, 9), axis=0, return_index=True)  # centring only repeats them
    matrices = np.linalg.inv(conventional) @ rotations[first].swapaxes(1, 2) @ conventional
    moved = np.einsum("ni,mij->mnj", atoms, matrices) + (shifts[first] / 24 @ conventional)[:, None]
    apart = (moved[:, :, None] - atoms) @ np.linalg.inv(cell.lattice[0])  # (m, from, to, 3)
    apart -= np.rint(apart)
    distance = np.linalg.norm(apart @ cell.lattice[0], axis=-1) + 1e3 * (cell.numbers[:, None] != cell.numbers)
    source = distance.argmin(1)
    if np.take_along_axis(distance, source[:, None], 1).max() > 1e-3:
        raise ValueError("the crystal does not have the symmetry of its space group")
    return SymmetryProjection(matrices, source)
