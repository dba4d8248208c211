"""Statistics of known crystals for the baselines: letters, elements, lattices, and substitutions of elements."""

from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from agents.supervised.training_data import impossible
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.encoding import LENGTH_BOUNDS
from crystal_env.errors import InputError
from crystal_env.wyckoff import N_ELEMENTS, N_GROUPS, N_LETTERS, tables

TRAINING_SET = "mp20_train.csv.gz"
"""The file of known crystals, in the folder $CRYSTALGEN_DATA."""

_MIN_VOLUME = 3.0  # Å^3 an atom


class TrainingSet:
    """Known crystals and their statistics.

    Args:
        crystals: B crystals.

    Raises:
        ValueError: if there are none.
    """

    def __init__(self, crystals: CrystalBatch) -> None:
        if not len(crystals):
            raise InputError("crystals must not be empty")
        self.crystals = crystals

    def rows_of(self, group: int) -> NDArray[np.int64]:
        """Return the rows of the crystals in a space group."""
        return np.flatnonzero(group == self.crystals.G)

    @cached_property
    def letters(self) -> NDArray[np.int64]:
        """Counts of letters (231, 28, 28): space group, letter before (0 = none), letter (0 = STOP)."""
        G, W = self.crystals.G, self.crystals.W
        before = np.concatenate([np.zeros((len(W), 1), np.int64), W[:, :-1]], axis=1)
        counts = np.zeros((N_GROUPS + 1, N_LETTERS, N_LETTERS), np.int64)
        is_decision = np.arange(W.shape[1]) <= self.crystals.n_sites()[:, None]
        np.add.at(counts, (np.broadcast_to(G[:, None], W.shape)[is_decision], before[is_decision], W[is_decision]), 1)
        return counts

    @cached_property
    def elements(self) -> NDArray[np.int64]:
        """Counts of sites with an element (231, 119), by space group."""
        counts = np.zeros((N_GROUPS + 1, N_ELEMENTS + 1), np.int64)
        np.add.at(counts, (self.crystals.G[:, None], self.crystals.A), 1)
        counts[:, 0] = 0
        return counts

    @cached_property
    def volumes(self) -> NDArray[np.float64]:
        """Atomic volumes (119,) in Å^3 of the elements, fitted to the cells; the mean where there is no fit."""
        fractions = self.crystals.composition().astype(np.float64)
        fractions /= fractions.sum(1, keepdims=True)
        per_atom = self.crystals.volume_per_atom()
        fitted = nnls(fractions, per_atom)[0]
        return np.where(fitted > _MIN_VOLUME, fitted, per_atom.mean())

    @cached_property
    def substitutes(self) -> NDArray[np.float64]:
        """Probabilities (119, 119) that an element (row) is exchanged for another one (column).

        They are counted over pairs of crystals with the same space group and letters that differ in one element (after
        Hautier et al., Inorg. Chem. 50, 656 (2011), without their oxidation states). A row is 0 for elements without
        such a pair.
        """
        counts = np.zeros((N_ELEMENTS + 1, N_ELEMENTS + 1))
        places: dict[tuple[int, bytes, bytes], set[int]] = {}
        for G, W, A in zip(self.crystals.G.tolist(), self.crystals.W, self.crystals.A, strict=True):
            for Z in np.unique(A[A > 0]).tolist():
                places.setdefault((G, W.tobytes(), np.where(A == Z, -1, A).tobytes()), set()).add(Z)
        for found in places.values():
            Z = np.array(sorted(found))
            counts[Z[:, None], Z] += 1
        np.fill_diagonal(counts, 0)
        return counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def lattices(self, groups: NDArray[np.int64], rng: np.random.Generator) -> CrystalBatch:
        """Sample crystals (N,) whose lattices the space groups (N,) can have, of the same group if there are any."""
        T, G = tables(), self.crystals.G
        rows = np.zeros(len(groups), np.int64)
        for group in np.unique(groups):
            pool = self.rows_of(int(group))
            if not len(pool):
                same = (T.lattice_source[G] == T.lattice_source[group]).all(1)
                pool = np.flatnonzero(same & (T.lattice_angle[G] == T.lattice_angle[group]).all(1))
            if not len(pool):
                raise InputError(f"the known crystals have no lattice that space group {group} could have")
            at = np.flatnonzero(groups == group)
            rows[at] = pool[rng.integers(len(pool), size=len(at))]
        return self.crystals[rows]

    def fitted(self, crystals: CrystalBatch, models: CrystalBatch) -> CrystalBatch:
        """Return crystals (B,) with the lattices of models (B,), their volumes scaled by those of the atoms."""
        ratio = _atoms_volume(crystals, self.volumes) / _atoms_volume(models, self.volumes)
        L = models.L.copy()
        shortest, longest = (bound * np.cbrt(crystals.n_atoms()) for bound in LENGTH_BOUNDS)
        L[:, :3] = np.clip(L[:, :3] * np.cbrt(ratio)[:, None], shortest[:, None], longest[:, None])
        return CrystalBatch(crystals.G, crystals.W, crystals.A, crystals.XYZ, L)


@lru_cache(maxsize=4)
def load_training_set(path: str = TRAINING_SET) -> TrainingSet:
    """Return the crystals of a file that the environment can build; encoding them takes a minute, once.

    Args:
        path: a file that `crystal_env.load_crystals` reads, or the name of one in the folder $CRYSTALGEN_DATA.

    Raises:
        ValueError: if there is no such file, or no crystal in it.
    """
    file = Path(path) if Path(path).exists() else data_folder() / path
    if not file.exists():
        raise InputError(f"training_set {path} must be a file of crystals, or one in $CRYSTALGEN_DATA: {data_folder()}")
    crystals = load_crystals(file).crystals
    return TrainingSet(crystals[np.setdiff1d(np.arange(len(crystals)), list(impossible(crystals)))])


def choose(weights: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Sample a column (n,) of weights (n, k) for each row."""
    cumulative = weights.cumsum(1)
    return (cumulative <= (rng.random(len(weights)) * cumulative[:, -1])[:, None]).sum(1)


def _atoms_volume(crystals: CrystalBatch, volumes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the volume (B,) in Å^3 that the atoms of the conventional cells take up."""
    return (crystals.composition(primitive=False) * volumes).sum(1)
