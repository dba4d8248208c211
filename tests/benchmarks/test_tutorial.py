"""The tutorial of the benchmark runs as it stands, with one seed instead of three."""

import re
import shlex
from pathlib import Path

from benchmarks.cli import cli

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "benchmark.md").read_text()


def test_tutorial_leads_from_an_agent_to_the_leaderboard(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path / "nothing"))
    (agent,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_agent.py").write_text(agent)
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert lines.pop(0) == "pip install -e ."
    assert len(lines) == 4
    for line in lines:
        program, *words = shlex.split(line.replace("0 1 2", "0"))
        assert program == "crystalgen"
        cli.main(words)
    shown = capsys.readouterr().out
    assert "MyAgent on CrystalGen-Validity-v1" in shown
    board = (tmp_path / "leaderboard" / "README.md").read_text()
    ranks = {name: board.index(name) for name in ("MyAgent", "RandomPolicy")}
    assert ranks["MyAgent"] < ranks["RandomPolicy"]
    assert (tmp_path / "results" / "mine" / "report.html").stat().st_size > 1_000_000
