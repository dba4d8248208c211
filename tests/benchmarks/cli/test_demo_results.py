"""Which crystals of the demo are counted, best, or doubtful."""

import numpy as np
import pytest

from benchmarks.cli.demo_results import ModelSample
from benchmarks.metrics.sample import SampleMetrics
from benchmarks.samples.samples import Samples
from crystal_env import Crystal, CrystalBatch

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-5.6-5.6-5.6-90-90-90"
COPPER = "225-a-Cu-0-0-0-X-3.6-3.6-3.6-90-90-90"
ROWS = (
    ("NaCl", -0.3, True, 0),
    ("KCl", -0.04, True, 1),
    ("LiF", 0.0, False, 2),
    ("Cu", -0.01, True, 3),
    ("KBr", 0.09, True, 4),
    ("LiCl", 0.11, True, 5),
    ("NaF", np.nan, True, 6),
    ("KBr", 0.095, True, 4),
)
"""Formula, energy above the hull in eV/atom, whether it is novel, and the first row of the same structure."""


def crystal(formula):
    ions = [next((ion for ion in ions if ion in formula), "") for ions in (("Na", "K", "Li"), ("Cl", "F", "Br"))]
    return Crystal.from_string(COPPER if formula == "Cu" else SALT.format(*ions))


@pytest.fixture(params=[True, False])
def sample(request):
    names, energies, novel, label = zip(*ROWS, strict=True)
    crystals, yes = CrystalBatch.from_crystals(map(crystal, names)), np.ones(len(ROWS), bool)
    novel = np.array(novel) if request.param else yes
    samples = Samples.from_crystals(crystals, "a model")
    metrics = SampleMetrics(samples, yes, yes, crystals.G, np.array(energies), np.array(label), novel)
    return ModelSample(metrics, 0.5, request.param)


def formulas(sample, rows):
    return [sample.metrics.samples.crystals[row].formula for row in rows.tolist()]


def test_doubtful_crystals_are_not_among_the_best(sample):
    assert formulas(sample, np.flatnonzero(sample.doubtful)) == ["NaCl"]
    assert formulas(sample, sample.best(12)) == ["KCl", "LiF", "KBr"]
    assert formulas(sample, sample.best(2)) == ["KCl", "LiF"]


def test_without_a_reference_stable_and_unique_ones_count(sample):
    rates, novel = sample.numbers()["rates"], sample.is_novelty_known
    assert formulas(sample, sample.best(12, novel=True)) == (["KCl", "KBr"] if novel else ["KCl", "LiF", "KBr"])
    assert rates["success"]["count"] == (4 if novel else 5)
    assert rates["plausible_success"]["count"] == (3 if novel else 4)
    assert rates["success"]["total"] == 8
    assert ("novel" in rates, "sun_0.1" in rates) == (novel, novel)
    assert sample.success == ("S.U.N." if novel else "stable and unique")
