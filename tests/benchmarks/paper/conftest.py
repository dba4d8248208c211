"""Tiny data and rewards without a model, shared by the tests of the paper's figures."""

import gzip
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from agents import CrystalFormer
from benchmarks.paper.settings import Settings
from benchmarks.paper.work import Work
from crystal_env.reward import RewardResult


def energy(crystals):
    """A reward without a model: energies by the volume, some crystals have none."""
    energies = np.abs(crystals.volume_per_atom() - 20) / 50
    failures = np.array([None if value < 1 else "too far" for value in energies], object)
    terms = {"e_above_hull": np.where(energies < 1, energies, 10.0)}
    terms["success"] = (terms["e_above_hull"] <= 0.1).astype(float)
    return RewardResult(-np.minimum(energies, 10), {**terms, "clipped": np.minimum(energies, 10)}, failures)


def figure_of_merit(crystals):
    """A figure of merit without a model: the gap grows with the volume, the constant is the number of atoms."""
    gap, constant = np.minimum(crystals.volume_per_atom() / 4, 9), 5.0 * crystals.n_atoms(primitive=True)
    terms = {"band_gap": gap, "dielectric_constant": constant, "success": (gap * constant >= 100).astype(float)}
    return RewardResult(gap * constant, terms, np.full(len(crystals), None, object))


@pytest.fixture(scope="session")
def known():
    """Crystals of the base model, few elements and groups, which stand for the training set."""
    model = CrystalFormer.from_pretrained("mp20")
    rules = {"elements": ["Na", "K", "Cl", "F"], "max_sites": 3, "max_atoms": 8}
    return model.sample([221, 225, 216, 1], 40, seed=0, temperature=1, **rules)


@pytest.fixture(scope="module")
def patch():
    """A monkeypatch for all tests of a file."""
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def data(tmp_path_factory, patch, known):
    """A data folder with a training set of known crystals, and with dielectric constants of some."""
    folder = tmp_path_factory.mktemp("data")
    cifs = ['"' + structure.to(fmt="cif") + '"' for structure in known.to_structures()]
    for name, part in (("train", cifs[:30]), ("val", cifs[30:])):
        lines = ["material_id,cif"] + [f"{name}-{i},{cif}" for i, cif in enumerate(part)]
        (folder / f"mp20_{name}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    rows = ["material_id,diel_total_target"] + [f"train-{i},{5 + i}" for i in range(20)]
    (folder / "mp_dielectric_targets.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    patch.setenv("CRYSTALGEN_DATA", str(folder))
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of results and cache, so that trainings run once for all files."""
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def work(data, folder, patch):
    """Shared computations without a potential, with trainings of two iterations of one step."""
    folders = {"out": folder / "out", "cache": folder / "cache"}
    settings = Settings(size=12, hull="mp20-chgnet", iterations=2, batch_size=48, sft_samples=20, **folders)
    patch.setattr("benchmarks.paper.work.CHUNK", 12)
    for module in ("stability", "dielectrics"):
        patch.setattr(f"benchmarks.paper.{module}.sampling_speed", lambda model, groups, temperature: 10.0)
    patch.setitem(sys.modules, "tiny_reward", SimpleNamespace(energy=energy))
    made = Work(settings, energy=energy, fom=figure_of_merit)
    vars(made)["energy_reward"] = {"reward": "tiny_reward:energy", "reward_kwargs": {}}  # what is computed once
    return made


@pytest.fixture(scope="module")
def paper_work(work):
    """The same with the preset of the paper."""
    made = Work(replace(work.settings, preset="paper", batch_size=8), energy=energy, fom=figure_of_merit)
    vars(made)["energy_reward"] = work.energy_reward
    return made


@pytest.fixture
def fom_reward():
    """The figure of merit that `work` has."""
    return figure_of_merit
