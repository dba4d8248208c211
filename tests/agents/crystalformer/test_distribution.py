"""Choices have the probabilities of a softmax at a temperature, of the likeliest and of what is allowed."""

import numpy as np
import pytest
import torch
from small_networks import TINY, lively

from agents.crystalformer.distribution import (
    Distribution,
    any_crystal,
    check_constraints,
    compile_constraints,
    decision_masks,
    sample_groups,
)
from agents.crystalformer.random_streams import RandomStreams
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import FIRST_ELEMENT, N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import N_LETTERS

LOGITS = torch.tensor([0.5, 2.0, -1.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_divides_the_logits(temperature):
    p = Distribution(any_crystal(), temperature).elements(LOGITS).exp().numpy()
    weights = np.exp(LOGITS.numpy() / temperature)
    np.testing.assert_allclose(p, weights / weights.sum())


def test_what_is_masked_has_no_probability():
    mask = torch.tensor([True, False, True, True])
    p = Distribution(any_crystal()).elements(LOGITS, mask).exp()
    weights = np.exp(LOGITS.numpy()) * mask.numpy()
    np.testing.assert_allclose(p.numpy(), weights / weights.sum())


def test_temperature_zero_is_certain_of_the_likeliest():
    assert Distribution(any_crystal(), 0.0).elements(LOGITS).exp().tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(("top_p", "kept"), [(0.1, 1), (0.6, 1), (0.7, 2), (0.9, 3), (0.99, 4)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    p = LOGITS.softmax(0).sort(descending=True).values
    assert p[:kept].sum() >= top_p > p[: kept - 1].sum()
    assert (Distribution(any_crystal(), 1.0, top_p).elements(LOGITS).exp() > 0).sum() == kept


@pytest.mark.parametrize("rules", [{}, {"elements": ["Fe", "O"], "max_sites": 3}, {"formula": "SrTiO3"}], ids=str)
def test_decision_masks_are_those_of_the_state_machine(rules):
    crystals = lively(TINY).sample([221, 62, 99] * 5, seed=0, bins=24, **rules)
    letters, elements = decision_masks(crystals, compile_constraints(crystals.G, rules))
    vocabulary, rows = Vocabulary(24), np.arange(len(crystals))
    states = CrystalStates(len(crystals), vocabulary)
    states.reset(rows, compile_constraints(crystals.G, rules), crystals.G)
    actions, lengths = crystals.to_actions(vocabulary)
    for step in range(actions.shape[1]):
        rows = rows[lengths[rows] > step]
        for row in rows:
            site = states.site[row]
            if states.phase[row] == Phase.LETTER:
                assert np.array_equal(letters[row, site], states.masks[row, :N_LETTERS])
            elif states.phase[row] == Phase.ELEMENT:
                assert np.array_equal(elements[row, site, 1:], states.masks[row, FIRST_ELEMENT:N_SYMBOLS])
        assert states.step(rows, actions[rows, step]).all()


def test_sampled_groups_do_not_depend_on_how_many_there_are():
    few, many = (sample_groups("mp20", size, RandomStreams(0), {}) for size in (20, 200))
    assert np.array_equal(few, many[:20])
    assert len(np.unique(many)) > 20


def test_unknown_constraints_are_named():
    with pytest.raises(ValueError, match=r"^constraints must be among .* got \['elemnts'\]"):
        check_constraints(225, {"elemnts": ["Na"]})
