"""Rewards that call a model score each distinct crystal once, and look for repeats once."""

import numpy as np
import pytest
from ase.calculators.emt import EMT

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.reward import RewardResult
from rewards.bulk_modulus import BulkModulus
from rewards.dielectric import DielectricFoM
from rewards.distinct import once_per_crystal
from rewards.ehull import EnergyAboveHull
from rewards.force_stress import ForceStress
from rewards.hull.convex_hull import ConvexHull
from rewards.hull.file_format import Provenance
from rewards.potentials.ase import ASEPotential
from rewards.property import Property
from rewards.relaxation.relax import Relaxation

POTENTIAL = ASEPotential(EMT, n_jobs=1)
HULL = ConvexHull.from_entries([("Cu", 0.0), ("Al", 0.0)], Provenance(energy_model=POTENTIAL.name))


def sizes(atoms):
    return [float(len(a)) for a in atoms]


class Groups:
    """A reward that notes the space groups it sees."""

    def __init__(self):
        self.seen = []

    @once_per_crystal
    def __call__(self, crystals):
        """Score B crystals."""
        self.seen.append(crystals.G.tolist())
        group = crystals.G.astype(float)
        return RewardResult(group, {"twice": 2 * group}, np.array([f"no {int(g)}" for g in group], object))


@pytest.fixture
def metals() -> CrystalBatch:
    strings = ("225-a-Cu-0-0-0-X-3.6-3.6-3.6-90-90-90", "225-a-Al-0-0-0-X-4-4-4-90-90-90")
    return CrystalBatch.from_crystals(Crystal.from_string(strings[row]) for row in (0, 1, 0, 0))


def test_repeats_are_scored_once_and_all_get_their_result(crystals):
    reward, order = Groups(), [4, 0, 4, 2, 0]
    result = reward(list(crystals[order]))
    assert sorted(reward.seen[0]) == [186, 225, 229]
    assert result.total.tolist() == crystals.G[order].tolist()
    assert result.terms["twice"].tolist() == (2 * crystals.G[order]).tolist()
    assert result.failures.tolist() == [f"no {group}" for group in crystals.G[order]]
    assert reward.__call__.__doc__ == "Score B crystals."


@pytest.mark.parametrize(
    "reward",
    [
        EnergyAboveHull(POTENTIAL, HULL),
        EnergyAboveHull(POTENTIAL, HULL, relax=Relaxation(POTENTIAL, steps=3)),
        Relaxation(POTENTIAL, steps=3),
        ForceStress(POTENTIAL),
        BulkModulus(POTENTIAL),
        Property(sizes),
        DielectricFoM(sizes, sizes),
    ],
    ids=["energy", "relaxed energy", "relaxation", "forces", "modulus", "property", "dielectric"],
)
def test_no_path_to_a_model_looks_for_repeats_twice(reward, metals, monkeypatch):
    searches, distinct = [], CrystalBatch.distinct
    monkeypatch.setattr(CrystalBatch, "distinct", lambda batch: searches.append(len(batch)) or distinct(batch))
    reward(metals)
    assert searches == [4]
