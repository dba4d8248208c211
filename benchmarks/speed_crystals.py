"""How long a crystal takes to be written down, decoded and scored, beside what the libraries' own ways take.

Run ``python -m benchmarks.speed_crystals`` with ``$CRYSTALGEN_DATA`` at the folder that holds ``mp20_val.csv.gz``.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

import rewards.chgnet
from benchmarks.timing import seconds
from crystal_env import Crystal, CrystalBatch
from crystal_env.dataset import data_folder, read_structures
from crystal_env.geometry import expand
from rewards import EnergyAboveHull


def main(path: Path | None = None, crystals: int = 1000, structures: int = 200, repeats: int = 3) -> None:
    """Measure and print a table, in milliseconds a crystal.

    Args:
        path: file of structures, by default mp20_val.csv.gz in the data folder.
        crystals: crystals decoded and scored.
        structures: structures parsed and tokenised.
        repeats: repeats of every measurement, whose median counts.
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
    line("crystal to arrays of all atoms, primitive", lambda: expand(batch, primitive=True), len(batch))
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
    reward = EnergyAboveHull()
    inside = 0.0
    energies = rewards.chgnet.CHGNetPotential.energies

    def timed(self: object, atoms: object) -> object:
        nonlocal inside
        start = time.perf_counter()
        result = energies(self, atoms)  # type: ignore[arg-type]
        inside += time.perf_counter() - start
        return result

    rewards.chgnet.CHGNetPotential.energies = timed  # type: ignore[assignment,method-assign]
    total = seconds(lambda: reward(batch), repeats)
    share = inside / (repeats + 1) / total
    print(f"energy above hull of {len(batch)} crystals: {total:.2f} s, {share:.1%} of it in CHGNet")
    print(
        f"({torch.get_num_threads()} threads on {os.cpu_count()} cores, {np.mean(batch.n_atoms(True)):.1f} atoms each)"
    )


if __name__ == "__main__":
    tyro.cli(main)
