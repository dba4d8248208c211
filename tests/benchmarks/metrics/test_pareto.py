import numpy as np
import pytest

from benchmarks.metrics.pareto import dominated_area, pareto_front


def test_dominated_area_is_that_of_a_grid():
    points = np.random.default_rng(0).random((20, 2))
    grid = (np.arange(400) + 0.5) / 400
    inside = (points[:, 0, None, None] > grid[:, None]) & (points[:, 1, None, None] > grid)
    assert dominated_area(points) == pytest.approx(inside.any(0).mean(), abs=0.01)
    front = points[pareto_front(points)]
    beaten = [((points >= p) & (points != p)).all(1).any() for p in points]
    assert sorted(map(tuple, front)) == sorted(map(tuple, points[~np.array(beaten)]))
