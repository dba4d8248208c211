"""Limits that a crystal must meet before a model runs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystal_env import geometry
from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch
from crystal_env.reward import without_failure
from crystal_env.wyckoff import tables


@dataclass(frozen=True)
class Screen:
    """Rejects crystals that would break a model or cost too much.

    The defaults contain all of MP-20 with a margin (train and val: shortest distance 0.74 Å, volumes 5.8 to 202 Å^3
    per atom, at most 20 atoms, thickness 1.96 Å), keep dense hydrides (LaH10: 3 Å^3 per atom), and bound a potential's
    cost, which grows with the square of the density.

    Args:
        min_distance: shortest interatomic distance in Å, an atom's own periodic images included.
        min_volume: lowest volume per atom in Å^3.
        max_volume: highest volume per atom in Å^3, beyond which the structure is a gas.
        max_atoms: highest number of atoms in the primitive cell.
        min_thickness: shortest distance in Å between opposite faces of the primitive cell; a flatter one takes
            millions of periodic images.

    Raises:
        ValueError: if a limit is negative or not finite, or the range of volumes is empty.
    """

    min_distance: float = 0.5
    min_volume: float = 2.0
    max_volume: float = 300.0
    max_atoms: int = 200
    min_thickness: float = 1.0

    def __post_init__(self) -> None:
        for name in ("min_distance", "min_volume", "min_thickness"):
            finite_number(name, getattr(self, name), least=0)
        finite_number("max_volume", self.max_volume, above=self.min_volume)
        integer("max_atoms", self.max_atoms, least=1)

    def __call__(self, crystals: CrystalBatch) -> NDArray[np.object_]:
        """Return for every crystal (B,) None or the reason why it is rejected."""
        reasons = np.full(len(crystals), None, object)

        def reject(rows: NDArray[np.int64], values: NDArray[Any], text: str) -> None:
            for row, value in zip(rows, values[rows], strict=True):
                reasons[row] = reasons[row] or text.format(value)

        atoms, volume = crystals.n_atoms(primitive=True), crystals.volume_per_atom()
        thickness, distance = cell_thickness(crystals), np.full(len(crystals), np.inf)
        reject(
            np.flatnonzero((atoms < 1) | (atoms > self.max_atoms)),
            atoms,
            f"{{}} atoms in the primitive cell, allowed are 1 to {self.max_atoms}",
        )
        reject(
            np.flatnonzero(~((volume >= self.min_volume) & (volume <= self.max_volume))),
            volume,
            f"{{:.3g}} Å^3 per atom, allowed are {self.min_volume:g} to {self.max_volume:g}",
        )
        reject(
            np.flatnonzero(thickness < self.min_thickness),
            thickness,
            f"the primitive cell is {{:.3g}} Å thin, at least {self.min_thickness:g} is needed",
        )
        passed = without_failure(reasons)
        if len(passed):
            distance[passed] = crystals[passed].min_distance(self.min_distance)
        reject(
            np.flatnonzero(distance < self.min_distance),
            distance,
            f"two atoms are {{:.3g}} Å apart, at least {self.min_distance:g} is needed",
        )
        return reasons


def cell_thickness(crystals: CrystalBatch) -> NDArray[np.float64]:
    """Return the shortest distance (B,) in Å between opposite faces of the primitive cell, 0 where it has none."""
    with np.errstate(divide="ignore", invalid="ignore"):  # lattice parameters without a cell give NaN
        lattice = tables().primitive_vectors[crystals.G] @ geometry.lattice_vectors(crystals.L)
    normals = np.cross(lattice[:, [1, 2, 0]], lattice[:, [2, 0, 1]])
    volume = np.abs(np.einsum("bi,bi->b", lattice[:, 0], normals[:, 0]))
    area = np.linalg.norm(normals, axis=-1).max(1)
    thickness = np.zeros(len(crystals))
    np.divide(volume, area, out=thickness, where=area > 0)
    return thickness
