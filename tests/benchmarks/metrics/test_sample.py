"""Shares, intervals and structures against plain loops and closed forms."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from agents import CrystalFormer, CrystalFormerConfig
from benchmarks.metrics import sample as metrics
from benchmarks.metrics.kl import kl_divergence
from crystal_env import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents
from crystal_env.reward import RewardResult

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
DOUBLED = "123-a-Na-0-0-0-b-Cl-0-0-1/2-c-Cl-1/2-1/2-0-d-Na-1/2-1/2-1/2-X-3.988-3.988-5.64-90-90-90"


@pytest.fixture(scope="module")
def sample():
    """Crystals of the base model in few groups and elements, with others of the same structure planted among them."""
    model = CrystalFormer.from_pretrained("mp20")
    drawn = model.sample([221, 225, 216, 123], 60, seed=0, elements=["Na", "K", "Cl", "Br"], max_sites=2, max_atoms=4)
    rng = np.random.default_rng(0)
    return CrystalBatch.concatenate([drawn, equivalents(drawn[:15], rng)])[rng.permutation(75)]


def energy(crystals):
    """A reward without a model: stable are the crystals of a narrow range of volumes, some have no energy."""
    energies = np.abs(crystals.volume_per_atom() - 25) / 50
    failures = np.array([None if value < 1 else "too far" for value in energies], object)
    return RewardResult(-energies, {"e_above_hull": energies}, failures)


def same(one, other):
    return StructureMatcher().fit(one, other)


def test_sun_is_that_of_the_plain_double_loop(sample):
    reference, crystals = sample[:20], sample[15:]
    summary = metrics.summarise(metrics.examine(crystals, reference, energy))
    energies = energy(crystals).terms["e_above_hull"]
    order = sorted(np.flatnonzero(energies <= 0.1), key=lambda row: (energies[row], str(crystals[int(row)])))
    structures = crystals.to_structures(primitive=True)
    unique = []
    for row in order:
        if not any(same(structures[row], structures[other]) for other in unique):
            unique.append(row)
    known = reference.to_structures(primitive=True)
    novel = [row for row in unique if not any(same(structures[row], other) for other in known)]
    counts = {name: share["count"] for name, share in summary["shares"].items()}
    assert counts["stable (≤ 0.1 eV/atom)"] == len(order)
    assert counts["unique among the stable"] == len(unique)
    assert counts["S.U.N. (≤ 0.1 eV/atom)"] == len(novel)
    assert len(order) > len(unique) > len(novel) > 0
    assert all(share["of"] == 60 for share in summary["shares"].values())


def test_the_order_in_which_crystals_are_listed_does_not_matter(sample):
    one = metrics.summarise(metrics.examine(sample, sample[:9], energy))
    shuffled = sample[np.random.default_rng(1).permutation(len(sample))]
    other = metrics.summarise(metrics.examine(shuffled, sample[:9], energy))
    assert one["shares"] == other["shares"]
    assert one["variety"] == pytest.approx(other["variety"])


def test_several_processes_give_the_same(sample):
    for n_jobs in (1, 2):
        labels = metrics.structure_labels(sample, n_jobs=n_jobs)
        novel = metrics.is_novel(sample, sample[:9], n_jobs=n_jobs)
        if n_jobs == 1:
            expected = labels, novel
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(novel, expected[1])


def test_rock_salt_is_one_structure_in_any_cell_and_another_one_than_caesium_chloride():
    texts = [SALT.format("Na", "Cl", 5.64), SALT.format("Cl", "Na", 5.7), DOUBLED]
    texts.append("221-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3.4-3.4-3.4-90-90-90")
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])
    assert metrics.structure_labels(crystals).tolist() == [0, 0, 0, 3]
    assert metrics.is_novel(crystals, crystals[:1]).tolist() == [False, False, False, True]


def test_what_could_not_be_read_counts_as_nothing_good(sample):
    examined = metrics.examine(sample, sample[:0], energy)
    full, diluted = metrics.summarise(examined), metrics.summarise(examined, unreadable=75)
    for name in full["shares"]:
        assert diluted["shares"][name]["share"] == pytest.approx(full["shares"][name]["share"] / 2)
    middle = (full["mean e_above_hull, unscored 10"] + 10) / 2
    assert diluted["mean e_above_hull, unscored 10"] == pytest.approx(middle)


def test_variety_of_a_few_crystals_by_hand():
    texts = [SALT.format("Na", "Cl", 5.6), SALT.format("Na", "Cl", 5.7), SALT.format("K", "Br", 6.6), DOUBLED]
    seen = metrics.variety(CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts]))
    assert (seen["formulas"], seen["prototypes"], seen["space groups"], seen["elements"]) == (2, 2, 2, 4)
    assert seen["largest share of formulas"] == 0.75
    assert seen["entropy of space groups"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert seen["largest share of elements"] == 0.4


def test_bootstrap_interval_of_a_mean_is_about_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3.0, 2.0, 2000)
    low, high = metrics.bootstrap(values)
    error = 1.96 * values.std() / 2000**0.5
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.15 * error)
    assert metrics.bootstrap(values) == (low, high)
    assert metrics.bootstrap(values[:0]) is None


def test_tables_show_samples_side_by_side(sample):
    summary = metrics.summarise(metrics.examine(sample[:10], sample[:0], energy))
    lines = metrics.table({"one": summary, "two": summary}).splitlines()
    assert lines[0] == "|  | one | two |"
    stable = next(line for line in lines if line.startswith("| stable (≤ 0.1"))
    share = summary["shares"]["stable (≤ 0.1 eV/atom)"]
    assert f"| {100 * share['share']:.1f} [{100 * share['interval'][0]:.1f}, " in stable
    assert len({line.count("|") for line in lines}) == 1


def test_a_model_does_not_diverge_from_itself_and_its_parts_add_up():
    config = CrystalFormerConfig(n_layers=1, n_heads=2, key_size=4, model_size=8, embed_size=4)
    one, other = CrystalFormer(config, seed=0).eval(), CrystalFormer(config, seed=1).eval()
    assert kl_divergence(one, one, 20)[:2] == (0.0, 0.0)
    apart = kl_divergence(one, other, 200)
    assert sum(apart.parts.values()) == pytest.approx(apart.total, abs=1e-4)
    assert apart.error > 0
