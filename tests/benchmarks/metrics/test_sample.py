"""Metrics of samples against the plain double loop over pymatgen's matcher."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from agents import CrystalFormer
from benchmarks.metrics.sample import SampleMetrics, evaluate_sample
from benchmarks.metrics.summary import summarise
from benchmarks.samples.samples import Samples
from crystal_env import Crystal, CrystalBatch
from crystal_env.dataset import read_structures
from crystal_env.equivalents import equivalents
from crystal_env.reward import RewardResult
from rewards import EnergyAboveHull
from rewards.matching import is_novel, structure_labels

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
SALTS = [("Na", "Cl", 5.64), ("K", "Br", 6.7)]
DOUBLED = "123-a-Na-0-0-0-b-Cl-0-0-1/2-c-Cl-1/2-1/2-0-d-Na-1/2-1/2-1/2-X-3.988-3.988-5.64-90-90-90"


ROCK_SALT, SHIFTED = (Crystal.from_string(SALT.format(*pair, 5.64)) for pair in (("Na", "Cl"), ("Cl", "Na")))
IN_P1 = Crystal.from_string("1-a-Cl-0.1-0.2-0.3-a-Na-0.6-0.7-0.8-X-3.988-3.988-3.988-60-60-60")
CESIUM_CHLORIDE = Crystal.from_string("221-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3.5-3.5-3.5-90-90-90")
PEROVSKITE = Crystal.from_string("221-a-Ti-0-0-0-b-Sr-1/2-1/2-1/2-d-O-1/2-0-0-X-3.9-3.9-3.9-90-90-90")
OVERLAPPING = Crystal.from_string("1-a-Na-0-0-0-a-Cl-0-0-0.001-X-3.1-4.2-5.3-80-85-95")


@pytest.fixture(scope="module")
def sample():
    """Crystals of the base model in few groups and elements, with others of the same structure planted among them."""
    model = CrystalFormer.from_pretrained("mp20")
    rules = {"elements": ["Na", "K", "Cl", "Br"], "max_sites": 2, "max_atoms": 4}
    sampled = model.sample([221, 225, 216, 123], 60, seed=0, temperature=1, **rules)
    rng = np.random.default_rng(0)
    return CrystalBatch.concatenate([sampled, equivalents(sampled[:15], rng)])[rng.permutation(75)]


def energy(crystals):
    """A reward without a model: stable are the crystals of a narrow range of volumes, some have no energy."""
    energies = np.abs(crystals.volume_per_atom() - 25) / 50
    failures = np.array([None if value < 1 else "too far" for value in energies], object)
    return RewardResult(-energies, {"e_above_hull": energies}, failures)


def same(one, other):
    return StructureMatcher().fit(one, other)


def test_sun_is_that_of_the_plain_double_loop(sample):
    reference, crystals = sample[:20], sample[15:]
    summary = summarise(evaluate_sample(Samples.from_crystals(crystals), reference, energy))
    energies = energy(crystals).terms["e_above_hull"]
    order = sorted(np.flatnonzero(energies <= 0.1), key=lambda row: (energies[row], str(crystals[int(row)])))
    structures = crystals.to_structures(primitive=True)
    unique = []
    for row in order:
        if not any(same(structures[row], structures[other]) for other in unique):
            unique.append(row)
    known = reference.to_structures(primitive=True)
    novel = [row for row in unique if not any(same(structures[row], other) for other in known)]
    counts = {name: entry["count"] for name, entry in summary["rates"].items()}
    assert counts["stable_0.1"] == len(order)
    assert counts["unique_stable_0.1"] == len(unique)
    assert counts["sun_0.1"] == len(novel)
    assert len(order) > len(unique) > len(novel) > 0
    assert all(entry["total"] == 60 for entry in summary["rates"].values())


def test_the_order_in_which_crystals_are_listed_does_not_matter(sample):
    one = summarise(evaluate_sample(Samples.from_crystals(sample), sample[:9], energy))
    shuffled = sample[np.random.default_rng(1).permutation(len(sample))]
    other = summarise(evaluate_sample(Samples.from_crystals(shuffled), sample[:9], energy))
    assert one["rates"] == other["rates"]
    assert one["variety"] == pytest.approx(other["variety"])


def test_several_processes_give_the_same(sample):
    for n_jobs in (1, 2):
        labels = structure_labels(sample, n_jobs=n_jobs)
        novel = is_novel(sample, sample[:9], n_jobs=n_jobs)
        if n_jobs == 1:
            expected = labels, novel
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(novel, expected[1])


def test_rock_salt_is_one_structure_in_any_cell_and_not_cscl():
    texts = [SALT.format("Na", "Cl", 5.64), SALT.format("Cl", "Na", 5.7), DOUBLED]
    texts.append("221-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3.4-3.4-3.4-90-90-90")
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])
    assert structure_labels(crystals).tolist() == [0, 0, 0, 3]
    assert is_novel(crystals, crystals[:1]).tolist() == [False, False, False, True]


@pytest.mark.parametrize("failures", [[None, None], [None, "no energy"]])
def test_a_crystal_whose_energy_is_no_number_is_not_stable(failures):
    """Its total may be finite all the same."""
    crystals = CrystalBatch.from_crystals([Crystal.from_string(SALT.format(*pair)) for pair in SALTS])

    def broken(crystals):
        return RewardResult(np.zeros(2), {"e_above_hull": np.array([0.0, np.nan])}, np.array(failures, object))

    metrics = evaluate_sample(Samples.from_crystals(crystals), crystals[:0], broken)
    assert metrics.stable().tolist() == metrics.sun().tolist() == [True, False]
    assert np.isnan(metrics.e_above_hull[1])
    assert summarise(metrics)["rates"]["stable_0.1"]["count"] == 1


def test_without_a_reward_there_are_no_energies(sample):
    metrics = evaluate_sample(Samples.from_crystals(sample[:3]), sample[:0], None)
    assert np.isnan(metrics.e_above_hull).all()
    assert not metrics.stable().any()


def test_joined_metrics_keep_the_structures_of_each_sample_apart(sample):
    one = evaluate_sample(Samples.from_crystals(sample[:20]), sample[:0], energy)
    joined = SampleMetrics.concatenate([one, one])
    assert joined.samples.n_attempts == 40
    assert joined.label.tolist() == [*one.label, *(one.label + 20)]
    assert joined.sun().sum() == 2 * one.sun().sum()


def test_rock_salt_has_every_flag():
    crystals = CrystalBatch.from_crystals([Crystal.from_string(SALT.format(*pair)) for pair in SALTS])
    metrics = evaluate_sample(Samples.from_crystals(crystals), crystals[:1], None)
    assert metrics.space_group.tolist() == metrics.detected_group.tolist() == [225, 225]
    assert metrics.space_group_recovered.all()
    assert metrics.valid.all()
    assert metrics.novel.tolist() == [False, True]


def batch(*crystals):
    return CrystalBatch.from_crystals(crystals)


def samples_of(*crystals):
    return Samples.from_crystals(batch(*crystals))


def by_group(crystals):
    """A reward that calls the group's number in hundredths of eV/atom the energy, and breaks on P1."""
    if (crystals.G == 1).any():
        raise ArithmeticError("no energy in P1")
    energies = crystals.G / 100
    return RewardResult(-energies, {"e_above_hull": energies}, np.full(len(crystals), None, object))


def test_one_structure_in_other_settings_is_one():
    labels = structure_labels(batch(ROCK_SALT, CESIUM_CHLORIDE, SHIFTED, IN_P1, CESIUM_CHLORIDE, PEROVSKITE))
    assert labels.tolist() == [0, 1, 0, 0, 1, 5]


def test_novel_is_what_the_reference_has_in_no_setting():
    reference = batch(SHIFTED, PEROVSKITE)
    found = is_novel(batch(ROCK_SALT, CESIUM_CHLORIDE, IN_P1, PEROVSKITE), reference)
    assert found.tolist() == [False, True, False, False]
    assert is_novel(batch(ROCK_SALT), CrystalBatch.empty()).all()


def test_replayed_crystals_are_not_novel_and_once_unique(data_folder):
    known = CrystalBatch.from_structures(list(read_structures(data_folder / "mp20_val.csv.gz"))[:20])
    replayed = CrystalBatch.concatenate([known, known[:5]])
    rates = summarise(evaluate_sample(Samples.from_crystals(replayed), known, by_group))["rates"]
    counts = {name: entry["count"] for name, entry in rates.items()}
    assert (counts["novel"], counts["unique"], counts["space_group_recovered"], counts["sun_0.1"]) == (0, 20, 25, 0)


@pytest.mark.filterwarnings("ignore:the reward failed")
def test_a_crystal_that_breaks_a_tool_stops_no_other():
    metrics = evaluate_sample(samples_of(ROCK_SALT, IN_P1, OVERLAPPING, PEROVSKITE), CrystalBatch.empty(), by_group)
    assert metrics.space_group_recovered.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(metrics.e_above_hull, [2.25, np.nan, np.nan, 2.21])


def test_rock_salt_is_on_the_hull():
    energies = evaluate_sample(samples_of(ROCK_SALT, OVERLAPPING), CrystalBatch.empty(), EnergyAboveHull()).e_above_hull
    assert energies[0] == pytest.approx(0.0, abs=0.02)
    assert np.isnan(energies[1])


def test_stable_unique_and_novel_count_one_after_the_other():
    yes, groups = np.ones(5, bool), np.array([225, 225, 221, 221, 1])
    metrics = SampleMetrics(
        Samples.from_crystals(batch(ROCK_SALT, ROCK_SALT, CESIUM_CHLORIDE, PEROVSKITE, IN_P1)),
        yes,
        yes,
        groups,
        np.array([0.5, 0.05, 0.0, -0.3, np.nan]),
        np.array([0, 0, 2, 3, 0]),
        np.array([1, 1, 1, 0, 1], bool),
    )
    summary = summarise(metrics)
    counts = {name: entry["count"] for name, entry in summary["rates"].items()}
    assert (counts["sun_0.1"], counts["stable_0.1"], counts["stable_0.0"]) == (2, 3, 2)
    assert (counts["unique"], counts["novel"], counts["scored"], counts["in_p1"]) == (3, 4, 4, 1)
    assert summary["below_hull_outliers_count"] == 1
    assert summary["e_above_hull_median"] == pytest.approx(0.025)
