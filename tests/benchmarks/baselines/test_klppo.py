"""KLPPO in units of the task."""

import pytest

import benchmarks.baselines as baselines
from agents.klppo.config import KLPPOConfig
from benchmarks.baselines.search import iteration_size, range_width
from benchmarks.tasks import find_task


def test_settings_come_in_units_of_the_task():
    stability = find_task("stability")
    assert baselines.KLPPOPaper().tau * range_width(stability) == pytest.approx(0.1)  # arXiv:2504.02367, Table S1
    assert iteration_size(stability, 1000, 20) == 1000
    best = baselines.KLPPOBest()
    assert iteration_size(stability, best.batch_size, best.iterations) == 500
    low, high = (
        bound + sign * best.margin * range_width(stability)
        for bound, sign in zip(stability.range, (-1, 1), strict=True)
    )
    assert (low, high) == pytest.approx((-2.0, 1.2))
    config = KLPPOConfig(learning_rate=best.learning_rate, warmup=best.warmup, schedule="linear")
    rates = [config.learning_rate_at(iteration, 1 - iteration / 40) for iteration in range(41)]
    assert rates[0] == pytest.approx(best.learning_rate / 5)
    assert max(rates) == pytest.approx(best.learning_rate * 36 / 40)
    assert rates[-1] == 0
