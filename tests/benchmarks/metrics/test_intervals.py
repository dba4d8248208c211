import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from benchmarks.metrics.intervals import bootstrap, interval_name, over_seeds, rate, t_interval, wilson

RNG = np.random.default_rng(0)
NORMAL = (lambda shape: RNG.normal(0.2, 0.03, shape), 0.2)
SKEWED = (lambda shape: RNG.beta(2, 6, shape), 0.25)  # a rate between 0 and 1, with a long upper tail


def coverage(distribution, n_seeds):
    """Return how often the interval of the scores of n seeds holds their true mean."""
    sample, truth = distribution
    intervals = [over_seeds(scores)["interval"] for scores in sample((4000, n_seeds))]
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.parametrize("distribution", [NORMAL, SKEWED], ids=["normal", "skewed"])
@pytest.mark.parametrize("n_seeds", [5, 10])
def test_interval_at_95_percent_covers_95_percent(distribution, n_seeds):
    assert coverage(distribution, n_seeds) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("n_seeds", "expected"), [(2, 0.5), (3, 0.75), (4, 0.875)])
def test_a_range_covers_less_and_is_not_called_an_interval(n_seeds, expected):
    """The range of n normal scores misses their mean with the probability 2 / 2^n."""
    assert coverage(NORMAL, n_seeds) == pytest.approx(expected, abs=0.02)
    scores = [0.1, 0.4, 0.2, 0.3][:n_seeds]
    found = over_seeds(scores)
    assert (found["interval"], found["interval_kind"]) == ([min(scores), max(scores)], "range")
    assert interval_name(n_seeds) == f"range of {n_seeds} seeds"
    assert "95" in interval_name(5)


def test_interval_is_that_of_students_test():
    scores = RNG.normal(size=7)
    expected = ttest_1samp(scores, 0).confidence_interval(0.95)
    assert over_seeds(scores)["interval"] == pytest.approx([expected.low, expected.high])
    low, high = t_interval(np.stack([scores, 2 * scores], 1))
    assert (low[1], high[1]) == pytest.approx((2 * expected.low, 2 * expected.high))


def test_one_seed_has_no_interval_and_none_no_score():
    assert over_seeds([0.5]) == {"value": 0.5, "interval": None, "interval_kind": None, "per_seed": [0.5]}
    with pytest.raises(ValueError, match="per_seed"):
        over_seeds([])


def test_wilson_is_that_of_scipy():
    for count, total in ((0, 7), (3, 7), (7, 7), (163, 1000)):
        expected = binomtest(count, total).proportion_ci(method="wilson")
        assert wilson(count, total) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)


def test_bootstrap_of_a_mean_is_about_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(3.0, 2.0, 2000)
    low, high = bootstrap(values)
    error = 1.96 * values.std() / 2000**0.5
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.15 * error)
    assert bootstrap(values) == (low, high)
    assert bootstrap(values[:0]) is None


def test_a_rate_has_wilsons_interval():
    expected = binomtest(3, 40).proportion_ci(method="wilson")
    found = rate(3, 40)
    assert (found["count"], found["total"], found["rate"]) == (3, 40, 0.075)
    assert found["interval"] == pytest.approx([expected.low, expected.high], abs=1e-6)
