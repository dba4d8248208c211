"""The model that ships with the package."""

import json

import numpy as np
import pytest
import torch

from agents import CrystalFormer
from agents.crystalformer.checkpoint import MODELS
from agents.crystalformer.temperature import Temperatures
from crystal_env import Crystal, CrystalBatch
from crystal_env.dataset import read_structures
from rewards import Validity


@pytest.fixture(scope="module")
def model():
    return CrystalFormer.from_pretrained("mp20")


def test_is_small_and_has_a_card(model):
    files = {file.name: file.stat().st_size for file in (MODELS / "mp20").iterdir()}
    assert {"README.md", "card.json", "chemistry.png", "curve.png", "config.json", "model.safetensors"} <= set(files)
    assert sum(files.values()) <= 25e6
    assert json.loads((MODELS / "mp20" / "card.json").read_text())["n_parameters"] == model.n_parameters


def test_knows_which_elements_make_a_perovskite(model):
    def perovskite(A, B, X):
        return Crystal.from_string(f"221-a-{B}-0-0-0-b-{A}-1/2-1/2-1/2-d-{X}-1/2-0-0-X-3.95-3.95-3.95-90-90-90")

    real = [perovskite("Sr", "Ti", "O"), perovskite("Ba", "Zr", "O"), perovskite("Cs", "Sn", "Cl")]
    wrong = [perovskite("O", "Sr", "Ti"), perovskite("Ti", "O", "Zr"), perovskite("Cl", "Cs", "He")]
    with torch.no_grad():
        elements = model.log_prob(real + wrong, temperature=1).elements
    assert elements[:3].min() > elements[3:].max() + 2


@pytest.mark.parametrize("temperature", [1, None])
def test_it_samples_valid_crystals_and_an_untrained_one_does_not(model, temperature):
    untrained = CrystalFormer(model.config, seed=0)
    valid = [
        Validity()(network.sample("mp20", 100, seed=0, temperature=temperature)).terms["success"].mean()
        for network in (model, untrained)
    ]
    assert valid[0] > 0.65  # the card says 0.8
    assert valid[1] < 0.45


def test_it_recommends_sharp_numbers_of_crystals_as_varied_as_it_has_learned(model):
    assert model.temperature == Temperatures.of({"coordinates": 0.01, "lattice": 0.01})
    crystals, at_one = (model.sample([62, 194, 225] * 20, seed=0, temperature=t) for t in (None, 1))
    assert (crystals.W[:, 0] == at_one.W[:, 0]).all()  # the first letter is chosen alike, at temperature 1
    assert (crystals.A[:, 0] == at_one.A[:, 0]).all()
    with torch.no_grad():
        sharp, spread = (model.log_prob(batch, temperature=1).lattice.mean() for batch in (crystals, at_one))
    assert sharp > spread + 1


def test_scores_validation_crystals_as_the_card_says(model, data_folder):
    structures = list(read_structures(data_folder / "mp20_val.csv.gz"))
    chosen = np.random.default_rng(0).permutation(len(structures))[:200]
    crystals = CrystalBatch.from_structures([structures[i] for i in chosen])
    with torch.no_grad():
        totals = model.log_prob(crystals, temperature=1).total.numpy()
    card = json.loads((MODELS / "mp20" / "card.json").read_text())["log_likelihood"]["model"]["total"]
    assert abs(totals.mean() - card) < 4 * totals.std() / np.sqrt(len(totals))
