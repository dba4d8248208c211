"""The command line, down to the files the demonstration leaves."""

import json
import re

import pytest

from benchmarks.cli import main


def test_demo_trains_reports_and_writes_crystals(tmp_path, capsys):
    main(["demo", "--out", str(tmp_path), "--steps", "2048", "--crystals", "40", "--num-envs", "16"])
    shown = capsys.readouterr().out
    assert re.search(r"random +trained", shown)
    table = json.loads((tmp_path / "results.json").read_text())
    assert set(table) == {"random", "trained"}
    assert all(0 <= table[who]["stable share (at most 0.1 eV/atom)"] <= 1 for who in table)
    for name in ("learning.png", "agent.zip"):
        assert (tmp_path / name).stat().st_size > 1000
    assert list(tmp_path.glob("MaskablePPO_1/events*"))


@pytest.mark.parametrize("command", [[], ["demo", "--help"], ["hull", "--help"]])
def test_help_is_shown(command, capsys):
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["hull", "info", "nothing-there"], "nothing-there"),
        (["hull", "check", "missing.csv"], "missing.csv"),
        (["demo", "--num-envs", "0"], "num_envs must be a positive integer"),
    ],
)
def test_mistakes_of_users_end_with_one_line(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as end:
        main(command)
    assert str(end.value).startswith("crystalgen: ")
