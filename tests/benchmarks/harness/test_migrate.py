"""Old results become those of the current format, number by number, once."""

import csv
import gzip
import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import pytest

import benchmarks
from benchmarks.harness.migrate import migrate, migrate_results
from benchmarks.harness.scores import SCORES
from benchmarks.metrics.labels import CHECKS, label
from benchmarks.report.leaderboard import leaderboard
from benchmarks.tasks import find_task

RESULTS = Path(benchmarks.__file__).parent / "results"
TASK = find_task("stability").resized(2000, 400)


def share(count):
    return {"count": count, "of": 400, "share": count / 400, "interval": [0.1, 0.2]}


def seed(number, score):
    return {
        "seed": number,
        "score": score,
        "details": [{"groups": {"225": {"S.U.N.": 0.5, "of": 4, "in MP-20": 9}}, "best total": 1.0}],
        "calls": 2000,
        "budget": 2000,
        "attempts without a crystal": {"missing": 2},
        "summary": {
            "shares": {"valid": share(80), "scored": share(90), "S.U.N. (≤ 0.1 eV/atom)": share(65), "in P1": share(1)},
            "mean e_above_hull": 0.5,
            "intervals": {"mean e_above_hull": [0.4, 0.6]},
            "below hull by more than 0.2 eV/atom": 8,
            "variety": {"prototypes": 241.0, "largest share of prototypes": 0.09, "entropy of prototypes": 5.0},
        },
        "efficiency": {"auc top-10": 0.92, "calls to 1": 9, "burden": 3.2, "best": 0.2},
        "curve": {"calls": [1], "top-10": [0.1], "mean": [0.1]},
        "checks": [
            {"name": "second judge", "passed": False, "value": 0.5, "limit": "", "detail": "there is no second judge"},
            {"name": "asked before", "passed": None, "value": 0.25, "limit": "", "detail": ""},
        ],
        "seconds": {"training": 1.0, "drawing": 2.0, "evaluation": 3.0},
    }


def old_task():
    task = json.loads(json.dumps(asdict(TASK)))
    task["judge"], task["score"] = task.pop("stability"), "S.U.N."
    plain = {name: value for name, value in task.items() if name != "summary"}
    digest = sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return {**task, "name": "stability", "digest": digest}


def old_results():
    """Results as an earlier version wrote them."""
    scores = [0.16, 0.17, 0.20]
    train = "080d7371b616ace0c9378b47fd7f94df225ac6710e8e16d33220e16c38954014"
    return {
        "schema": "crystalgen-results/1",
        "task": old_task(),
        "agent": {"name": "RandomPlay", "source": "benchmarks.baselines:RandomPlay", "settings": {"bins": 48}},
        "score": {"name": "S.U.N.", "value": 0.17, "interval": [0.16, 0.20], "per_seed": scores},
        "seeds": [seed(number, score) for number, score in enumerate(scores)],
        "flags": ["second judge"],
        "provenance": {"hashes": {"mp20_train.csv.gz": train}, "command": "crystalgen benchmark run --judge x"},
    }


def test_numbers_stay_and_keys_become_identifiers():
    new = migrate_results(old_results())
    assert new["schema"] == "crystalgen-results/2"
    assert new["task"]["digest"] == TASK.digest
    assert new["agent"]["source"] == "benchmarks.baselines:RandomPolicy"
    assert new["score"]["name"] == "sun"
    assert new["score"]["value"] == pytest.approx(0.53 / 3)
    assert new["score"]["interval_kind"] == "range"
    assert new["reference"]["crystals"] == 27_136
    assert new["flags"] == ["cross_check"]
    assert new["provenance"] == old_results()["provenance"]
    one = new["seeds"][0]
    assert one["summary"]["rates"]["sun_0.1"] == {"count": 65, "total": 400, "rate": 65 / 400, "interval": [0.1, 0.2]}
    assert (one["summary"]["e_above_hull_mean"], one["summary"]["below_hull_outliers_count"]) == (0.5, 8)
    assert one["summary"]["intervals"] == {"e_above_hull_mean": [0.4, 0.6]}
    variety = {"templates": 241.0, "largest_template_fraction": 0.09, "template_entropy": 5.0}
    assert one["summary"]["variety"] == variety
    assert one["efficiency"] == {"mean_top_10": 0.92, "calls_to_1": 9, "calls_per_success": 3.2, "best": 0.2}
    assert one["details"] == [{"groups": {"225": {"sun": 0.5, "total": 4, "in_mp20": 9}}, "best_total": 1.0}]
    assert (one["failures"], one["seconds"]["sampling"]) == ({"missing": 2}, 2.0)
    assert one["curve"] == {"calls": [1], "top_10": [0.1], "mean": [0.1]}
    assert one["checks"][0]["detail"] == "no cross-check potential"


def test_migrated_results_are_ranked_and_migrated_once(tmp_path):
    folder = tmp_path / "mine"
    (folder / "seed-0").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(old_results()))
    (folder / "seed-0" / "seed.json").write_text(json.dumps(seed(0, 0.16)))
    with gzip.open(folder / "seed-0" / "samples.csv.gz", "wt") as file:
        file.write("row,structural,compositional,found,novel\n0,1,1,0,1\n")
    assert "crystalgen benchmark migrate" in leaderboard([tmp_path])
    assert len(migrate([tmp_path])) == 3
    assert migrate([tmp_path]) == []
    assert "| 1 | RandomPolicy | 0.1767 (0.1600 to 0.2000) | ⚠ cross-check potential |" in leaderboard([tmp_path])
    with gzip.open(folder / "seed-0" / "samples.csv.gz", "rt") as file:
        (row,) = csv.DictReader(file)
    expected = {"structurally_valid": "1", "compositionally_valid": "1", "space_group_recovered": "0", "novel": "1"}
    assert row == {"row": "0"} | expected


def test_a_digest_that_was_not_of_the_definition_is_not_mended():
    old = old_results()
    old["task"]["digest"] = "0" * 64
    assert migrate_results(old)["task"]["digest"] == "0" * 64
    other = old_results()
    other["task"] |= {"floor": -1.0}
    assert migrate_results(other)["task"]["digest"] not in (TASK.digest, replace(TASK, floor=-1.0).digest)


def test_other_published_files_are_migrated_alike(tmp_path):
    (tmp_path / "run.json").write_text('{"settings": {}, "history": [{"step": 1, "rollout/success_share": 0.5}]}')
    dielectric = {"base": {"shares": {"merit ≥ 100 eV": [5, 1000, 0.002, 0.012]}, "mean merit (eV)": 7.4}}
    (tmp_path / "results.json").write_text(json.dumps(dielectric))
    assert len(migrate([tmp_path])) == 2
    run, results = (json.loads((tmp_path / name).read_text()) for name in ("run.json", "results.json"))
    assert run["history"] == [{"step": 1, "rollout/success_rate": 0.5}]
    assert results["base"]["rates"]["figure_of_merit_100"]["rate"] == 0.005
    assert results["base"]["figure_of_merit_mean"] == 7.4


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="there is no"):
        migrate([tmp_path / "nowhere"])


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("results.json")), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_published_results_are_of_the_current_format(path):
    values = json.loads(path.read_text())
    assert migrate_results(values) == values
    if "schema" in values:
        assert values["score"]["name"] in SCORES
        for entry in values["seeds"]:
            assert all(label(name) for part in ("rates", "variety") for name in entry["summary"][part])
            assert all(label(name) for name in entry["efficiency"])
            assert {check["name"] for check in entry["checks"]} <= set(CHECKS)
