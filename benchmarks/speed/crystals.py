"""Time to encode, decode and score a crystal, compared with the ways of pymatgen and spglib.

Run ``python -m benchmarks.speed.crystals`` with ``$CRYSTALGEN_DATA`` at the folder that holds ``mp20_val.csv.gz``.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch
import tyro
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from benchmarks.speed.timing import seconds
from crystal_env import Crystal, CrystalBatch
from crystal_env.dataset import data_folder, read_structures
from rewards import EnergyAboveHull, load_potential
from rewards.potentials import Energies, Potential

if TYPE_CHECKING:
    from ase import Atoms


def main(path: Path | None = None, crystals: int = 1000, structures: int = 200, repeats: int = 3) -> None:
    """Measure, and print a table in milliseconds per crystal.

    Args:
        path: File of structures, by default mp20_val.csv.gz in the data folder.
        crystals: Crystals decoded and scored.
        structures: Structures parsed and encoded.
        repeats: Repeats of every measurement; the median is printed.
    """
    sources = list(read_structures(path or data_folder() / "mp20_val.csv.gz"))[:crystals]
    parsed = [Structure.from_str(str(cif), fmt="cif") for cif in sources[:structures]]
    batch = CrystalBatch.from_structures(sources)
    few = batch[: len(parsed)]

    def line(name: str, work: object, count: int) -> None:
        print(f"{name:<58}{seconds(work, repeats) / count * 1e3:>10.3f} ms", flush=True)  # type: ignore[arg-type]

    line("CIF text to pymatgen Structure (pymatgen)", lambda: [_parse(cif) for cif in sources[:structures]], structures)
    line("Structure to Crystal", lambda: [Crystal.from_structure(s) for s in parsed], len(parsed))
    line("Structure to refined Structure (pymatgen, spglib)", lambda: [_refined(s) for s in parsed], len(parsed))
    line("crystal to actions", batch.to_actions, len(batch))
    line("crystal to arrays of all atoms, primitive", lambda: batch.expand(primitive=True), len(batch))
    line("crystal to ASE atoms, primitive", batch.to_atoms, len(batch))
    line("crystal to Structure, conventional", batch.to_structures, len(batch))
    line("Structure from space group and sites (pymatgen)", lambda: [_from_spacegroup(c) for c in few[:20]], 20)
    _energies(batch, repeats)


def _parse(cif: object) -> Structure:
    return Structure.from_str(str(cif), fmt="cif")


def _refined(structure: Structure) -> Structure:
    return SpacegroupAnalyzer(structure).get_refined_structure()


def _from_spacegroup(crystal: Crystal) -> Structure:
    structure = crystal.to_structure()
    species = [structure[0].specie.from_Z(int(z)) for z in crystal.A]
    return Structure.from_spacegroup(crystal.G, structure.lattice, species, list(crystal.XYZ))


def _energies(batch: CrystalBatch, repeats: int) -> None:
    """Time the reward, and inside it the calls of CHGNet: graphs and network."""
    reward, potential = EnergyAboveHull(), load_potential("chgnet")
    reward(batch)
    totals, fractions = [], []
    for _ in range(repeats):
        timed = TimedPotential(potential)
        reward.potential = timed
        start = time.perf_counter()
        reward(batch)
        totals.append(time.perf_counter() - start)
        fractions.append(timed.seconds / totals[-1])
    print(
        f"energy above hull of {len(batch)} crystals: {median(totals):.2f} s, {median(fractions):.1%} of it in CHGNet"
    )
    print(f"({torch.get_num_threads()} threads on {os.cpu_count()} cores, {batch.n_atoms(True).mean():.1f} atoms each)")


class TimedPotential:
    """A potential that measures its own time.

    Attributes:
        seconds: wall time spent in it.
    """

    def __init__(self, potential: Potential) -> None:
        self.name, self.scale, self.seconds = potential.name, potential.scale, 0.0
        self._potential = potential

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return what the potential returns."""
        start = time.perf_counter()
        result = self._potential.energies(atoms)
        self.seconds += time.perf_counter() - start
        return result


if __name__ == "__main__":
    tyro.cli(main)
