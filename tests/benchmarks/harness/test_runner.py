import csv
import gzip
import json
from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks.cli import benchmark as benchmark_cli
from benchmarks.harness import runner
from benchmarks.harness.runner import RunConfig, run
from benchmarks.tasks import find_task
from crystal_env import Crystal, sample_masked

SMALL = {"budget": 60, "size": 20, "report": False}


@dataclass(frozen=True)
class Learner:
    """Asks the oracle about random crystals and then plays on at random."""

    bins: int = 48
    break_at: int = 0

    def train(self, session):
        player = Dice(self.bins, session.seed)
        env, rng = session.make_vec(10, bins=self.bins), np.random.default_rng(session.seed)
        _, info = env.reset(seed=session.seed)
        while not session.oracle.spent:
            if self.break_at and session.oracle.calls >= self.break_at and session.seed == 1:
                raise KeyboardInterrupt
            _, _, _, _, info = env.step(sample_masked(info["action_mask"], rng))
        return player


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
    assert results["schema"] == "crystalgen-results/1"
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
    assert results["seeds"][0]["summary"]["shares"]["valid"]["of"] == 20


def test_score_follows_from_the_table_alone(whole):
    results, out = whole
    with gzip.open(out / "seed-0" / "samples.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    valid = {row["label"] for row in rows if row["structural"] == row["compositional"] == "1"}
    assert len(rows) == 20
    assert len(valid) / 20 == pytest.approx(results["seeds"][0]["score"])
    for row in rows:
        crystal = Crystal.from_string(row["crystal"])
        assert crystal.formula == row["formula"]
        assert " ".join(map(str, crystal.to_actions())) == row["tokens"]
        assert row["cif"].startswith("# generated using pymatgen")


def test_interrupted_run_goes_on_and_gives_the_same(whole, tmp_path, capsys):
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
    with pytest.raises(ValueError, match="another settings"):
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
    (reason,) = seed["attempts without a crystal"]
    assert seed["attempts without a crystal"][reason] == 1
    assert seed["summary"]["shares"]["valid"]["of"] == 6
    assert results["agent"]["name"] == "made"
    assert {check["name"]: check["value"] for check in seed["checks"]}["asked before"] is None
    assert seed["calls"] <= 5


def test_cases_have_an_oracle_and_a_sample_each(monkeypatch, tmp_path):
    from dataclasses import replace

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
        ({"judge": "chgnet"}, "belong together"),
    ],
)
def test_impossible_wishes_are_refused_before_anything_is_computed(kwargs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(config(tmp_path / "out", **kwargs))
    assert not (tmp_path / "out" / "seed-0").exists()


def test_commands_list_the_tasks_and_put_the_table_in_its_place(data_folder, tmp_path, monkeypatch, capsys):
    benchmark_cli.main(["list"])
    assert "perovskites" in capsys.readouterr().out
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path / "data"))
    source = data_folder / "perovskite_castelli_18928.csv.gz"
    plain = tmp_path / "plain.csv"
    plain.write_bytes(gzip.decompress(source.read_bytes()))
    for file in (source, plain):
        benchmark_cli.main(["data", str(file)])
        assert gzip.decompress((tmp_path / "data" / source.name).read_bytes()) == plain.read_bytes()
    with pytest.raises(ValueError, match="there is no command 'play'"):
        benchmark_cli.main(["play"])
