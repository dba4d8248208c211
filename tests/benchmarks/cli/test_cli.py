"""The command line: help, mistakes of users, faults of ours, and modules of the working folder."""

import sys

import pytest

from agents import CrystalFormer
from benchmarks.cli.cli import COMMANDS, main
from crystal_env import Crystal

MY_REWARD = """
import numpy as np

from crystal_env.reward import RewardResult


def flat(crystals):
    return RewardResult(np.ones(len(crystals)), {"success": np.ones(len(crystals))}, np.full(len(crystals), None))
"""


def test_commands_are_listed_with_what_they_do(capsys):
    for command in ([], ["--help"]):
        main(command)
        shown = capsys.readouterr().out
        for name, text in COMMANDS.items():
            assert f"  {name} " in shown
            assert text in shown
            assert text[0].isupper()
            assert text.endswith(".")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "benchmark"])
def test_help_is_shown(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fly", "no command 'fly'"),
        ("demo --iterations 0", "iterations must be an integer of at least 1"),
        ("hull info nothing-there", "nothing-there"),
        ("hull check missing.csv", "missing.csv"),
        ("hull build missing.csv --out hull.npz", "missing.csv"),
        ("property train --run r --structures missing.csv --target gap", "missing.csv"),
        ("sample --model nowhere --out out", "no model 'nowhere'"),
        ("sample --out out --size 2 --reward nothing:here", "'nothing:here' cannot be imported"),
        ("pretrain --data missing.csv --run r", "missing.csv"),
        ("finetune --model nowhere --run r", "no model 'nowhere'"),
        ("dpo --model nowhere --run r", "no model 'nowhere'"),
        ("train --model nowhere --run r", "no model 'nowhere'"),
        ("train --run r --reward rewards:Nothing", "'rewards:Nothing' cannot be imported"),
        ("train --run r --resume", "r holds no run"),
        ("mcmc --model nowhere --out out", "no model 'nowhere'"),
        ("convert missing.pkl out", "no model 'missing.pkl'"),
        ("evaluate missing.csv", "missing.csv"),
        ("benchmark fly", "no command 'fly'"),
        ("benchmark run nothing --agent a:B --out out", "nothing"),
        ("benchmark run validity --agent missing:Agent --out out", "'missing:Agent' cannot be imported"),
        ("benchmark run validity --agent missing.csv --out out", "missing.csv"),
        ("benchmark report missing", "missing"),
        ("benchmark data missing.csv", "missing.csv"),
        ("benchmark leaderboard missing", "missing"),
    ],
)
def test_mistakes_of_users_end_with_one_line(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as end:
        main(command.split())
    assert str(end.value).startswith("crystalgen: ")
    if "fly" not in command:
        assert "\n" not in str(end.value)


def test_a_missing_package_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matgl.models", None)
    cif = Crystal.from_string("225-a-Cu-0-0-0-X-3.6-3.6-3.6-90-90-90").to_structure().to(fmt="cif")
    rows = "".join(f'c{n},1.0,"{cif}"\n' for n in range(3))
    (tmp_path / "copper.csv").write_text(f"material_id,gap,cif\n{rows}")
    command = ["property", "train", "--structures", "copper.csv", "--target", "gap", "--split", "1", "1", "1"]
    with pytest.raises(SystemExit, match=r"^crystalgen: .*crystalgen\[matgl\]") as end:
        main([*command, "--run", "run"])
    assert "\n" not in str(end.value)


FAULTS = [ValueError("broken"), KeyError("broken"), FileNotFoundError(2, "gone", "inside.npz")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_ours_keeps_its_traceback(fault, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise fault

    monkeypatch.setattr(CrystalFormer, "sample", broken)
    with pytest.raises(type(fault)):
        main(["sample", "--out", str(tmp_path / "out"), "--size", "2"])


@pytest.mark.parametrize("command", ["sample", "train", "finetune", "mcmc"])
def test_rewards_of_the_working_folder_are_found(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"my_{command}_reward"
    (tmp_path / f"{name}.py").write_text(MY_REWARD)
    options = {
        "sample": "--out out --size 2",
        "train": "--run r --iterations 1 --batch-size 2 --samples 0",
        "finetune": "--run r --samples 4 --epochs 1",
        "mcmc": "--out out --chains 2 --steps 1",
    }
    before = list(sys.path)
    main([command, *options[command].split(), "--reward", f"{name}:flat"])
    assert sys.path == before
    sys.modules.pop(name)
