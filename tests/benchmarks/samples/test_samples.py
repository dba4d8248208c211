"""One sequence of crystals, structures and failures: every selection keeps each with what belongs to it."""

import numpy as np
import pytest

from benchmarks.samples.samples import MISSING, Failure, Outside, Samples
from crystal_env import Crystal, CrystalBatch

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
SODIUM, POTASSIUM, LITHIUM = (
    Crystal.from_string(SALT.format(*pair)) for pair in (("Na", "Cl", 5.64), ("K", "Br", 6.7), ("Li", "F", 4.1))
)
LARGE = POTASSIUM.to_structure()
ITEMS = [Outside(LARGE, "too many sites"), SODIUM, Failure("nothing"), POTASSIUM, Failure("no CIF"), LITHIUM]
SAMPLES = Samples.from_items(ITEMS, "mixed", np.array([1, 2, 3, 4, 5, 6]))


def formulas(samples):
    return [one.formula if isinstance(one, Crystal) else one.composition.reduced_formula for one in samples]


def facts(samples):
    """Return all that is known of samples, but for the structures' numbers."""
    lists = [getattr(samples, name).tolist() for name in ("represented", "rows", "requested")]
    return [samples.name, formulas(samples), *lists, samples.places, samples.failures, samples.outside]


def test_all_samples_stand_in_the_order_of_their_attempts():
    assert (len(SAMPLES), SAMPLES.n_attempts) == (4, 6)
    assert formulas(SAMPLES) == ["KBr", "NaCl", "KBr", "LiF"]
    assert SAMPLES[0] is LARGE
    assert [str(crystal) for crystal in SAMPLES.crystals] == [str(SODIUM), str(POTASSIUM), str(LITHIUM)]
    assert SAMPLES.rows.tolist() == [0, 1, 3, 5]
    assert SAMPLES.failures == {2: "nothing", 4: "no CIF"}
    assert SAMPLES.outside == {0: "too many sites"}


def test_values_of_both_kinds_are_merged_into_one_order():
    merged = SAMPLES.merge(np.array([10, 20, 30]), [40])
    assert merged.tolist() == [40, 10, 20, 30]
    volumes = [atoms.get_volume() / len(atoms) for atoms in SAMPLES.to_atoms()]
    assert volumes[0] == pytest.approx(volumes[2])
    assert [one.composition.reduced_formula for one in SAMPLES.comparable()] == formulas(SAMPLES)
    assert SAMPLES.take(SAMPLES.represented).comparable() == SAMPLES.crystals or len(SAMPLES.crystals) == 3


def test_the_first_attempts_are_those_of_a_shorter_list():
    for n in range(7):
        assert facts(SAMPLES.first(n)) == facts(Samples.from_items(ITEMS[:n], "mixed", np.arange(1, n + 1)))
    assert facts(SAMPLES.first(None)) == facts(SAMPLES)


def test_chosen_samples_become_the_only_attempts():
    taken = SAMPLES.take(np.array([0, 3]))
    assert formulas(taken) == ["KBr", "LiF"]
    assert (taken.rows.tolist(), taken.requested.tolist(), taken.failures) == ([0, 1], [1, 6], {})
    assert (taken.places, taken.outside) == (("row 0", "row 5"), {0: "too many sites"})


def test_rejected_samples_are_failures_of_their_attempts():
    rejected = SAMPLES.reject({0: "outside", 2: "not allowed"})
    assert formulas(rejected) == ["NaCl", "LiF"]
    assert rejected.failures == {0: "outside", 2: "nothing", 3: "not allowed", 4: "no CIF"}
    assert (rejected.outside, rejected.n_attempts) == ({}, 6)


def test_missing_attempts_fail():
    padded = SAMPLES.padded(8)
    assert (padded.n_attempts, len(padded)) == (8, 4)
    assert padded.failures == SAMPLES.failures | {6: MISSING, 7: MISSING}
    assert SAMPLES.padded(3).n_attempts == 6


def test_joined_samples_are_those_of_the_joined_list():
    joined = Samples.concatenate([SAMPLES.first(4), Samples.from_items(ITEMS[4:], requested=np.array([5, 6]))])
    assert facts(joined)[:5] == facts(SAMPLES)[:5]
    assert (joined.failures, joined.outside) == (SAMPLES.failures, SAMPLES.outside)


def test_a_file_holds_everything(tmp_path):
    path = tmp_path / "samples.npz"
    SAMPLES.save(path)
    read = Samples.load(path)
    assert facts(read) == facts(SAMPLES)
    np.testing.assert_array_equal(read.structures[0].frac_coords, LARGE.frac_coords)
    assert len(CrystalBatch.load(path)) == 3
    SODIUM.to_batch().save(tmp_path / "batch.npz")
    with pytest.raises(KeyError):
        Samples.load(tmp_path / "batch.npz")


def test_likelihoods_stay_with_their_crystals():
    batch = CrystalBatch.from_crystals([SODIUM, POTASSIUM, LITHIUM])
    samples = Samples.from_crystals(batch, log_prob=np.array([-1.0, -2.0, -3.0]))
    assert samples.reject({1: "no"}).log_prob.tolist() == [-1, -3]
    assert samples.take(np.array([False, True, True])).log_prob.tolist() == [-2, -3]
