import csv
import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import runner
from benchmarks.harness.run_folder import claimed
from benchmarks.harness.runner import RunConfig, run
from benchmarks.report.text import summary
from benchmarks.tasks import find_task
from crystal_env import Crystal, CrystalBatch, sample_masked
from rewards.hull.file_format import hull_path

CHGNET_HULL = hull_path("mp20-chgnet")
SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"
SMALL = {"budget": 60, "size": 20}


@dataclass(frozen=True)
class Learner:
    """Queries the oracle for random crystals, and then samples at random."""

    bins: int = 48
    break_at: int = 0

    def train(self, session):
        policy = Dice(self.bins, session.seed)
        env, rng = session.make_vec(10, bins=self.bins), np.random.default_rng(session.seed)
        _, info = env.reset(seed=session.seed)
        while not session.oracle.spent:
            if self.break_at and session.oracle.calls >= self.break_at and session.seed == 1:
                raise KeyboardInterrupt
            _, _, _, _, info = env.step(sample_masked(info["action_mask"], rng))
        return policy


class Dice:
    def __init__(self, bins=48, seed=0):
        self.env_kwargs, self.rng = {"bins": bins}, np.random.default_rng(seed)

    def act(self, observations, masks):
        return sample_masked(masks, self.rng)


def config(out, agent=f"{__name__}:Learner", **kwargs):
    return RunConfig("validity", agent, out, **{**SMALL, **kwargs})


@pytest.fixture(scope="module", autouse=True)
def few_known_crystals(tmp_path_factory, data_folder):
    """Two dozen crystals as MP-20, those of two compositions of the tasks among them: to read all takes minutes."""
    folder = tmp_path_factory.mktemp("data")
    with gzip.open(data_folder / "mp20_val.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    known = [row for row in rows if row["formula"] in ("CoBr2", "Co1Br2", "LaZnGa", "La2Zn2Ga2")] + rows[:24]
    for name in ("mp20_train.csv.gz", "mp20_val.csv.gz"):
        with gzip.open(folder / name, "wt", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows(known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALGEN_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return run(config(out, seeds=(0, 1))), out


def test_results_hold_what_others_need(whole):
    results, out = whole
    assert results == json.loads((out / "results.json").read_text())
    assert results["schema"] == "crystalgen-results/2"
    assert results["task"]["digest"] == find_task("validity").resized(60, 20).digest
    assert results["agent"] == {
        "name": "Learner",
        "source": f"{__name__}:Learner",
        "settings": {"bins": 48, "break_at": 0},
    }
    assert [seed["calls"] for seed in results["seeds"]] == [60, 60]
    assert results["score"]["per_seed"] == [seed["score"] for seed in results["seeds"]]
    assert results["score"]["value"] == pytest.approx(np.mean(results["score"]["per_seed"]))
    assert results["provenance"]["versions"]["gymnasium"]
    assert results["seeds"][0]["summary"]["rates"]["valid"]["total"] == 20


def test_score_follows_from_the_table_alone(whole):
    results, out = whole
    with gzip.open(out / "seed-0" / "samples.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    valid = {row["label"] for row in rows if row["structurally_valid"] == row["compositionally_valid"] == "1"}
    assert len(rows) == 20
    assert len(valid) / 20 == pytest.approx(results["seeds"][0]["score"])
    for row in rows:
        crystal = Crystal.from_string(row["crystal"])
        assert crystal.formula == row["formula"]
        assert " ".join(map(str, crystal.to_actions())) == row["tokens"]
        assert row["cif"].startswith("# generated using pymatgen")


def test_interrupted_run_resumes_and_gives_the_same(whole, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path, seeds=(0, 1), agent_kwargs='{"break_at": 20}'))
    assert (tmp_path / "seed-0" / "seed.json").is_file()
    assert (tmp_path / "seed-1" / "oracle.sqlite").is_file()
    first = (tmp_path / "seed-0" / "seed.json").stat().st_mtime_ns
    about = json.loads((tmp_path / "run.json").read_text())
    about["settings"]["break_at"] = 0  # the interruption was from outside
    (tmp_path / "run.json").write_text(json.dumps(about))
    results = run(config(tmp_path, seeds=(0, 1), resume=True))
    assert (tmp_path / "seed-0" / "seed.json").stat().st_mtime_ns == first
    assert not list(tmp_path.glob("seed-1/oracle.sqlite*"))
    for resumed, expected in zip(results["seeds"], whole[0]["seeds"], strict=True):
        assert {k: v for k, v in resumed.items() if k != "seconds"} == {
            k: v for k, v in expected.items() if k != "seconds"
        }


def test_folder_of_other_results_is_not_overwritten(whole):
    _, out = whole
    with pytest.raises(ValueError, match="--resume"):
        run(config(out))
    with pytest.raises(ValueError, match=r"another settings \(bins\)"):
        run(config(out, agent_kwargs='{"bins": 24}', resume=True))
    with pytest.raises(ValueError, match="another task"):
        run(config(out, budget=50, resume=True))


def test_files_of_crystals_are_agents_and_their_bad_rows_are_failures(whole, tmp_path):
    _, out = whole
    with gzip.open(out / "seed-0" / "samples.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "made.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["cif"], *([row["cif"]] for row in rows[:5]), ["not a crystal"]])
    results = run(config(tmp_path / "out", agent=str(path), size=6))
    seed = results["seeds"][0]
    (reason,) = seed["failures"]
    assert seed["failures"][reason] == 1
    assert seed["summary"]["rates"]["valid"]["total"] == 6
    assert results["agent"]["name"] == "made"
    assert {check["name"]: check["value"] for check in seed["checks"]}["previously_queried"] is None
    assert seed["calls"] <= 5


def test_cases_have_an_oracle_and_a_sample_each(monkeypatch, tmp_path):
    task = replace(find_task("structure-prediction"), cases=({"formula": "CoBr2"}, {"formula": "LaZnGa"}))
    monkeypatch.setattr(runner, "find_task", lambda name: task)
    results = run(config(tmp_path, agent=f"{__name__}:Dice", budget=10, size=4, relaxed=2))
    (seed,) = results["seeds"]
    assert [details["formula"] for details in seed["details"]] == ["CoBr2", "LaZnGa"]
    assert 4 <= seed["calls"] <= 8
    assert seed["budget"] == 20
    assert sorted(path.name for path in (tmp_path / "seed-0").glob("case-*")) == ["case-0", "case-1"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"agent": "nowhere"}, "module:attribute"),
        ({"agent": f"{__name__}:Nobody"}, "cannot be imported"),
        ({"agent_kwargs": "{"}, "agent_kwargs must be JSON"),
        ({"agent_kwargs": '{"bin": 1}'}, "do not fit"),
        ({"seeds": (0, 0)}, "seeds must be different"),
        ({"relaxed": -1}, "relaxed must not be negative"),
        ({"reference": (Path("nowhere.csv"),)}, "no such file"),
        ({"cross_check": "chgnet", "cross_check_hull": Path("nowhere.npz")}, "nowhere.npz"),
        ({"cross_check": "chgnet"}, "belong together"),
    ],
)
def test_mistakes_are_refused_before_the_folder_is_touched(kwargs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(config(tmp_path / "out", **kwargs))
    assert not (tmp_path / "out").exists()
    if "agent_kwargs" not in kwargs and "agent" not in kwargs:
        run(config(tmp_path / "out", size=4, budget=4))  # the corrected command


def test_a_mistake_that_training_finds_leaves_the_folder_free(tmp_path):
    wrong, right = ({"agent_kwargs": json.dumps({"bins": bins})} for bins in (49, 48))
    with pytest.raises(ValueError, match="bins must be a positive multiple of 24, got 49"):
        run(config(tmp_path / "out", **wrong))
    run(config(tmp_path / "out", size=4, budget=4, **right))
    with pytest.raises(ValueError, match="another settings"):
        run(config(tmp_path / "out", size=4, budget=4, resume=True, **wrong))


@pytest.fixture
def finished(tmp_path, few_known_crystals):
    """A finished run in a folder, with reference and samples of its own."""
    reference = tmp_path / "reference.csv.gz"
    reference.write_bytes((few_known_crystals / "mp20_val.csv.gz").read_bytes())
    settings = {"size": 4, "budget": 4, "reference": (reference,), "out": tmp_path / "out"}
    run(config(**settings))
    return settings | {"resume": True}


def test_a_run_is_not_resumed_with_another_reference(finished, tmp_path, few_known_crystals):
    """Its seeds would be novel against different crystals."""
    (tmp_path / "other.npz").write_bytes(b"")
    CrystalBatch.empty().save(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="another reference"):
        run(config(**finished | {"reference": (tmp_path / "other.npz",)}))
    moved = tmp_path / "moved" / "reference.csv.gz"
    moved.parent.mkdir()
    finished["reference"][0].rename(moved)
    run(config(**finished | {"reference": (moved,)}))  # the same content in another place


@pytest.mark.parametrize("changed", [{"relaxed": 3}, {"cross_check": "chgnet", "cross_check_hull": CHGNET_HULL}])
def test_a_run_is_not_resumed_with_other_checks(tmp_path, changed):
    settings = {"size": 4, "budget": 4}
    task = replace(find_task("stability"), reward="rewards:Validity", reward_kwargs={}).resized(4, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "find_task", lambda name: task)
        run(config(tmp_path, agent=f"{__name__}:Dice", **settings, relaxed=2))
        with pytest.raises(ValueError, match=f"another .*{next(iter(changed))}"):
            run(config(tmp_path, agent=f"{__name__}:Dice", **settings | {"relaxed": 2} | changed, resume=True))


def test_another_file_of_the_same_name_is_another_agent(tmp_path):
    crystals = [Crystal.from_string(SALT.format(*[length] * 3)) for length in (5.6, 5.7)]
    CrystalBatch.from_crystals(crystals).save(tmp_path / "made.npz")
    settings = {"out": tmp_path / "out", "agent": str(tmp_path / "made.npz"), "size": 2, "budget": 2}
    run(config(**settings))
    CrystalBatch.from_crystals(crystals[:1]).save(tmp_path / "made.npz")
    with pytest.raises(ValueError, match="another agent"):
        run(config(**settings, resume=True))


def test_damaged_files_are_made_again(finished):
    out = finished["out"]
    before = json.loads((out / "results.json").read_text())["seeds"][0]
    for name in ("seed.json", "crystals.npz"):
        path = out / "seed-0" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (after,) = run(config(**finished))["seeds"]
    assert {**before, "seconds": None} == {**after, "seconds": None}
    (out / "run.json").write_text('{"task": ')
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        run(config(**finished))


def test_two_processes_do_not_share_a_folder(finished):
    identity = json.loads((finished["out"] / "run.json").read_text())
    error = pytest.raises(ValueError, match="in use by")
    with claimed(finished["out"], identity, resume=True), error:
        run(config(**finished))
    run(config(**finished))


def test_results_name_the_reference_of_novelty(finished):
    results = json.loads((finished["out"] / "results.json").read_text())
    assert list(results["reference"]["files"]) == ["reference.csv.gz"]
    assert results["reference"]["crystals"] > 20
    assert f"({results['reference']['crystals']} crystals)" in summary(results)
