"""The command line, down to the files the demonstration leaves."""

import json
import re

import pytest

from benchmarks.cli.cli import COMMANDS, main


def test_demo_trains_reports_and_writes_crystals(tmp_path, capsys):
    main(["demo", "--out", str(tmp_path), "--iterations", "2", "--batch-size", "16", "--crystals", "40"])
    shown = capsys.readouterr().out
    assert re.search(r"before +after", shown)
    table = json.loads((tmp_path / "results.json").read_text())
    assert set(table) == {"before", "after"}
    assert all(0 < table[who]["stable share (at most 0.1 eV/atom)"] < 1 for who in table)
    assert table["before"]["divergence from the base model (nats)"] == 0
    assert table["after"]["divergence from the base model (nats)"] != 0
    assert (tmp_path / "learning.png").stat().st_size > 1000
    assert (tmp_path / "run" / "agent.zip").stat().st_size > 1000


def test_commands_are_listed(capsys):
    for command in ([], ["--help"]):
        main(command)
        shown = capsys.readouterr().out
        assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(
    "command", ["demo", "hull", "sample", "pretrain", "finetune", "dpo", "train", "mcmc", "evaluate", "convert"]
)
def test_help_is_shown(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["hull", "info", "nothing-there"], "nothing-there"),
        (["hull", "check", "missing.csv"], "missing.csv"),
        (["demo", "--iterations", "0"], "iterations must be an integer of at least 1"),
        (["fly"], "no command 'fly'"),
    ],
)
def test_mistakes_of_users_end_with_one_line(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as end:
        main(command)
    assert str(end.value).startswith("crystalgen: ")
