"""The command ``python -m benchmarks.paper``."""

import json
import os
import re
from pathlib import Path

import pytest

from benchmarks.paper import published
from benchmarks.paper.__main__ import TARGETS, main, usage
from benchmarks.paper.settings import Settings

NAMES = ["fig2", "fig3", "fig4", "fig5", "fig6", "table_s2", "table_s3", "fig_s1", "fig_s2", "fig_s3", "fig_s4"]


def test_the_command_has_eleven_names_and_refuses_others(capsys):
    assert list(TARGETS) == NAMES == list(published.NUMBERS)
    main([])
    shown = capsys.readouterr().out
    assert shown == usage() + "\n"
    assert all(f"  {name} " in shown for name in NAMES)
    with pytest.raises(SystemExit, match=", ".join(NAMES)):
        main(["fig7"])
    with pytest.raises(SystemExit):
        main(["fig2", "--size", "0"])
    assert "size must be at least 1, got 0" in capsys.readouterr().err


def test_the_command_prints_and_writes(data, tmp_path, capsys):
    main(["fig_s2", "--size", "7", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")])
    shown = capsys.readouterr().out
    assert "| crystals of the training set | 1,040,000 | 7 |" in shown
    assert json.loads((tmp_path / "out" / "fig_s2.json").read_text())["provenance"]["settings"]["size"] == 7


@pytest.mark.parametrize(("preset", "tau", "counted"), [("paper", "0.1", "stable"), ("best", "–", "new S.U.N.")])
def test_the_preset_is_chosen_on_the_command_line(preset, tau, counted, data, tmp_path, capsys):
    size = ["--preset", preset, "--iterations", "2", "--batch-size", "4", "--hull", "mp20-chgnet"]
    main(["fig2", *size, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")])
    shown = capsys.readouterr().out
    assert f"| tau (eV/atom) | 0.1 | {tau} |" in shown
    assert f"| {counted}, last steps (%) |" in shown
    assert json.loads((tmp_path / "out" / "fig2.json").read_text())["provenance"]["settings"]["preset"] == preset


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=re.escape(str(tmp_path / "mp20_train.csv.gz"))):
        main(["fig_s1", "--cache", str(tmp_path / "cache")])
    assert Settings().hull_files() is None
    monkeypatch.setenv("CRYSTALGEN_MODELS", str(tmp_path))
    assert Settings().orb_file() is None
    (tmp_path / "orb-v2-2024.ckpt").touch()
    assert Settings().orb_file() == Path(os.environ["CRYSTALGEN_MODELS"]) / "orb-v2-2024.ckpt"
