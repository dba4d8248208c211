"""Rewards of different tasks on one scale, so that the same settings make sense in all of them."""

from benchmarks.tasks import Task


def unit(task: Task) -> float:
    """Return the width of the range of totals that a task counts as 0 to 1: 1.2 eV/atom for stability."""
    return task.range[1] - task.range[0]


def iteration_size(task: Task, most: int, iterations: int) -> int:
    """Return how many crystals an iteration draws, so that the budget has at least so many iterations."""
    return max(2, min(most, task.budget // iterations))
