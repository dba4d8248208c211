"""Medians of wall times over repeats."""

import time
from collections.abc import Callable
from statistics import median


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median wall time in seconds of ``repeats`` calls, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)
