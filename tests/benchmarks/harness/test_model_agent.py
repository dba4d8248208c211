"""The benchmark samples and scores networks at the temperature it names, whatever they recommend."""

import numpy as np
import pytest
import torch

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.temperature import Temperatures
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.tasks import find_task

GROUPS = np.array([1, 62, 166, 225] * 5)


@pytest.mark.parametrize("temperature", [1.0, {"elements": 0.5, "lattice": 0.01}], ids=str)
def test_a_network_is_sampled_and_scored_at_the_temperature_of_its_sampler(temperature):
    model = CrystalFormer(CrystalFormerConfig(n_layers=1, n_heads=2, key_size=4, model_size=8, embed_size=4)).eval()
    model.temperature = Temperatures.of({"coordinates": 0.01, "letters": 0.5})
    task = find_task("validity")
    options = {} if temperature == 1 else {"temperature": temperature}
    sampler = ModelSampler(model, task, **options)
    expected = model.sample(GROUPS, seed=0, temperature=temperature, **task.options)
    crystals = sampler.sample(GROUPS, 0)
    np.testing.assert_array_equal(crystals.XYZ, expected.XYZ)
    np.testing.assert_array_equal(crystals.A, expected.A)
    with torch.inference_mode():
        log_prob = model.log_prob(expected, temperature=temperature, **task.options).total.double().numpy()
    np.testing.assert_allclose(sampler.log_prob(crystals), log_prob, rtol=1e-5)
