"""Pareto fronts of two objectives, both to be maximised."""

import numpy as np
from numpy.typing import NDArray


def pareto_front(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows of points (N, 2) that no other is better than in both, by the first number."""
    order = np.lexsort((-points[:, 1], -points[:, 0]))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], points[order, 1]]))[:-1]
    return order[points[order, 1] > best][::-1]


def dominated_area(points: NDArray[np.float64]) -> float:
    """Return the area of all rectangles from the origin to points (N, 2), none of them negative."""
    front = points[pareto_front(points)]
    widths = np.diff(np.concatenate([[0.0], front[:, 0]]))
    return float((widths * front[:, 1]).sum())
