"""Crystals to test with: known ones, random ones of every group, and the first of MP-20."""

import warnings

import numpy as np
import pandas as pd
import pytest
import spglib

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.geometry import angle_volume
from crystal_env.wyckoff import tables

ROCK_SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
PEROVSKITE = "221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.905-3.905-3.905-90-90-90"
WURTZITE = "186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.382-X-3.25-3.25-5.21-90-90-120"


@pytest.fixture
def rock_salt() -> Crystal:
    return Crystal.from_string(ROCK_SALT)


@pytest.fixture
def perovskite() -> Crystal:
    return Crystal.from_string(PEROVSKITE)


@pytest.fixture
def wurtzite() -> Crystal:
    return Crystal.from_string(WURTZITE)


@pytest.fixture
def batch(rock_salt, perovskite, wurtzite) -> CrystalBatch:
    return CrystalBatch.from_crystals([rock_salt, perovskite, wurtzite])


@pytest.fixture(scope="session")
def mp20_cifs(data_folder) -> list[str]:
    """The first 300 CIF texts of MP-20's validation set."""
    return list(pd.read_csv(data_folder / "mp20_val.csv.gz", nrows=300, keep_default_na=False)["cif"])


@pytest.fixture(scope="session")
def mp20(mp20_cifs) -> CrystalBatch:
    return CrystalBatch.from_structures(mp20_cifs)


@pytest.fixture(scope="session")
def spglib_operations():
    """A function from a group to spglib's operations in the setting of the tables: rotations and translations."""
    halls: dict[int, int] = {}
    with warnings.catch_warnings():  # spglib announces another way to report errors
        warnings.simplefilter("ignore", DeprecationWarning)
        for hall in range(1, 531):
            kind = spglib.get_spacegroup_type(hall)
            if kind.number not in halls or kind.choice in ("2", "H"):
                halls[kind.number] = hall
        operations = {group: spglib.get_symmetry_from_database(hall) for group, hall in halls.items()}
    return lambda group: (operations[group]["rotations"], operations[group]["translations"])


def random_lattice(G: int, rng: np.random.Generator, volume: float) -> np.ndarray:
    T = tables()
    while True:
        L = np.concatenate([rng.uniform(0.7, 1.4, 3), rng.uniform(65, 115, 3)])[T.lattice_source[G]]
        L = np.where(T.lattice_angle[G] > 0, T.lattice_angle[G], L)
        shape = angle_volume(L[3:])
        if shape > 0.2:
            L[:3] *= (volume / (L[:3].prod() * np.sqrt(shape))) ** (1 / 3)
            return L


@pytest.fixture(scope="session")
def random_crystal():
    """A function (G, rng) -> a crystal of several sites without short distances, and no more symmetry than G."""

    def make(G: int, rng: np.random.Generator) -> Crystal:
        T = tables()
        general = int(T.n_letters[G])
        n_general = int(np.clip(48 // T.multiplicity[G, general], 1, 3))
        special = [0]
        while len(special) < 4:
            allowed = np.flatnonzero(T.next_letter[G, special[-1]])
            special.append(int(rng.choice(allowed[allowed > 0]))) if allowed.any() else special.append(general)
        W = np.array([w for w in special[1:] if w < general] + [general] * n_general)
        projection = T.projection[G, W]
        while True:
            XYZ = np.einsum("nij,nj->ni", projection[:, :, :3], rng.random((len(W), 3))) + projection[:, :, 3]
            A = rng.choice(np.arange(3, 84), len(W), replace=False)
            L = random_lattice(G, rng, 25.0 * T.multiplicity[G, W].sum())
            crystal = Crystal(G, W, A, XYZ - np.floor(XYZ), L)
            if crystal.to_batch().min_distance(cutoff=0.8)[0] == 0.8:
                return crystal

    return make


@pytest.fixture(scope="session")
def disguise():
    """A function (crystal, rng) -> the arrays of the same crystal in another cell, origin, order and orientation."""

    def make(crystal: Crystal, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        atoms = crystal.to_batch().expand(primitive=True)
        lattice, frac, numbers = atoms.lattice[0], atoms.frac, atoms.numbers
        axis, copies = rng.integers(3), int(rng.integers(1, 3))
        scale = np.where(np.arange(3) == axis, copies, 1)
        frac = np.concatenate([(frac + k * np.eye(3)[axis]) / scale for k in range(copies)])
        numbers, lattice = np.tile(numbers, copies), lattice * scale[:, None]
        basis = np.eye(3)
        for _ in range(3):
            i, j = rng.choice(3, 2, replace=False)
            basis[i] += rng.integers(-1, 2) * basis[j]
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        rotation *= np.sign(np.linalg.det(rotation))
        order = rng.permutation(len(numbers))
        moved = frac @ np.linalg.inv(basis) + rng.random(3)
        return basis @ lattice @ rotation, (moved - np.floor(moved))[order], numbers[order]

    return make
