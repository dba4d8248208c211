"""The numbers of a model's card, on crystals whose answers are known."""

import json

import numpy as np
import pytest

from agents import CrystalFormer, CrystalFormerConfig, PretrainConfig
from agents.crystalformer.temperature import Temperatures
from agents.training.run_folder import RunFolder
from benchmarks.metrics.reference import load_reference
from benchmarks.model_card import model_card
from crystal_env import Crystal, CrystalBatch, RewardResult

ROCK_SALT = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
SHIFTED = Crystal.from_string("225-a-Cl-0-0-0-b-Na-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
IN_P1 = Crystal.from_string("1-a-Cl-0.1-0.2-0.3-a-Na-0.6-0.7-0.8-X-3.988-3.988-3.988-60-60-60")
CESIUM_CHLORIDE = Crystal.from_string("221-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3.5-3.5-3.5-90-90-90")
PEROVSKITE = Crystal.from_string("221-a-Ti-0-0-0-b-Sr-1/2-1/2-1/2-d-O-1/2-0-0-X-3.9-3.9-3.9-90-90-90")
OVERLAPPING = Crystal.from_string("1-a-Na-0-0-0-a-Cl-0-0-0.001-X-3.1-4.2-5.3-80-85-95")
TINY = CrystalFormerConfig(n_layers=1, n_heads=2, key_size=4, model_size=8, embed_size=4, first_letter_size=8)


def batch(*crystals):
    return CrystalBatch.from_crystals(crystals)


def by_group(crystals):
    """A reward that calls the group's number in hundredths of eV/atom the energy, and breaks on P1."""
    if (crystals.G == 1).any():
        raise ArithmeticError("no energy in P1")
    energies = crystals.G / 100
    return RewardResult(-energies, {"e_above_hull": energies}, np.full(len(crystals), None, object))


@pytest.fixture
def run(tmp_path):
    config = PretrainConfig(tmp_path / "data file.csv", tmp_path / "run", model=TINY, betas=(0.9, 0.95), augment=True)
    folder = RunFolder(config.run)
    folder.write_settings(config.plain())
    for epoch, total in ((1, -9.0), (2, -7.0), (3, -8.0)):
        entry = {"step": 10 * epoch, "epoch": epoch, "hours": epoch / 4, "train_loss": 5.0, "validation_total": total}
        folder.append_history(entry)
    return config


def test_facts_of_a_run_give_the_command_that_makes_it_again(run):
    import shlex

    import tyro
    from tyro.conf import OmitArgPrefixes

    facts = model_card.training_facts(run.run)
    assert (facts["best"]["epoch"], facts["last"]["hours"]) == (2, 0.75)
    command = shlex.split(facts["command"])
    assert command[:2] == ["crystalgen", "pretrain"]
    assert tyro.cli(PretrainConfig, args=command[2:], config=(OmitArgPrefixes,)) == run


def test_facts_of_a_continued_run_include_the_earlier_one(run, tmp_path):
    RunFolder(run.run).save_state({})
    second = RunFolder(tmp_path / "second")
    second.write_settings(PretrainConfig(run.data, second.path, initial=str(run.run / "model"), epochs=7).plain())
    entry = {"step": 5, "epoch": 2.0, "hours": 1.0, "train_loss": 4.0, "validation_total": -6.0}
    second.append_history(entry)
    facts = model_card.training_facts(second.path)
    assert facts["before"]["command"] == model_card.training_facts(run.run)["command"]
    assert [(e["epoch"], e["validation_total"]) for e in facts["history"]] == [(1, -9.0), (2, -7.0), (4.0, -6.0)]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run must be the folder"):
        model_card.training_facts(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no run"):
        model_card.training_facts(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:the reward failed")
@pytest.mark.parametrize("recommended", [1, {"lattice": 0.01, "letters": 0.5}], ids=str)
def test_card_holds_the_model_and_its_yardsticks(run, tmp_path, recommended):
    training, validation = batch(ROCK_SALT, PEROVSKITE, CESIUM_CHLORIDE), batch(SHIFTED, CESIUM_CHLORIDE)
    reference = load_reference(CrystalBatch.concatenate([training, validation[:1]]))
    model = CrystalFormer(TINY, seed=1)
    model.temperature = Temperatures.of(recommended)
    numbers, metrics_of = model_card.card(model, training, validation, reference, 6, energy=by_group)
    sizes = {"model": 6, "untrained": 6, "validation": 2} | ({} if recommended == 1 else {"recommended": 6})
    assert {name: len(metrics.samples) for name, metrics in metrics_of.items()} == sizes
    for name, temperature in (("model", 1), ("recommended", recommended)):
        if name in metrics_of:
            expected = model.sample("mp20", 6, seed=0, temperature=temperature)
            np.testing.assert_array_equal(metrics_of[name].samples.crystals.L, expected.L)
    assert numbers["samples"]["validation"]["rates"]["novel"]["count"] == 0
    parts = numbers["log_likelihood"]["model"]
    assert parts["total"] == pytest.approx(sum(value for name, value in parts.items() if name != "total"), rel=1e-5)
    facts = model_card.training_facts(run.run)
    model_card.write_card(
        tmp_path / "card", {"model": "m", "command": "c", "training": facts, **numbers}, metrics_of, training
    )
    text = (tmp_path / "card" / "README.md").read_text()
    for expected in ("| structurally valid, % |", "| S.U.N. (≤ 0.1 eV/atom), % |", "| 87.4 |", facts["command"]):
        assert expected in text
    assert ("letters 0.5, lattice 0.01" in text) == ("| model, as recommended" in text) == (recommended != 1)
    assert json.loads((tmp_path / "card" / "card.json").read_text())["n_parameters"] == numbers["n_parameters"]
    assert (tmp_path / "card" / "chemistry.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (model_card.Args("mp20", samples=0), "samples must be at least 1"),
        (model_card.Args("no-such-model"), "no model 'no-such-model'"),
    ],
)
def test_mistakes_of_users_are_named(args, message):
    with pytest.raises(ValueError, match=message):
        model_card.main(args)
