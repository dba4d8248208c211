"""What baselines without gradients share: spending a budget, and returning the best crystals found."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.session import Session
from benchmarks.tasks import Task
from crystal_env.crystal import CrystalBatch
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import Grammar, compile_grammar

_PATIENCE = 20  # batches in a row without a new crystal, after which a search ends
_SPENDING = 1  # separates the random numbers of spending from others of the same seed


class Sampler(Protocol):
    """Samples crystals in given space groups."""

    def sample(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        ...


def grammar_of(task: Task) -> Grammar:
    """Return the grammar of a task's constraints."""
    return compile_grammar(constraints(**task.constraints))


def spend(session: Session, sampler: Sampler, batch_size: int) -> None:
    """Query the oracle for samples until the budget is spent or no new crystal comes; the task gives space groups."""
    rng, grammar, idle = np.random.default_rng([session.seed, _SPENDING]), grammar_of(session.task), 0
    while not session.oracle.spent and idle < _PATIENCE:
        calls = session.oracle.calls
        session.score(sampler.sample(grammar.sample_groups(batch_size, rng), rng))
        idle = 0 if session.oracle.calls > calls else idle + 1


class BestSeen:
    """Returns the best crystals that the oracle was queried for, each once, in the requested space groups.

    Of crystals with the same letters and elements (`Crystal.key`) the best comes first, the others after all best ones.
    Failed crystals are left out. Groups without enough crystals are filled up by another sampler.

    Args:
        session: its oracle holds the crystals.
        others: samples the missing crystals.
    """

    def __init__(self, session: Session, others: Sampler) -> None:
        result, self.crystals = session.oracle.result(), session.oracle.crystals
        scored = result.scored
        best_first = np.argsort(-result.total, kind="stable")
        self.best_first, self.others = best_first[scored[best_first]], others

    def sample(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        chosen = np.full(len(space_groups), -1)
        for group in np.unique(space_groups):
            places = np.flatnonzero(space_groups == group)
            rows = self._best_of(self.best_first[self.crystals.G[self.best_first] == group], len(places))
            chosen[places[: len(rows)]] = rows
        missing = np.flatnonzero(chosen < 0)
        fresh = self.others.sample(space_groups[missing], seed)
        chosen[missing] = len(self.crystals) + np.arange(len(missing))
        return CrystalBatch.concatenate([self.crystals, fresh])[chosen]

    def _best_of(self, rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Return up to ``size`` of sorted rows, the first one of every key before all others."""
        seen: set[str] = set()
        first: list[int] = []
        again: list[int] = []
        for row in rows:
            if len(first) == size:
                break
            key = self.crystals[int(row)].key()
            (again if key in seen else first).append(int(row))
            seen.add(key)
        return np.array((first + again)[:size], np.int64)


def best_of_groups(session: Session, fraction: float) -> CrystalBatch:
    """Return the best crystals of each space group that the oracle was queried for.

    Groups are given, not chosen: the best of all would teach an agent which groups are easy. A group with fewer than
    ``1 / fraction`` crystals has none.
    """
    result, crystals = session.oracle.result(), session.oracle.crystals
    order = np.lexsort((-result.total, crystals.G))
    G = crystals.G[order]
    rank = np.arange(len(G)) - np.searchsorted(G, G)
    size = np.searchsorted(G, G, side="right") - np.searchsorted(G, G)
    rows = order[rank + 1 <= fraction * size]
    return crystals[rows[result.scored[rows]]]


def range_width(task: Task) -> float:
    """Return the width of the range of rewards that a task counts as 0 to 1: 1.2 eV/atom for stability."""
    return task.range[1] - task.range[0]


def iteration_size(task: Task, largest: int, iterations: int) -> int:
    """Return the largest number of crystals per iteration that leaves the budget so many iterations."""
    return max(2, min(largest, task.budget // iterations))
