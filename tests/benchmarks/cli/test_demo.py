"""The demo, down to the files it leaves."""

import gzip
import json
import re

import pytest

from agents import CrystalFormer
from agents.klppo.config import SHARP
from agents.training.run_folder import RunFolder
from benchmarks.cli.cli import main

SIZE = ["--iterations", "2", "--batch-size", "24", "--crystals", "40"]  # two steps
MODELS = ["base model, T = 1", "base model, sharp", "fine-tuned, sharp"]


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A data folder whose MP-20 is a few samples of the base model."""
    structures = CrystalFormer.from_pretrained("mp20").sample([225, 221], 20, seed=0, temperature=SHARP).to_structures()
    for name, part in (("train", structures[:15]), ("val", structures[15:])):
        lines = ["material_id,cif"] + [f'{name}-{i},"{one.to(fmt="cif")}"' for i, one in enumerate(part)]
        (tmp_path / f"mp20_{name}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path))


def test_demo_trains_reports_and_writes_crystals(known, tmp_path, capsys):
    out = tmp_path / "demo"
    main(["demo", "--out", str(out), *SIZE])
    shown = capsys.readouterr().out
    assert "Novel is what is not in mp20_train.csv.gz, mp20_val.csv.gz (20 crystals)." in shown
    assert re.search(" +".join(MODELS), shown)
    assert re.search(r"S\.U\.N\.: [\d.]+ % before, [\d.]+ % after", shown)
    results = json.loads((out / "results.json").read_text())
    assert list(results["models"]) == MODELS
    rates = [of["rates"] for of in results["models"].values()]
    assert all(0 < of["success"]["count"] <= of["stable_0.1"]["count"] < 40 for of in rates)
    assert all(of["success"] == of["sun_0.1"] for of in rates)
    divergences = [of["kl_divergence"] for of in results["models"].values()]
    assert divergences[:2] == [0, 0]
    assert divergences[2] != 0
    assert all(-0.05 <= one["e_above_hull"] <= 0.1 for one in results["best"])
    assert {one["mark"] for one in results["best"]} <= {"novel", "known"}
    assert len(list((out / "best").glob("*.cif"))) == len(results["best"]) > 0
    page = (out / "report.html").read_text()
    for name in ("summary", "learning", "best"):
        assert f'<img src="{name}.png"' in page
        assert 10_000 < (out / f"{name}.png").stat().st_size < 300_000
    assert all(name in page for name in MODELS)
    model = CrystalFormer.from_pretrained(out / "run" / "model")
    assert model.temperature.letters == SHARP["letters"]


def test_demo_without_data_says_that_novelty_is_not_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path / "nothing"))
    out = tmp_path / "demo"
    main(["demo", "--out", str(out), *SIZE])
    shown = capsys.readouterr().out
    assert "Novelty could not be checked" in shown
    assert f"$CRYSTALGEN_DATA, {tmp_path / 'nothing'}, must hold mp20_train.csv.gz and mp20_val.csv.gz" in shown
    assert re.search(r"stable and unique: [\d.]+ % before", shown)
    assert not re.search(r"^novel", shown, re.MULTILINE)
    results = json.loads((out / "results.json").read_text())
    for of in results["models"].values():
        assert of["rates"]["success"] == of["rates"]["unique_stable_0.1"]
        assert not any(name.startswith(("sun", "novel")) for name in of["rates"])
    assert {one["mark"] for one in results["best"]} == {""}
    assert RunFolder.settings_of(out / "run")["reward_kwargs"]["reference"] is None
    assert "could not be checked" in (out / "report.html").read_text()
