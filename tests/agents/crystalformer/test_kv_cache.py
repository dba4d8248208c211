"""The cache grows in blocks, keeps what it holds, and shares values where heads are wide."""

import pytest
import torch
from small_networks import TABLE, TINY, lively

from agents.crystalformer.kv_cache import CacheIndices, NewTokens, shares_values


def new_tokens(size, position):
    row = torch.arange(size)
    zeros = torch.zeros(size, dtype=torch.long)
    return NewTokens(row, zeros, zeros + position, zeros + 225, zeros + 1, zeros.double(), size, 1, position + 1)


@pytest.mark.parametrize(("config", "shared"), [(TINY, False), (TABLE, True)])
def test_values_are_shared_by_the_heads_where_these_are_wide(config, shared):
    assert shares_values(config) is shared
    cache = lively(config).new_cache(5)
    assert cache.keys[0].shape == (5, config.n_heads, 0, config.key_size)
    assert cache.values[0].shape == ((5, 0, config.model_size) if shared else cache.keys[0].shape)
    assert len(cache.keys) == len(cache.values) == len(cache.output) == config.n_layers


@pytest.mark.parametrize("config", [TINY, TABLE])
@torch.inference_mode()
def test_growing_keeps_what_is_in_the_cache(config):
    model = lively(config)
    cache = model.new_cache(4)
    cache.grow(1, 4)
    assert cache.capacity == 16
    model.extend(cache, new_tokens(4, 0))
    before = [cached.clone() for cached in cache.keys + cache.values]
    cache.grow(16, 4)
    assert cache.capacity == 16
    cache.grow(17, 3)
    assert cache.capacity == 32
    for old, new in zip(before, cache.keys + cache.values, strict=True):
        assert len(new) == 3
        assert torch.equal(new[..., :16, :], old[:3])
        assert not new[..., 16:, :].any()


@pytest.mark.parametrize("config", [TINY, TABLE])
@torch.inference_mode()
def test_moved_crystals_take_their_tokens_along(config):
    model = lively(config)
    cache = model.new_cache(4)
    cache.grow(1, 4)
    tokens = new_tokens(4, 0)
    model.extend(cache, tokens._replace(G=torch.tensor([1, 2, 225, 62])))
    expected = [cached[3].clone() for cached in cache.keys + cache.values]
    cache.move(torch.tensor([3]), torch.tensor([1]), 1)
    for cached, wanted in zip(cache.keys + cache.values, expected, strict=True):
        assert torch.equal(cached[1], wanted)


def test_tokens_attend_to_themselves_and_to_those_before():
    model = lively(TINY)
    cache = model.new_cache(2)
    cache.grow(3, 2)
    mask = CacheIndices.of(new_tokens(2, 2), cache, model.rotary).mask
    assert mask.shape == (2, 1, 1, 16)
    assert torch.equal(mask[0, 0, 0] == 0, torch.arange(16) <= 2)
