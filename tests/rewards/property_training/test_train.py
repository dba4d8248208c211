"""Training of a property model on generated data: it learns, resumes bit for bit, and its results load."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crystal_env.crystal import Crystal, CrystalBatch
from rewards.property import Property
from rewards.property_training.data import load_property_data
from rewards.property_training.train import PropertyConfig, train_property

pytest.importorskip("matgl")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Rock salts whose target is their lattice parameter, one without a target and one out of range."""
    path = tmp_path_factory.mktemp("data") / "salts.csv"
    lengths = np.linspace(4.0, 7.0, 24)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif", "a", "twice"])
        for i, a in enumerate(lengths):
            salt = Crystal.from_string(f"225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90")
            target = "" if i == 3 else 1000 if i == 5 else f"{a:.4f}"
            writer.writerow([f"salt-{i}", salt.to_structure().to(fmt="cif"), target, 2 * a])
    return path


@pytest.fixture
def config(table, tmp_path):
    options = {"low": 0.0, "epochs": 8, "batch_size": 8, "learning_rate": 5e-3}
    return PropertyConfig(tmp_path / "run", (table,), ("a",), **options)


def test_a_model_learns_and_predicts_the_same_as_a_reward(config, table):
    folder = train_property(config)
    rows = list(csv.DictReader((config.run / "predictions.csv").open()))
    errors = json.loads((config.run / "test.json").read_text())
    test = [row for row in rows if row["part"] == "test"]
    by_hand = np.mean([abs(float(row["a"]) - float(row["predicted_a"])) for row in test])
    assert errors["test_mae"] == pytest.approx(by_hand, abs=1e-4)
    log = list(csv.DictReader((config.run / "log.csv").open()))
    assert float(log[-1]["train_mae"]) < 0.7 * float(log[0]["train_mae"])
    assert (config.run / "parity.png").is_file()
    data = load_property_data([table], ["a"], high=100)
    result = Property(folder)(data.crystals)
    np.testing.assert_allclose(result.total, [float(row["predicted_a"]) for row in rows], atol=1e-3)


def test_an_interrupted_run_resumes_to_the_same_weights(config, monkeypatch):
    straight = train_property(config)
    halted = replace(config, run=config.run.with_name("halted"))
    monkeypatch.setattr("rewards.property_training.train._Trainer._keep", _interrupted_after(4))
    with pytest.raises(KeyboardInterrupt):
        train_property(halted)
    monkeypatch.undo()
    resumed = train_property(replace(halted, resume=True))
    weights = [torch.load(folder / "state.pt", weights_only=True) for folder in (straight, resumed)]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def _interrupted_after(epochs):
    from rewards.property_training.train import _Trainer

    keep = _Trainer._keep

    def wrapped(self, path):
        keep(self, path)
        if self.epoch == epochs:
            raise KeyboardInterrupt

    return wrapped


def test_several_outputs_are_one_model(config, table):
    folder = train_property(replace(config, target=("a", "twice"), epochs=1))
    from rewards.potentials.matgl import MatglProperty

    values, failures = MatglProperty(folder)(CrystalBatch.from_structures([_salt(5.0)]).to_atoms())
    assert values.shape == (1, 2)
    assert failures[0] is None


def _salt(a):
    return Crystal.from_string(f"225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90").to_structure()


def test_a_run_is_not_overwritten_and_settings_are_checked(config):
    with pytest.raises(ValueError, match="has no checkpoint to resume from"):
        train_property(replace(config, resume=True))
    config.run.mkdir()
    (config.run / "log.csv").write_text("epoch\n")
    with pytest.raises(ValueError, match="exists already: give --resume"):
        train_property(config)
    for name, value in (("epochs", 0), ("batch_size", 0), ("learning_rate", -1.0), ("patience", 0)):
        with pytest.raises(ValueError, match=f"^{name} must be (a finite number|an integer)"):
            replace(config, **{name: value})
    with pytest.raises(ValueError, match=r"^low must be below high"):
        replace(config, low=200.0)
