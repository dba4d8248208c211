import json

import numpy as np
import pytest

from agents import CrystalFormer, CrystalFormerConfig
from benchmarks.cli import cli

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
