"""A run of reinforcement holds all of itself, resumes after an interruption, and explains what is wrong with it."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from scored_crystals import assert_same, transitions
from tiny_grammar import base_model

from agents import KLPPO, CrystalFormer, DPOConfig, FinetuneConfig, PretrainConfig, dpo, finetune, pretrain
from agents import cli as commands
from agents.klppo.config import TrainConfig
from agents.klppo.run import train
from agents.training.replay_buffer import ReplayBuffer
from agents.training.replay_file import write_transitions
from agents.training.run_folder import RunFolder
from benchmarks.cli import cli
from crystal_env import Crystal, CrystalBatch
from crystal_env.errors import InputError


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    base_model().float().save_pretrained(path)
    return str(path)


def config(run, base, **options):
    options = {"reward": "tiny_grammar:reward", "space_group": (221, 225), "batch_size": 16, "samples": 5, **options}
    constraints = {"elements": ["Li", "F", "Cl"], "max_sites": 2, "max_atoms": 2}
    return TrainConfig(run=run, model=base, constraints=constraints, iterations=4, **options)


def weights(path):
    return torch.cat([p.detach().flatten() for p in CrystalFormer.from_pretrained(path).parameters()])


def test_a_run_leaves_everything_behind(tmp_path, base):
    run = tmp_path / "run"
    agent = train(config(run, base), progress=False)
    assert agent.iteration == 4
    about = json.loads((run / "run.json").read_text())
    assert about["settings"]["batch_size"] == 16
    assert about["versions"]["torch"] == torch.__version__
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [1, 2, 3, 4]
    assert [entry["crystals"] for entry in history] == [16, 32, 48, 64]
    assert all({"rollout/kl", "rollout/reward_mean", "time/update_seconds"} <= entry.keys() for entry in history)
    assert (run / "curve.png").stat().st_size > 1000
    assert list((run / "tensorboard").glob("events*"))
    trained = torch.cat([p.detach().flatten() for p in agent.model.parameters()])
    assert torch.equal(weights(run / "model"), trained)
    assert not torch.equal(trained, weights(base))


def test_samples_are_files_and_a_table(tmp_path, base):
    run = tmp_path / "run"
    agent = train(config(run, base), progress=False)
    crystals = CrystalBatch.load(run / "samples" / "crystals.npz")
    with (run / "samples" / "crystals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(crystals) == 5
    options = {"elements": ["Li", "F", "Cl"], "max_sites": 2, "max_atoms": 2}
    with torch.no_grad():
        log_prob = agent.model.log_prob(crystals, **options).total.numpy()
    for row, crystal, score in zip(rows, crystals, log_prob, strict=True):
        assert Crystal.from_string(row["crystal"]) == crystal
        assert float(row["reward"]) == pytest.approx(agent.adapter.score(crystal.to_batch()).total[0])
        assert float(row["log_prob"]) == pytest.approx(score, abs=1e-4)
    for path, crystal in zip(sorted((run / "samples" / "cif").glob("*.cif")), crystals, strict=True):
        assert Crystal.from_structure(read(path)).formula == crystal.formula


def test_an_interrupted_run_resumes_as_if_it_never_was(tmp_path, base, monkeypatch):
    train(config(tmp_path / "straight", base, schedule="linear"), progress=False)
    import agents.klppo.run

    def curves(history, path):
        if len(history) == 2 and not (tmp_path / "interrupted").exists():
            (tmp_path / "interrupted").touch()
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(agents.klppo.run, "draw_curves", curves)
    with pytest.raises(KeyboardInterrupt, match="iteration 2; resume it"):
        train(config(tmp_path / "stopped", base, schedule="linear"), progress=False)
    assert not (tmp_path / "stopped" / "samples").exists()
    train(TrainConfig.of_run(tmp_path / "stopped", device="cpu", checkpoint_minutes=1), progress=False)
    assert torch.equal(weights(tmp_path / "stopped" / "model"), weights(tmp_path / "straight" / "model"))
    histories = [
        [
            json.loads(line)["rollout/reward_mean"]
            for line in (tmp_path / run / "history.jsonl").read_text().splitlines()
        ]
        for run in ("straight", "stopped")
    ]
    assert histories[0] == histories[1]
    same = [CrystalBatch.load(tmp_path / run / "samples" / "crystals.npz").XYZ for run in ("straight", "stopped")]
    np.testing.assert_array_equal(*same)


def test_a_run_is_not_overwritten_or_resumed_as_another_one(tmp_path, base):
    run = tmp_path / "run"
    train(config(run, base), progress=False)
    with pytest.raises(ValueError, match="resume it, or choose another folder"):
        train(config(run, base), progress=False)
    with pytest.raises(ValueError, match="tau"):
        train(config(run, base, tau=0.2, resume=True), progress=False)


def test_a_run_starts_from_the_crystals_of_a_file(tmp_path, base):
    """One of them is outside the constraints of the environment. The run, its export and a resumed run need no file."""
    given, run = transitions(range(0, 790, 10)), tmp_path / "run"
    given.crystals.A[4, 0] = 8
    write_transitions(tmp_path / "known.csv.gz", given)
    agent = train(config(run, base, loss="topr", replay_from=tmp_path / "known.csv.gz", samples=0), progress=False)
    assert len(agent.buffer) == 78 + 4 * 16
    assert json.loads((run / "run.json").read_text())["replayed"] == 78
    (tmp_path / "known.csv.gz").unlink()
    KLPPO.load(run / "agent.zip").buffer.save(tmp_path / "replay.npz")
    exported = ReplayBuffer.load(tmp_path / "replay.npz")
    assert_same(exported, agent.buffer)
    np.testing.assert_array_equal(exported.data.result.total[:4], given.result.total[:4])
    assert exported.data.is_sampled.tolist() == [False] * 78 + [True] * 64
    assert train(TrainConfig.of_run(run), progress=False).iteration == 4


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("crystal,reward\n", {}, "replay_from must hold crystals of the environment, .*known.csv has none"),
        ("crystal,reward\nNaCl,1\n", {}, "line 2 of .*known.csv: text form must be"),
        (None, {}, "no such file: .*known.csv"),
        (None, {"loss": "ppo"}, "replay_from needs loss 'topr' or 'balance'"),
    ],
)
def test_a_run_does_not_start_from_a_file_that_is_of_no_use(tmp_path, base, text, options, words):
    if text is not None:
        (tmp_path / "known.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        train(config(tmp_path / "run", base, replay_from=tmp_path / "known.csv", **{"loss": "topr", **options}), False)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_changed_file_of_settings_is_refused_by_name(tmp_path, base):
    run = tmp_path / "run"
    train(config(run, base), progress=False)
    path = run / "run.json"
    path.write_text(path.read_text().replace('"tau": 0.1', '"tau": 0.3'))
    with pytest.raises(SystemExit, match=r"cannot be resumed with tau = 0.3 \(it was 0.1\)"):
        cli.main(["train", "--resume", "--run", str(run)])


def test_a_crash_in_the_middle_of_a_line_loses_that_line_only(tmp_path, base):
    run = tmp_path / "run"
    train(config(run, base), progress=False)
    path = run / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    train(TrainConfig.of_run(run), progress=False)
    assert [entry["step"] for entry in map(json.loads, path.read_text().splitlines())] == [1, 2, 3]


def test_two_processes_do_not_share_a_run(tmp_path, base):
    settings = config(tmp_path / "run", base)
    with RunFolder(settings.run).lock():
        starts = (
            lambda: train(settings, progress=False),
            lambda: finetune(FinetuneConfig(settings.run, base), False),
            lambda: dpo(DPOConfig(settings.run, base), False),
            lambda: pretrain(PretrainConfig(tmp_path / "none.csv", settings.run), False),
        )
        for start in starts:
            with pytest.raises(InputError, match=f"run {settings.run} is in use by"):
                start()


@pytest.mark.parametrize("command", ["train", "pretrain", "finetune", "dpo"])
def test_a_run_resumes_on_another_device_from_the_command_line(tmp_path, base, command, monkeypatch):
    """A run that began on a GPU, as far as its settings tell."""
    run, seen = tmp_path / "run", []
    kinds = {"train": TrainConfig, "pretrain": PretrainConfig, "finetune": FinetuneConfig, "dpo": DPOConfig}
    data = {"data": tmp_path / "data.csv"} if command == "pretrain" else {}
    settings = kinds[command](run=run, device="cuda", **data)
    RunFolder(run).write_settings(settings.plain())
    monkeypatch.setitem(commands._RUNS, command, (kinds[command], seen.append))
    cli.main([command, "--resume", "--run", str(run), "--device", "cpu", "--checkpoint-minutes", "0.5"])
    assert (seen[0].device, seen[0].checkpoint_minutes, seen[0].resume) == ("cpu", 0.5, True)
    RunFolder(run).check_settings(seen[0].plain(), settings.plain())
    cli.main([command, "--resume", "--run", str(run)])
    assert (seen[1].device, seen[1].checkpoint_minutes) == ("cuda", 5.0)


def parsed(words, monkeypatch):
    seen = []
    monkeypatch.setitem(commands._RUNS, "train", (TrainConfig, seen.append))
    cli.main(["train", "--run", "somewhere", *words])
    return seen[0]


def test_the_command_takes_the_best_preset_and_arguments_win(monkeypatch):
    run = Path("somewhere")
    assert parsed([], monkeypatch) == TrainConfig.from_preset("best", run=run)
    assert parsed(["--preset", "paper"], monkeypatch) == TrainConfig(run=run)
    words = ["--n-epochs", "3", "--reward-range", "None", "--preset=best", "--log-ratio-weights", "{}"]
    ours = {"n_epochs": 3, "reward_range": None, "log_ratio_weights": {}}
    assert parsed(words, monkeypatch) == TrainConfig.from_preset("best", run=run, **ours)
    ours = {"replay_from": Path("known.csv")}
    assert parsed(["--replay-from", "known.csv"], monkeypatch) == TrainConfig.from_preset("best", run=run, **ours)
    words = ["--reward", "rewards:Density", "--reward-kwargs", '{"target": 3.0}']
    ours = {"reward": "rewards:Density", "reward_kwargs": {"target": 3.0}}
    assert parsed(words, monkeypatch) == TrainConfig.from_preset("best", run=run, **ours)


def test_every_help_line_stands_alone(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for line in ("Peak Adam learning rate", "Training iterations", "Preset that the other settings default to"):
        assert line in text


def test_a_wrong_number_on_the_command_line_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--run", str(tmp_path / "run"), "--tau", "-1"])
    assert "tau must be a finite number of at least 0" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_the_commands_run_as_a_module(tmp_path, base):
    run = [sys.executable, "-m", "agents.cli"]
    again = subprocess.run([*run, "train", "--resume", "--run", str(tmp_path)], capture_output=True, text=True)
    assert again.stderr == f"crystalgen: {tmp_path} holds no run to resume: run.json is missing\n"
    wrong = subprocess.run([*run, "evaluate"], capture_output=True, text=True)
    assert "takes one of convert, pretrain, finetune, dpo, train, sample, mcmc, got 'evaluate'" in wrong.stderr
    code = "import sys, agents.cli; assert not any(name.startswith('benchmarks') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_trains_samples_and_converts(tmp_path, base, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    words = [
        "--constraints",
        '{"elements": ["Li", "F"], "max_sites": 2, "max_atoms": 2}',
        "--space-group",
        "221",
        "225",
    ]
    cli.main(["train", "--run", str(run), "--model", base, "--reward", "rewards:Density", "--reward-kwargs",
              '{"target": 2.0}', *words, "--iterations", "2", "--batch-size", "8", "--samples", "0"])  # fmt: skip
    assert f"the model is in {run / 'model'}" in capsys.readouterr().out
    cli.main(["train", "--resume", "--run", str(run)])
    cli.main(["sample", "--out", str(out), "--model", str(run / "model"), "--size", "6", *words, "--reward",
              "rewards:Density", "--best-of", "3"])  # fmt: skip
    crystals = CrystalBatch.load(out / "crystals.npz")
    assert len(crystals) == len(list((out / "cif").glob("*.cif"))) == 6
    assert set(crystals.A.ravel()) <= {0, 3, 9}
    cli.main(["convert", base, str(tmp_path / "converted")])
    assert torch.equal(weights(tmp_path / "converted"), weights(base))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--run", "{run}", "--reward", "nothing:here"], "nothing"),
        (["train", "--run", "{run}", "--model", "no-such-model"], "no model 'no-such-model'"),
        (["train", "--resume", "--run", "{run}"], "holds no run"),
        (["sample", "--out", "{run}", "--best-of", "2"], "needs a reward"),
        (["sample", "--out", "{run}", "--space-group", "231"], "231"),
    ],
)
def test_mistakes_are_one_line(tmp_path, words, message):
    with pytest.raises(SystemExit, match=message) as end:
        cli.main([word.format(run=tmp_path / "run") for word in words])
    assert str(end.value).startswith("crystalgen: ")
