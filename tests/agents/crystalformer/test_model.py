"""The surface of CrystalFormer: batch sizes fit the device, arguments are passed on."""

import numpy as np
import pytest
import torch
from small_networks import TINY, lively

from agents import CrystalFormer, CrystalFormerConfig


def test_the_default_batch_size_is_smaller_for_a_larger_network():
    small, large = (CrystalFormer(CrystalFormerConfig(n_layers=n, first_letter_size=0)) for n in (1, 16))
    assert large.default_batch_size() < small.default_batch_size() == 512
    assert large.default_batch_size() >= 128


def test_exact_and_paper_likelihood_take_their_own_arguments():
    model = lively(TINY)
    crystals = model.sample([225, 1], seed=0, max_sites=2)
    with pytest.raises(ValueError, match="likelihood 'paper' takes no bins"):
        model.log_prob(crystals, "paper", bins=24)
    with torch.no_grad():
        exact, constrained = (model.log_prob(crystals, **rules).letters for rules in ({}, {"max_sites": 2}))
    assert (constrained >= exact).all()
    assert (constrained > exact).any()


def test_crystals_of_an_iterable_are_scored_in_order():
    model = lively(TINY)
    crystals = model.sample([225, 1, 62], seed=0, max_sites=2)
    with torch.no_grad():
        batch, listed = model.log_prob(crystals).total, model.log_prob(list(crystals)[::-1]).total
    np.testing.assert_allclose(batch.flip(0).numpy(), listed.numpy(), rtol=1e-9)
