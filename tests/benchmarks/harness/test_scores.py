import csv
import gzip
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.harness.scores import SCORES, EvaluatedAgent, ground_truth
from benchmarks.metrics.labels import label
from benchmarks.metrics.sample import SampleMetrics
from benchmarks.samples.samples import Failure, Samples
from benchmarks.tasks import TASKS, find_task
from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import RewardResult
from rewards.matching import structure_labels

SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"
CHLORIDE = "221-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"


def salt(a, b, length, text=SALT):
    return Crystal.from_string(text.format(a, b, *[length] * 3))


CRYSTALS = CrystalBatch.from_crystals(
    [
        salt("Na", "Cl", 5.6),
        salt("Cl", "Na", 5.6),
        salt("Cs", "Cl", 4.1, CHLORIDE),
        salt("K", "Br", 6.6),
        salt("Rb", "F", 5.6),
        salt("Mg", "O", 4.2),
    ]
)


def result(total, success=None, **terms):
    total = np.array(total, np.float64)
    terms = {name: np.array(values, np.float64) for name, values in terms.items()}
    terms["success"] = np.array(success if success is not None else total > 0.5, np.float64)
    return RewardResult(total, terms, np.full(len(total), None, object))


def agent(task, *, total=(1, 1, 1, 1, 0, 0), size=10, energies=(0, 0, 0.05, 0.2, -0.01, np.nan), **terms):
    n = len(CRYSTALS)
    items = [*CRYSTALS, *[Failure("no crystal")] * (size - n)]
    metrics = SampleMetrics(
        Samples.from_items(items, requested=np.concatenate([CRYSTALS.G, np.full(size - n, 225)])),
        np.array([True, True, True, True, True, False]),
        np.ones(n, bool),
        CRYSTALS.G.astype(int),
        np.array(energies, np.float64),
        structure_labels(CRYSTALS),
        np.array([True, True, False, True, True, True]),
    )
    reference = CrystalBatch.from_crystals([salt("Rb", "F", 5.5)])
    answers = result(total, e_above_hull=energies)
    return EvaluatedAgent(task, metrics, result(total, **terms), CRYSTALS, answers, reference)


def test_every_task_has_a_score_that_there_is():
    assert {task.score for task in TASKS} == set(SCORES)
    assert all(label(name) for name in SCORES)


def test_sun_counts_one_after_the_other_and_every_attempt():
    one = agent(find_task("stability"))
    assert np.flatnonzero(one.metrics.sun()).tolist() == [
        0,
        4,
    ]  # NaCl once, CsCl is known, KBr not stable, MgO has no energy
    assert SCORES["sun"](one)[0] == 2 / 10
    assert SCORES["sun_successes"](one)[0] == 1 / 10
    assert SCORES["valid_unique"](one)[0] == 4 / 10
    assert SCORES["unique_successes"](one) == (3 / 10, {"successes": 4})


def test_mean_of_groups_gives_each_group_the_same_weight():
    value, details = SCORES["mean_sun_of_groups"](agent(find_task("groups")))
    assert details["groups"]["225"]["sun"] == pytest.approx(2 / 9)
    assert details["groups"]["221"]["sun"] == 0
    assert value == pytest.approx((2 / 9 + 0) / 2)


def test_structures_found_are_different_stable_and_novel():
    value, details = SCORES["sun_structures_found"](agent(find_task("diversity"), success=np.ones(6)))
    # NaCl and CsCl; RbF is in the reference
    assert (value, details["templates"], details["formulas"]) == (2, 2, 2)


def test_best_ten_are_compared_with_the_known_structure(data_folder, tmp_path, monkeypatch):
    with gzip.open(data_folder / "mp20_val.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    with gzip.open(tmp_path / "mp20_val.csv.gz", "wt", newline="") as file:  # to read all takes a minute
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows([row for row in rows if row["formula"] == "CoBr2"] + rows[:3])
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path))
    task = find_task("structure-prediction").case(0)
    assert task.constraints["formula"] == "CoBr2"
    known = Crystal.from_structure(ground_truth("CoBr2")[0])
    wrong = [salt("Na", "Cl", 5 + i / 10) for i in range(5)]
    batch = CrystalBatch.from_crystals([*wrong, known])
    one = agent(task)
    metrics = replace(one.metrics, samples=Samples.from_crystals(batch), label=np.arange(6))
    one = replace(one, metrics=metrics, result=result([0, 5, 4, 3, 2, 1]))
    value, details = SCORES["match_rate"](one)
    assert (value, details["match_rank"]) == (1, 5)
    metrics = replace(one.metrics, samples=Samples.from_crystals(batch[:5]), label=np.arange(5))
    hidden = replace(one, metrics=metrics, result=result(range(5)))
    assert SCORES["match_rate"](hidden)[0] == 0
    with pytest.raises(ValueError, match="no structure of Og"):
        ground_truth("Og")


def test_hypervolume_is_of_valid_crystals_that_were_scored():
    one = agent(
        find_task("pareto"), bulk_modulus=[200, 200, 100, 400, 1000, 400], e_above_hull=[0.25, 0.25, 0, 0.5, 0.6, 0]
    )
    value, details = SCORES["hypervolume"](one)
    # (0.5, 0.5) and (0.25, 1); the two at 0.5 eV/atom and beyond have no height, the last one is not valid
    assert value == pytest.approx(0.25 * 1 + 0.25 * 0.5)
    assert [100, 0] in details["front"]


def test_a_query_whose_energy_is_no_number_is_no_structure_found():
    one = agent(find_task("diversity"), success=np.ones(6))
    energies = np.array([0, 0, np.nan, 0.2, -0.01, np.nan])
    broken = replace(one, trace_result=one.trace_result._replace(terms={"e_above_hull": energies}))
    assert SCORES["sun_structures_found"](broken)[0] == 1  # NaCl
