"""Rates, energies and variety of samples, by hand."""

import numpy as np
import pytest

from benchmarks.metrics.distribution import distribution
from benchmarks.metrics.efficiency import efficiency
from benchmarks.metrics.labels import RATES, label
from benchmarks.metrics.sample import evaluate_sample
from benchmarks.metrics.summary import comparison_table, summarise, variety
from benchmarks.samples.samples import Samples
from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import RewardResult

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
DOUBLED = "123-a-Na-0-0-0-b-Cl-0-0-1/2-c-Cl-1/2-1/2-0-d-Na-1/2-1/2-1/2-X-3.988-3.988-5.64-90-90-90"
TEXTS = [SALT.format("Na", "Cl", 5.6), SALT.format("Na", "Cl", 5.7), SALT.format("K", "Br", 6.6), DOUBLED]
CRYSTALS = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])


def energy(crystals):
    """A reward without a model: 0.02 eV/atom more for every crystal, and none for the last of four."""
    energies = 0.08 + 0.02 * np.arange(len(crystals))
    failures = np.array([None if row < 3 else "too far" for row in range(len(crystals))], object)
    return RewardResult(-energies, {"e_above_hull": energies}, failures)


METRICS = evaluate_sample(Samples.from_crystals(CRYSTALS), CRYSTALS[2:3], energy)


def test_rates_by_hand():
    counts = {name: entry["count"] for name, entry in summarise(METRICS)["rates"].items()}
    assert counts == {
        "structurally_valid": 4,
        "compositionally_valid": 4,
        "valid": 4,
        "unique": 2,  # the doubled cell is rock salt
        "novel": 3,
        "in_p1": 0,
        "space_group_recovered": 3,
        "scored": 3,
        "stable_0.1": 2,
        "stable_0.0": 0,
        "unique_stable_0.1": 1,
        "sun_0.1": 1,
        "sun_0.0": 0,
        "sun_0.1_without_outliers": 1,
    }
    assert list(counts) == list(RATES)


def test_failed_attempts_are_in_every_denominator():
    full = summarise(METRICS)
    padded = evaluate_sample(Samples.from_crystals(CRYSTALS).padded(8), CRYSTALS[2:3], energy)
    diluted = summarise(padded)
    for name in full["rates"]:
        assert diluted["rates"][name]["rate"] == pytest.approx(full["rates"][name]["rate"] / 2)
    middle = (full["e_above_hull_mean_unscored_10"] + 10) / 2
    assert diluted["e_above_hull_mean_unscored_10"] == pytest.approx(middle)


def test_variety_of_a_few_crystals_by_hand():
    seen = variety(Samples.from_crystals(CRYSTALS))
    assert (seen["formulas"], seen["templates"], seen["space_groups"], seen["elements"]) == (2, 2, 2, 4)
    assert seen["largest_formula_fraction"] == 0.75
    assert seen["space_group_entropy"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert seen["largest_element_fraction"] == 0.4


def test_tables_show_samples_side_by_side():
    summary = summarise(METRICS)
    lines = comparison_table({"one": summary, "two": summary}).splitlines()
    assert lines[0] == "|  | one | two |"
    stable = next(line for line in lines if line.startswith(f"| {label('stable_0.1')}, %"))
    low, high = summary["rates"]["stable_0.1"]["interval"]
    assert stable.count(f"| 50.0 [{100 * low:.1f}, {100 * high:.1f}] ") == 2
    assert len({line.count("|") for line in lines}) == 1


def test_every_number_has_a_label():
    summary = summarise(METRICS)
    numbers = [*summary["rates"], *summary["intervals"], *summary["variety"]]
    numbers += [*distribution(CRYSTALS, CRYSTALS), *efficiency(np.ones(3), 5, 1.0)]
    assert all(label(name) for name in numbers)
    with pytest.raises(ValueError, match=r"no label of 'sun_0\.5'"):
        label("sun_0.5")
