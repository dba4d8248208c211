"""Runs are compared from their folders alone."""

import gzip
import json

import pytest

from agents import TrainConfig, train
from benchmarks.paper import compare_runs


@pytest.fixture
def data(tmp_path, monkeypatch):
    from agents import CrystalFormer

    crystals = CrystalFormer.from_pretrained("mp20").sample([225] * 4, seed=5, temperature=1)
    for name in ("mp20_train", "mp20_val"):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        lines = ["cif"] + ['"' + structure.to(fmt="cif") + '"' for structure in crystals.to_structures()]
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setenv("CRYSTALGEN_DATA", str(folder))
    return folder


def test_runs_are_compared_with_their_base(data, tmp_path, capsys):
    run, out = tmp_path / "some-run", tmp_path / "out"
    train(TrainConfig(run=run, reward="rewards:Density", batch_size=6, iterations=2, samples=0), progress=False)
    compare_runs.main(compare_runs.Args(runs=(run,), out=out, size=12, temperatures=(0.5,), n_jobs=1))
    shown = capsys.readouterr().out
    assert "| base | some-run | base, T = 0.5 | some-run, T = 0.5 |" in shown
    results = json.loads((out / "results.json").read_text())
    assert results["base"]["kl_divergence"] == {"nats": 0.0, "standard_error": 0.0}
    assert results["some-run"]["kl_divergence"]["nats"] != 0
    assert all(entry["total"] == 12 for entry in results["some-run"]["rates"].values())
    kept = json.loads((out / "runs" / "some-run.json").read_text())
    assert kept["settings"]["batch_size"] == 6
    assert [entry["step"] for entry in kept["history"]] == [1, 2]
    for picture in ("curves.png", "energies.png"):
        assert (out / picture).stat().st_size > 10_000
