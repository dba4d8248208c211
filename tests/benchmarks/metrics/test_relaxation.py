import numpy as np
import pytest

from benchmarks.metrics.relaxation import outcomes, relaxed_summary, rmsd
from crystal_env import Crystal, CrystalBatch
from rewards import EnergyAboveHull

TEXTS = [
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.69-5.69-5.69-90-90-90",  # at rest
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-6.3-6.3-6.3-90-90-90",  # stretched
    "1-a-Na-0-0-0-a-Cl-0.44-0.52-0.5-X-4.02-4.02-4.02-60-60-60",  # a distorted one that becomes rock salt
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-1.1-1.1-1.1-90-90-90",  # no crystal
]


@pytest.fixture(scope="module")
def after():
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])
    return crystals, outcomes(crystals, name="test")


def test_relaxation_lowers_the_energy_and_tells_how_far_it_went(after):
    crystals, found = after
    energies = EnergyAboveHull()(crystals).terms["e_above_hull"]
    assert found.e_above_hull[:3] == pytest.approx([energies[0]] * 3, abs=0.02)
    assert found.gain[1] == pytest.approx(energies[1] - found.e_above_hull[1], abs=1e-5)
    assert found.gain[1] > 0.03
    assert found.rmsd[0] == pytest.approx(0, abs=1e-3)
    assert found.same[:2].all()
    assert found.rmsd[2] > 0.05
    assert found.force[2] > 0.1 > found.force[0]


def test_group_survives_where_it_was_and_not_where_a_higher_one_was_found(after):
    _, found = after
    assert found.group.tolist() == [True, True, False, False]


def test_what_cannot_be_relaxed_fails_and_harms_no_other(after):
    crystals, found = after
    assert [failure is None for failure in found.failures] == [True, True, True, False]
    assert np.isnan(found.e_above_hull[3])
    assert str(found.crystals[3]) == str(crystals[3])


def test_shares_count_every_attempt(after):
    _, found = after
    summary = relaxed_summary(found, np.ones(4, bool), np.array([0, 0, 0, 3]), attempts=5)
    shares = {name: (entry["count"], entry["of"]) for name, entry in summary["shares"].items()}
    assert shares["stable (≤ 0.1 eV/atom)"] == (3, 5)
    assert shares["S.U.N. (≤ 0.1 eV/atom)"] == (1, 5)
    assert shares["space group survives"] == (2, 5)
    assert shares["could be relaxed"] == (3, 5)
    assert summary["mean gain, eV/atom"] == pytest.approx(found.gain[:3].mean())
    assert summary["mean RMSD, Å"] == pytest.approx(np.nanmean(found.rmsd))


def test_displacement_is_that_of_the_atoms():
    salt = Crystal.from_string(TEXTS[0]).to_structure(primitive=True)
    moved = salt.copy()
    moved.perturb(0.05)
    difference = moved.frac_coords - salt.frac_coords
    difference = salt.lattice.get_cartesian_coords(difference - np.rint(difference))
    expected = np.sqrt(((difference - difference.mean(0)) ** 2).sum(1).mean())
    assert rmsd(salt, moved) == pytest.approx(expected, rel=1e-3)


def test_structures_beyond_the_grammar_are_relaxed_alike(after):
    crystals, found = after
    supercell = crystals[2].to_structure()
    supercell.make_supercell([2, 2, 2])
    alone = outcomes(CrystalBatch.empty(), foreign=[supercell, crystals[3].to_structure()], name="test")
    assert alone.e_above_hull[0] == pytest.approx(found.e_above_hull[2], abs=0.005)
    assert alone.rmsd[0] == pytest.approx(found.rmsd[2], abs=0.02)
    assert alone.group.tolist() == [False, False]
    assert [failure is None for failure in alone.failures] == [True, False]
    assert len(alone.structures()) == 2


def test_no_crystals_are_no_trouble():
    none = outcomes(CrystalBatch.empty(), name="test")
    summary = relaxed_summary(none, np.zeros(0, bool), np.zeros(0, np.int64), attempts=0)
    assert summary["shares"]["stable (≤ 0.1 eV/atom)"]["share"] == 0
    assert summary["mean RMSD, Å"] is None
