import numpy as np
import pytest

from benchmarks.metrics.relaxation import relax_samples, relaxation_summary, rmsd
from benchmarks.samples.samples import Outside, Samples
from crystal_env import Crystal, CrystalBatch
from rewards import EnergyAboveHull

TEXTS = [
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.69-5.69-5.69-90-90-90",  # at its minimum
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-6.3-6.3-6.3-90-90-90",  # stretched
    "1-a-Na-0-0-0-a-Cl-0.44-0.52-0.5-X-4.02-4.02-4.02-60-60-60",  # a distorted one that becomes rock salt
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-1.1-1.1-1.1-90-90-90",  # no crystal
]


@pytest.fixture(scope="module")
def after():
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])
    return crystals, relax_samples(Samples.from_crystals(crystals, "test"))


def test_relaxation_lowers_the_energy_and_tells_how_far_it_went(after):
    crystals, found = after
    energies = EnergyAboveHull()(crystals).terms["e_above_hull"]
    assert found.e_above_hull[:3] == pytest.approx([energies[0]] * 3, abs=0.02)
    assert found.energy_gain[1] == pytest.approx(energies[1] - found.e_above_hull[1], abs=1e-5)
    assert found.energy_gain[1] > 0.03
    assert found.rmsd[0] == pytest.approx(0, abs=1e-3)
    assert found.same_structure[:2].all()
    assert found.rmsd[2] > 0.05
    assert found.max_force[2] > 0.1 > found.max_force[0]


def test_a_group_that_became_a_higher_one_is_not_kept(after):
    _, found = after
    assert found.space_group_kept.tolist() == [True, True, False, False]


def test_what_cannot_be_relaxed_fails_and_harms_no_other(after):
    crystals, found = after
    assert [failure is None for failure in found.failures] == [True, True, True, False]
    assert np.isnan(found.e_above_hull[3])
    assert str(found.samples[3]) == str(crystals[3])


def test_rates_count_every_attempt(after):
    _, found = after
    summary = relaxation_summary(found, CrystalBatch.empty(), 5)
    rates = {name: (entry["count"], entry["total"]) for name, entry in summary["rates"].items()}
    assert rates["stable_0.1"] == (3, 5)
    assert rates["sun_0.1"] == (1, 5)  # all have become rock salt
    assert rates["space_group_kept"] == (2, 5)
    assert rates["relaxed"] == (3, 5)
    assert summary["energy_gain_mean"] == pytest.approx(found.energy_gain[:3].mean())
    assert summary["rmsd_mean"] == pytest.approx(np.nanmean(found.rmsd))


def test_displacement_is_that_of_the_atoms():
    salt = Crystal.from_string(TEXTS[0]).to_structure(primitive=True)
    moved = salt.copy()
    moved.perturb(0.05)
    difference = moved.frac_coords - salt.frac_coords
    difference = salt.lattice.get_cartesian_coords(difference - np.rint(difference))
    expected = np.sqrt(((difference - difference.mean(0)) ** 2).sum(1).mean())
    assert rmsd(salt, moved) == pytest.approx(expected, rel=1e-3)


def test_structures_outside_are_relaxed_alike(after):
    crystals, found = after
    supercell = crystals[2].to_structure()
    supercell.make_supercell([2, 2, 2])
    items = [Outside(supercell, ""), crystals[0], Outside(crystals[3].to_structure(), "")]
    mixed = relax_samples(Samples.from_items(items))
    assert mixed.e_above_hull[:2] == pytest.approx([found.e_above_hull[2], found.e_above_hull[0]], abs=0.005)
    assert mixed.rmsd[0] == pytest.approx(found.rmsd[2], abs=0.02)
    assert mixed.space_group_kept.tolist() == [False, True, False]
    assert [failure is None for failure in mixed.failures] == [True, True, False]
    assert mixed.samples.represented.tolist() == [False, True, False]


def test_no_crystals_are_no_trouble():
    none = relax_samples(Samples.from_items([]))
    summary = relaxation_summary(none, CrystalBatch.empty(), 0)
    assert summary["rates"]["stable_0.1"]["rate"] == 0
    assert summary["rmsd_mean"] is None
