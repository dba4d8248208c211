import gzip
import json

import pytest

from benchmarks.cli import benchmark
from crystal_env import Crystal, CrystalBatch

SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-5.6-5.6-5.6-90-90-90"


def test_commands_list_tasks_and_install_the_table(data_folder, tmp_path, monkeypatch, capsys):
    benchmark.main(["list"])
    assert "perovskites" in capsys.readouterr().out
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path / "data"))
    source = data_folder / "perovskite_castelli_18928.csv.gz"
    plain = tmp_path / "plain.csv"
    plain.write_bytes(gzip.decompress(source.read_bytes()))
    for file in (source, plain):
        benchmark.main(["data", str(file)])
        assert gzip.decompress((tmp_path / "data" / source.name).read_bytes()) == plain.read_bytes()
    with pytest.raises(ValueError, match="there is no command 'play'"):
        benchmark.main(["play"])


def test_a_run_prints_a_summary_and_writes_its_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path / "nothing"))
    crystals = [Crystal.from_string(SALT.format(*pair)) for pair in (("Na", "Cl"), ("K", "Br"), ("Na", "Cl"))]
    CrystalBatch.from_crystals(crystals).save(tmp_path / "made.npz")
    out = tmp_path / "out"
    words = ["run", "validity", "--agent", str(tmp_path / "made.npz"), "--size", "4", "--out", str(out)]
    benchmark.main(words)
    shown = capsys.readouterr().out
    assert "made on CrystalGen-Validity-v1" in shown
    assert "valid and unique: 0.5000 (one seed)" in shown
    assert (out / "report.html").is_file()
    benchmark.main([*words, "--resume", "--no-report"])
    assert "report.html" not in capsys.readouterr().out


def test_old_results_are_migrated_by_a_command(tmp_path, capsys):
    benchmark.main(["migrate", str(tmp_path)])
    assert "current format" in capsys.readouterr().out
    summary = {"shares": {"in P1": {"count": 1, "of": 2, "share": 0.5, "interval": [0.1, 0.9]}}}
    (tmp_path / "results.json").write_text(json.dumps({"base": summary}))
    benchmark.main(["migrate", str(tmp_path)])
    assert str(tmp_path / "results.json") in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())["base"]["rates"]["in_p1"]["total"] == 2
