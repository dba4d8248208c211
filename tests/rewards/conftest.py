"""Crystals, a small hull and a potential without a model to test rewards with."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch

from crystal_env.crystal import Crystal, CrystalBatch
from rewards.hull.convex_hull import ConvexHull
from rewards.hull.file_format import Provenance
from rewards.potentials import Energies

STRINGS = (
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90",
    "221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.905-3.905-3.905-90-90-90",
    "186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.382-X-3.25-3.25-5.21-90-90-120",
    "225-a-La-0-0-0-c-H-1/4-1/4-1/4-f-H-0.12-0.12-0.12-X-5.1-5.1-5.1-90-90-90",
    "229-a-Fe-0-0-0-X-2.87-2.87-2.87-90-90-90",
)


@dataclass
class PairPotential:
    """An energy of minus one eV per atom and what its volume adds; it fails on gold, and counts its structures."""

    name: str = "pair"
    scale: str = "pairs"
    seen: list[int] = field(default_factory=list, compare=False)

    def energies(self, atoms):
        self.seen.append(len(atoms))
        total = np.array([np.nan if 79 in a.numbers else 0.01 * a.get_volume() - len(a) for a in atoms])
        failures = np.array(["no gold" if np.isnan(e) else None for e in total], object)
        return Energies(total.reshape(len(atoms)), failures.reshape(len(atoms)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Two test processes with two threads each would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def crystals() -> CrystalBatch:
    """Rock salt, a perovskite, wurtzite, LaH10 and bcc iron."""
    return CrystalBatch.from_crystals(Crystal.from_string(string) for string in STRINGS)


@pytest.fixture
def pair_potential() -> PairPotential:
    return PairPotential()


@pytest.fixture
def pair_hull() -> ConvexHull:
    """A hull on the scale of `PairPotential`: all elements but lithium at -1, and one compound."""
    symbols = ("Na", "Cl", "Sr", "Ti", "O", "Zn", "La", "H", "Fe", "Au", "Al")
    entries = [(symbol, -1.0) for symbol in symbols] + [("NaCl", -3.0)]
    return ConvexHull.from_entries(entries, Provenance(energy_model="pair"))


@pytest.fixture(scope="session")
def mp20_rows(data_folder) -> pd.DataFrame:
    """Twenty rows of MP-20's validation set with at most 8 atoms."""
    rows = pd.read_csv(data_folder / "mp20_val.csv.gz", nrows=400, keep_default_na=False)
    return rows[rows["n_atoms"] <= 8].head(20)


@pytest.fixture(scope="session")
def mp20(mp20_rows) -> CrystalBatch:
    return CrystalBatch.from_structures(mp20_rows["cif"])
