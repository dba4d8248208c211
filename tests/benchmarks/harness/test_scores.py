import csv
import gzip

import numpy as np
import pytest

from benchmarks.harness.rollout import Drawn
from benchmarks.harness.scores import SCORES, Judged, dominated_area, ground_truth, pareto_front, sun_rows
from benchmarks.harness.scoring import numbers, together
from benchmarks.metrics.sample import Examination
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


def judged(task, *, total=(1, 1, 1, 1, 0, 0), size=10, energies=(0, 0, 0.05, 0.2, -0.01, np.nan), **terms):
    n = len(CRYSTALS)
    sample = Examination(
        CRYSTALS,
        np.array([True, True, True, True, True, False]),
        np.ones(n, bool),
        np.ones(n, bool),
        np.array(energies, np.float64),
        structure_labels(CRYSTALS),
        np.array([True, True, False, True, True, True]),
    )
    failures = np.full(size, None, object)
    failures[n:] = "no crystal"
    requested = np.concatenate([CRYSTALS.G, np.full(size - n, 225)])
    drawn = Drawn(CRYSTALS, np.arange(n), requested, failures, np.full(n, np.nan))
    return Judged(
        task,
        drawn,
        sample,
        result(total, **terms),
        CRYSTALS,
        result(total, e_above_hull=energies),
        CrystalBatch.from_crystals([salt("Rb", "F", 5.5)]),
    )


def test_every_task_has_a_score_that_there_is():
    assert {task.score for task in TASKS} == set(SCORES)


def test_sun_counts_one_after_the_other_and_every_attempt():
    one = judged(find_task("stability"))
    assert sun_rows(one.sample).tolist() == [0, 4]  # NaCl once, CsCl is known, KBr not stable, MgO has no energy
    assert SCORES["S.U.N."](one)[0] == 2 / 10
    assert SCORES["S.U.N. successes"](one)[0] == 1 / 10
    assert SCORES["valid and unique"](one)[0] == 4 / 10
    assert SCORES["unique successes"](one) == (3 / 10, {"successes": 4})


def test_mean_of_groups_gives_each_group_the_same_weight():
    value, details = SCORES["mean S.U.N. of groups"](judged(find_task("groups")))
    assert details["groups"]["225"]["S.U.N."] == pytest.approx(2 / 9)
    assert details["groups"]["221"]["S.U.N."] == 0
    assert value == pytest.approx((2 / 9 + 0) / 2)


def test_structures_found_are_different_stable_and_not_in_the_reference():
    value, details = SCORES["S.U.N. structures found"](judged(find_task("diversity"), success=np.ones(6)))
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
    one = judged(task)
    one = one._replace(
        sample=one.sample._replace(crystals=batch, label=np.arange(6)), result=result([0, 5, 4, 3, 2, 1])
    )
    value, details = SCORES["match rate"](one)
    assert (value, details["rank of the match"]) == (1, 5)
    hidden = one._replace(sample=one.sample._replace(crystals=batch[:5], label=np.arange(5)), result=result(range(5)))
    assert SCORES["match rate"](hidden)[0] == 0
    with pytest.raises(ValueError, match="no structure of Og"):
        ground_truth("Og")


def test_dominated_area_is_that_of_a_grid():
    points = np.random.default_rng(0).random((20, 2))
    grid = (np.arange(400) + 0.5) / 400
    inside = (points[:, 0, None, None] > grid[:, None]) & (points[:, 1, None, None] > grid)
    assert dominated_area(points) == pytest.approx(inside.any(0).mean(), abs=0.01)
    front = points[pareto_front(points)]
    beaten = [((points >= p) & (points != p)).all(1).any() for p in points]
    assert sorted(map(tuple, front)) == sorted(map(tuple, points[~np.array(beaten)]))


def test_hypervolume_is_of_valid_crystals_that_were_scored():
    one = judged(
        find_task("pareto"), bulk_modulus=[200, 200, 100, 400, 1000, 400], e_above_hull=[0.25, 0.25, 0, 0.5, 0.6, 0]
    )
    value, details = SCORES["hypervolume"](one)
    # (0.5, 0.5) and (0.25, 1); the two at 0.5 eV/atom and beyond have no height, the last one is not valid
    assert value == pytest.approx(0.25 * 1 + 0.25 * 0.5)
    assert [100, 0] in details["front"]


def test_numbers_of_cases_are_means_and_attempts_without_a_crystal_are_counted():
    task = find_task("density")
    both = numbers([judged(task), judged(task, total=(0, 0, 0, 0, 0, 0))])
    assert both["score"] == pytest.approx((0.3 + 0) / 2)
    assert both["attempts without a crystal"] == {"no crystal": 8}
    assert both["summary"]["shares"]["valid"]["of"] == 20
    assert both["calls"] == 12
    assert both["efficiency"]["calls to 1"] is None
    assert len(both["curve"]["calls"]) == len(both["curve"]["top-10"])
    joined = together([judged(task).sample, judged(task).sample])
    assert len(np.unique(joined.label)) == 2 * len(np.unique(judged(task).sample.label))
