import csv
import json

import numpy as np
import pytest
import torch

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.temperature import Temperatures
from agents.search.best_of_n import best_of_n
from benchmarks.cli import cli
from crystal_env import CrystalBatch
from rewards import Density

SIZES = "--n-layers 1 --n-heads 2 --key-size 8 --model-size 16 --lattice-components 2"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.training.run_folder.draw_curve", lambda history, path: None)
    path = tmp_path / "crystals.npz"
    network = CrystalFormer(CrystalFormerConfig(n_layers=1, n_heads=1, key_size=4, model_size=8))
    network.sample(np.arange(195, 211), seed=0, max_sites=3).save(path)
    return path


def test_a_model_is_trained_and_a_finished_run_stays_as_it_is(data, tmp_path, capsys):
    run = tmp_path / "run"
    cli.main(f"pretrain --data {data} --run {run} --epochs 2 --batch-size 8 {SIZES}".split())
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert (settings["epochs"], settings["model"]["model_size"]) == (2, 16)
    trained = CrystalFormer.from_pretrained(run / "model").state_dict()
    assert f"parameters in {run / 'model'}" in capsys.readouterr().out
    cli.main(f"pretrain --resume --run {run}".split())
    again = CrystalFormer.from_pretrained(run / "model").state_dict()
    assert all(tensor.equal(again[name]) for name, tensor in trained.items())


@pytest.mark.parametrize(
    ("words", "temperature"),
    [
        ([], None), (["--temperature", "None"], None), (["--temperature", "0.5"], 0.5),
        (["--temperature", '{"letters": 0.5, "lattice": 0.01}'], {"letters": 0.5, "lattice": 0.01}),
        (["--temperature", "0"], 0), (["--temperature", '{"lattice": 0}', "--top-p", "0.9"], {"lattice": 0}),
        (["--temperature", '{"elements": 0.5}', "--best-of", "2", "--reward", "rewards:Density"], {"elements": 0.5}),
    ],
    ids=str,
)  # fmt: skip
def test_crystals_are_sampled_at_one_temperature_or_one_for_each_part(tmp_path, words, temperature):
    model = CrystalFormer(CrystalFormerConfig(n_layers=1, n_heads=1, key_size=4, model_size=8)).eval()
    model.temperature = Temperatures.of({"coordinates": 0.1})
    model.save_pretrained(tmp_path / "model")
    out, groups = tmp_path / "out", ["--space-group", "62", "166", "225"]
    cli.main(["sample", "--model", str(tmp_path / "model"), "--out", str(out), "--size", "6", *groups, *words])
    crystals = CrystalBatch.load(out / "crystals.npz")
    options = {"temperature": temperature, "top_p": 0.9 if "--top-p" in words else 1.0}
    if "--best-of" in words:
        expected = best_of_n(model, Density(), 2, 6, space_groups=(62, 166, 225), seed=0, **options).crystals
    else:
        expected = model.sample((62, 166, 225), 6, seed=0, **options)
    np.testing.assert_allclose(crystals.L, expected.L, rtol=1e-5)
    np.testing.assert_array_equal(crystals.A, expected.A)
    table = list(csv.DictReader((out / "crystals.csv").read_text().splitlines()))
    has_scores = temperature not in (0, {"lattice": 0})
    assert ("log_prob" in table[0]) == has_scores
    if has_scores:
        with torch.inference_mode():
            scores = model.log_prob(expected, **options).total
        np.testing.assert_allclose([float(row["log_prob"]) for row in table], scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", '{"letter": 1}'], r"temperature must be a number or map some of .* \['letter'\]"),
        (["--temperature", "-1"], "temperature must be a finite number of at least 0, got -1"),
    ],
)
def test_temperatures_that_are_none_are_named(tmp_path, words, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(["sample", "--out", str(tmp_path / "out"), *words])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--data nothing.csv --run {run}", "no such file of structures: nothing.csv"),
        ("--data {data} --run {run} --batch-size 99", "batch_size must be at most the 16 crystals, got 99"),
        ("--resume --run {run}", "holds no run"),
    ],
)
def test_errors_are_one_line(data, tmp_path, command, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(["pretrain", *command.format(data=data, run=tmp_path / "run").split()])
