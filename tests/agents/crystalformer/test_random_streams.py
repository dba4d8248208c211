"""Random numbers belong to the index of a stream and to the seed, to nothing else."""

import numpy as np
import pytest
from scipy.stats import kstest

from agents.crystalformer.random_streams import RandomStreams


def test_a_stream_does_not_depend_on_those_beside_it():
    every = RandomStreams(5).uniforms(np.arange(200), 13)
    assert every.shape == (200, 13)
    for index in ([0], [199], [3, 4, 5], [7, 50, 120], list(range(100, 200)), []):
        part = RandomStreams(5).uniforms(np.array(index, np.int64), 13)
        assert np.array_equal(part, every[np.array(index, np.int64)])


def test_streams_are_uniform_and_unlike_each_other():
    numbers = np.stack([RandomStreams(seed).uniforms(np.arange(500), 16) for seed in ([0, 1], [0, 2], [1, 1])])
    assert ((numbers > 0) & (numbers < 1)).all()
    assert kstest(numbers.ravel(), "uniform").pvalue > 1e-4
    assert len(np.unique(numbers)) == numbers.size
    apart = np.corrcoef(numbers.reshape(3, -1))[np.triu_indices(3, 1)]
    assert np.abs(apart).max() < 0.05
    assert np.abs(np.corrcoef(numbers[0].T) - np.eye(16)).max() < 0.25


def test_space_groups_have_numbers_of_their_own():
    few, many = (RandomStreams(0).for_space_groups().random(size) for size in (5, 50))
    assert np.array_equal(few, many[:5])
    assert not np.isin(many, RandomStreams(0).uniforms(np.arange(1000), 176)).any()


def test_a_generator_contributes_one_key():
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    first, second = RandomStreams(rng), RandomStreams(rng)
    first.uniforms(np.arange(100), 8)
    RandomStreams(other), RandomStreams(other)
    assert rng.random() == other.random()
    assert not np.isin(first.uniforms(np.arange(9), 8), second.uniforms(np.arange(9), 8)).any()
    assert np.array_equal(RandomStreams(1).uniforms(np.arange(9), 8), first.uniforms(np.arange(9), 8))


@pytest.mark.parametrize("seed", [-1, 1.0, True, "a", [1, -1], np.nan], ids=str)
def test_seeds_are_checked_by_name(seed):
    with pytest.raises(ValueError, match="seed must be an integer of at least 0"):
        RandomStreams(seed)
