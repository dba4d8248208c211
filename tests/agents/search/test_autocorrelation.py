import numpy as np
import pytest

from agents.search.autocorrelation import autocorrelation_time


def test_autocorrelation_time_is_that_of_an_autoregressive_process():
    rng = np.random.default_rng(0)
    for memory in (0.0, 0.5, 0.9):
        x, series = np.zeros(50), []
        for noise in rng.normal(size=(4000, 50)):
            x = memory * x + noise
            series.append(x)
        assert autocorrelation_time(np.array(series)) == pytest.approx((1 + memory) / (1 - memory), rel=0.08)
    assert autocorrelation_time(np.ones((10, 3))) == 1.0
