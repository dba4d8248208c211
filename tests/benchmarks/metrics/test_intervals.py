from itertools import product

import numpy as np
import pytest
from scipy.stats import bootstrap, trim_mean

from benchmarks.metrics.intervals import aggregate, interquartile_mean, stratified_interval

SCORES = np.random.default_rng(0).normal(size=(8, 3))


def test_interquartile_mean_leaves_the_quarters_out():
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 700]) == np.mean([2, 3, 4, 5])
    assert interquartile_mean([1.0, 2.0, 600.0]) == pytest.approx(np.mean([1.0, 2.0, 600.0]))  # int(3/4) are cut: none


def test_interquartile_mean_is_that_of_rliable():
    metrics = pytest.importorskip("rliable.metrics")
    assert interquartile_mean(SCORES) == pytest.approx(metrics.aggregate_iqm(SCORES))


def test_interval_of_one_task_is_the_bootstrap_interval_of_scipy():
    scores = np.random.default_rng(1).normal(size=12)
    expected = bootstrap(
        (scores,),
        lambda x, axis: trim_mean(x, 0.25, axis=axis),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert stratified_interval(scores[:, None]) == pytest.approx(tuple(expected), abs=0.03)


def test_interval_over_tasks_is_that_of_all_ways_to_draw_the_seeds():
    scores = SCORES[:3, :2]
    ways = list(product(range(3), repeat=3))
    means = [interquartile_mean([scores[list(a), 0], scores[list(b), 1]]) for a, b in product(ways, ways)]
    assert stratified_interval(scores) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_interval_over_tasks_is_that_of_rliable():
    measured = (-0.44968946, 0.24474745)  # rliable 1.2.0, get_interval_estimates with aggregate_iqm, 50,000 repeats
    assert stratified_interval(SCORES) == pytest.approx(measured, abs=0.01)


def test_interval_draws_the_seeds_of_each_task_on_their_own():
    constant = np.array([[0.0, 10.0], [1.0, 10.0], [2.0, 10.0], [3.0, 10.0]])
    low, high = stratified_interval(constant)
    assert 0 <= low < high <= 10
    assert stratified_interval(np.full((5, 2), 3.0)) == (3.0, 3.0)


def test_few_seeds_are_averaged_and_one_has_no_interval():
    assert aggregate([0.5]) == {"value": 0.5, "interval": None, "per_seed": [0.5]}
    assert aggregate([0.0, 1.0])["value"] == 0.5
    many = aggregate(SCORES[:, 0].tolist())
    assert many["value"] == interquartile_mean(SCORES[:, 0])
    assert many["interval"][0] < many["value"] < many["interval"][1]
    assert many == aggregate(SCORES[:, 0].tolist())
    with pytest.raises(ValueError, match="per_seed"):
        aggregate([])
