import pytest

from agents import CrystalFormer, CrystalFormerConfig
from benchmarks.metrics.kl import kl_divergence


def test_a_model_does_not_diverge_from_itself_and_its_parts_add_up():
    config = CrystalFormerConfig(n_layers=1, n_heads=2, key_size=4, model_size=8, embed_size=4)
    one, other = CrystalFormer(config, seed=0).eval(), CrystalFormer(config, seed=1).eval()
    assert kl_divergence(one, one, 20)[:2] == (0.0, 0.0)
    apart = kl_divergence(one, other, 200)
    assert sum(apart.parts.values()) == pytest.approx(apart.total, abs=1e-4)
    assert apart.error > 0
