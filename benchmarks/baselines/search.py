"""What baselines without gradients share: spending a budget, and drawing the best of what was found."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.session import Session
from benchmarks.tasks import Task
from crystal_env.crystal import CrystalBatch
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import Grammar, compile_grammar

_PATIENCE = 20  # batches without a new crystal, after which nothing new is to be expected
_SPENDING = 1  # tells the random numbers of spending from others of the same seed


class Sampler(Protocol):
    """Draws crystals."""

    def sample(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        ...


def grammar_of(task: Task) -> Grammar:
    """Return the grammar of a task's constraints."""
    return compile_grammar(constraints(**task.constraints))


def spend(session: Session, sampler: Sampler, batch_size: int) -> None:
    """Ask the oracle about what a sampler draws until its calls are spent, or nothing new comes any more.

    Space groups are those that the task draws.
    """
    rng, grammar, idle = np.random.default_rng([session.seed, _SPENDING]), grammar_of(session.task), 0
    while not session.oracle.spent and idle < _PATIENCE:
        calls = session.oracle.calls
        session.score(sampler.sample(grammar.sample_groups(batch_size, rng), rng))
        idle = 0 if session.oracle.calls > calls else idle + 1


class BestSeen:
    """Draws the best crystals that the oracle was asked about, each once, in the space groups that are requested.

    Of crystals that share letters and elements (`Crystal.key`) the best comes first, the others when each of these has
    come. What could not be scored does not come. Groups of which there are not enough are filled up by another sampler.

    Args:
        session: what was asked is in its oracle.
        others: draws what is missing.
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
        """Return up to ``size`` of some rows that are sorted, those with a key of their own before all others."""
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


def best_of_groups(session: Session, share: float) -> CrystalBatch:
    """Return the best crystals of each space group that the oracle was asked about.

    Groups are given, not chosen: the best of all would teach an agent which groups are easy. Of a group with fewer than
    ``1 / share`` crystals there is none.
    """
    result, crystals = session.oracle.result(), session.oracle.crystals
    order = np.lexsort((-result.total, crystals.G))
    G = crystals.G[order]
    rank = np.arange(len(G)) - np.searchsorted(G, G)
    size = np.searchsorted(G, G, side="right") - np.searchsorted(G, G)
    rows = order[rank + 1 <= share * size]
    return crystals[rows[[result.failures[row] is None for row in rows]]]


def unit(task: Task) -> float:
    """Return the width of the range of totals that a task counts as 0 to 1: 1.2 eV/atom for stability."""
    return task.range[1] - task.range[0]


def iteration_size(task: Task, most: int, iterations: int) -> int:
    """Return how many crystals an iteration draws, so that the budget has at least so many iterations."""
    return max(2, min(most, task.budget // iterations))
