"""The demo, down to the files it leaves."""

import json
import re

from benchmarks.cli.cli import main


def test_demo_trains_reports_and_writes_crystals(tmp_path, capsys):
    main(["demo", "--out", str(tmp_path), "--iterations", "2", "--batch-size", "16", "--crystals", "40"])
    shown = capsys.readouterr().out
    assert re.search(r"before +after", shown)
    assert "KL divergence from the base model (nats)" in shown
    table = json.loads((tmp_path / "results.json").read_text())
    assert set(table) == {"before", "after"}
    assert all(0 < table[who]["stable_rate"] < 1 for who in table)
    assert table["before"]["kl_divergence"] == 0
    assert table["after"]["kl_divergence"] != 0
    assert (tmp_path / "learning.png").stat().st_size > 1000
    assert 10_000 < (tmp_path / "summary.png").stat().st_size < 200_000
    assert (tmp_path / "run" / "agent.zip").stat().st_size > 1000
