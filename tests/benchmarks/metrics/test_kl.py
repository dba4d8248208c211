import pytest
import torch

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.temperature import Temperatures
from benchmarks.metrics.kl import kl_divergence


def test_a_model_does_not_diverge_from_itself_and_its_parts_add_up():
    config = CrystalFormerConfig(n_layers=1, n_heads=2, key_size=4, model_size=8, embed_size=4)
    one, other = CrystalFormer(config, seed=0).eval(), CrystalFormer(config, seed=1).eval()
    assert kl_divergence(one, one, 20)[:2] == (0.0, 0.0)
    apart = kl_divergence(one, other, 200)
    assert sum(apart.parts.values()) == pytest.approx(apart.total, abs=1e-4)
    assert apart.error > 0


def test_both_models_have_the_temperature_and_it_is_one_whatever_they_recommend():
    config = CrystalFormerConfig(n_layers=1, n_heads=2, key_size=4, model_size=8, embed_size=4)
    one, other = CrystalFormer(config, seed=0).eval(), CrystalFormer(config, seed=1).eval()
    with torch.no_grad():
        for parameter in [*one.parameters(), *other.parameters()]:
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    plain = kl_divergence(one, other, 50)
    one.temperature = Temperatures.of({"lattice": 0.01})
    assert kl_divergence(one, other, 50) == plain
    assert kl_divergence(one, one, 20, temperature={"lattice": 0.01})[:2] == (0.0, 0.0)
    cold = kl_divergence(one, other, 50, temperature={"lattice": 0.01})
    assert cold.parts["lattice"] > 10 * plain.parts["lattice"] > 0  # narrow Gaussians are farther apart
