"""Rates of space groups and their weighted means, by hand and by simulation."""

import numpy as np
import pytest

from benchmarks.metrics.by_space_group import rates_by_space_group, space_group_weights, weighted_rates
from crystal_env.grammar.constraints import mp20_group_counts


def test_rates_are_of_the_attempts_of_each_group():
    groups = np.array([225, 1, 225, 0, 225])
    numbers = rates_by_space_group(groups, {"good": np.array([True, False, False, True, True])})
    assert list(numbers) == ["1", "225"]
    assert numbers["225"]["attempts"] == 3
    assert (numbers["225"]["good"]["count"], numbers["1"]["good"]["rate"]) == (2, 0.0)


def test_weighted_rate_by_hand():
    groups = np.array([1] * 4 + [2] * 2)
    good = np.array([True, False, False, False, True, True])
    rates = weighted_rates(rates_by_space_group(groups, {"good": good}), space_group_weights({1: 3.0, 2: 1.0, 3: 4.0}))
    assert rates["good"]["rate"] == pytest.approx(0.75 * 0.25 + 0.25 * 1.0)
    assert rates["weight_without_attempts"] == pytest.approx(0.5)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, weights, sizes = np.array([0.05, 0.3, 0.9]), np.array([0.5, 0.3, 0.2]), [60, 40, 25]
    groups = np.repeat([1, 2, 3], sizes)
    table = space_group_weights(dict(zip((1, 2, 3), weights, strict=True)))
    hits = 0
    for _ in range(400):
        good = rng.random(len(groups)) < truth[groups - 1]
        low, high = weighted_rates(rates_by_space_group(groups, {"good": good}), table)["good"]["interval"]
        hits += low <= weights @ truth <= high
    assert 0.91 < hits / 400 < 0.99


def test_weights_in_every_form():
    np.testing.assert_array_equal(space_group_weights("mp20")[1:], mp20_group_counts())
    np.testing.assert_array_equal(space_group_weights(np.arange(230.0))[1:], np.arange(230))
    assert space_group_weights({225: 2.0}).nonzero()[0].tolist() == [225]


@pytest.mark.parametrize("weights", ["mp", {231: 1.0}, {1: -1.0}, {}, np.ones(231), {1: np.nan}])
def test_other_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        space_group_weights(weights)


def test_without_attempts_there_are_no_rates():
    assert weighted_rates({}, space_group_weights("mp20")) == {"weight_without_attempts": 1.0}
