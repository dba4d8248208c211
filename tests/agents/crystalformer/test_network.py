"""The network has the paper's parameters, and each output depends on the decisions before it alone."""

import numpy as np
import pytest
import torch
from small_networks import TABLE, TINY, lively
from torch import Tensor

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.tokens import Tokens
from crystal_env.wyckoff import N_GROUPS, tables


def test_the_default_has_as_many_as_the_papers():
    assert CrystalFormer().n_parameters == 4_833_575


@pytest.mark.parametrize("config", [CrystalFormerConfig(), TINY, TABLE])
def test_count_follows_from_the_sizes(config):
    E, D, F, c = config.embed_size, config.model_size, 2 * config.n_frequencies, config.lattice_components
    HK, h0 = config.n_heads * config.key_size, config.first_letter_size
    outputs = max(119 + 13 * c, 3 * config.coordinate_components, 28)
    first_letter = (E + 1) * h0 + 28 * (h0 + 1) if h0 else 230 * 28
    layer = 3 * (D + 1) * HK + (HK + 1) * D + 4 * D + (D + 1) * 4 * D + (4 * D + 1) * D
    inputs = (2 * E + 2) * D + (2 * E + 1) * D + 3 * (E + F + 1) * D
    expected = 377 * E + first_letter + inputs + config.n_layers * layer + 2 * D + (D + 1) * outputs
    assert CrystalFormer(config).n_parameters == expected


def test_the_seed_decides_the_weights():
    first, same, other = (CrystalFormer(TINY, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if first[name].std() > 0)


def test_weights_do_not_depend_on_the_global_generator():
    first = CrystalFormer(TINY).state_dict()
    torch.rand(5)
    assert all(torch.equal(tensor, first[name]) for name, tensor in CrystalFormer(TINY).state_dict().items())


def test_making_a_model_leaves_torch_as_it_was():
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    CrystalFormer(TINY)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype


@pytest.mark.parametrize("config", [TINY, TABLE])
@pytest.mark.parametrize("kind", range(5))
def test_a_decision_depends_on_those_before_it_only(config, kind):
    model, tokens, site = lively(config), random_tokens(), 2
    with torch.no_grad():
        before, after = model(tokens), model(changed(tokens, site, kind))
    first_after = 5 * site + kind + 1
    for position, (one, other) in enumerate(zip(in_order(before), in_order(after), strict=True)):
        difference = (one - other).abs().amax(-1)
        if position < first_after:
            assert difference.max() < 1e-12, position
        else:
            assert difference.min() > 1e-6, position


@pytest.mark.parametrize("config", [TINY, TABLE])
def test_everything_depends_on_the_space_group(config):
    model, tokens = lively(config), random_tokens()
    with torch.no_grad():
        before, after = model(tokens), model(tokens._replace(G=tokens.G % N_GROUPS + 1))
    for one, other in zip(in_order(before), in_order(after), strict=True):
        assert (one - other).abs().amax(-1).min() > 1e-6


def test_slots_that_are_not_needed_change_nothing():
    model, tokens = lively(TINY), random_tokens()
    longer = Tokens(tokens.G, *(pad_slots(array, 3) for array in tokens[1:4]), tokens.L)
    with torch.no_grad():
        for one, other in zip(in_order(model(tokens)), in_order(model(longer)), strict=False):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_dropout_acts_in_training_only(rate):
    rates = {"dropout": 0.0, "attention_dropout": 0.0}
    model, tokens = lively(CrystalFormerConfig(**(TINY.to_dict() | rates | {rate: 0.5}))), random_tokens()
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        first, same = model(tokens).elements, model(tokens).elements
        model.train()
        other, another = model(tokens).elements, model(tokens).elements
    assert torch.equal(first, same)
    assert len({float(elements.sum()) for elements in (first, other, another)}) == 3


def test_coordinates_are_periodic():
    model, tokens = lively(TINY), random_tokens()
    with torch.no_grad():
        before, after = model(tokens), model(tokens._replace(XYZ=tokens.XYZ + 1))
    for one, other in zip(in_order(before), in_order(after), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def random_tokens(n: int = 5) -> Tokens:
    """What the network can read, though most are no crystals."""
    rng = np.random.default_rng(0)
    G = rng.integers(1, N_GROUPS + 1, 20)
    W = rng.integers(1, tables().n_letters[G, None] + 1, (20, n))
    A = rng.integers(1, 119, (20, n))
    return Tokens(*(torch.from_numpy(array) for array in (G, W, A, rng.random((20, n, 3)), rng.random((20, 6)))))


def changed(tokens: Tokens, site: int, kind: int) -> Tokens:
    """Another letter, element or coordinate at one site."""
    W, A, XYZ = tokens.W.clone(), tokens.A.clone(), tokens.XYZ.clone()
    if kind == 0:
        W[:, site] = W[:, site] % 27 + 1
    elif kind == 1:
        A[:, site] = A[:, site] % 118 + 1
    else:
        XYZ[:, site, kind - 2] += 0.1
    return tokens._replace(W=W, A=A, XYZ=XYZ)


def pad_slots(array: Tensor, n: int) -> Tensor:
    return torch.cat([array, array.new_zeros(len(array), n, *array.shape[2:])], dim=1)


def in_order(outputs) -> list[Tensor]:
    """What is said about each decision: letter, element, x, y, z of the first site, and so on; lattice with element."""
    decisions = []
    for slot in range(outputs.letters.shape[1]):
        decisions.append(outputs.letters[:, slot])
        decisions.append(torch.cat([outputs.elements[:, slot], outputs.lattice[:, slot]], dim=-1))
        if slot < outputs.coordinates.shape[1]:
            decisions += outputs.coordinates[:, slot].unbind(1)
    return decisions
