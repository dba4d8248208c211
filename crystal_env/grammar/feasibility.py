"""Exact feasibility by dynamic programming: the decisions that lead to a crystal that meets all constraints.

The possible completions of an unfinished crystal depend on four things: the number of placed sites, the first letter
that may follow, the *counts* (atoms, atoms of each element of the formula, required elements present) and the *memory*
(the elements of the open tied sites). Backwards from the last possible site, a table holds for each such state whether
it can be completed, and by which letters. Elements that all constraints treat alike form one class, which keeps the
tables small.
"""

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError
from crystal_env.grammar.constraints import Constraints
from crystal_env.grammar.transitions import ElementClasses, count_transitions, memory_transitions, n_states
from crystal_env.wyckoff import N_ELEMENTS, N_GROUPS, N_LETTERS, tables

_Index = NDArray[np.int64]

_MAX_TABLE = 30_000_000  # entries of a table
_CHUNK = 2_000_000  # entries worked on at once

_BIT = np.left_shift(np.uint32(1), np.arange(N_LETTERS + 1, dtype=np.uint32))
_FROM = ~(_BIT - np.uint32(1)) | np.uint32(1)  # bits of STOP and of all letters from a first one on


class Grammar:
    """The grammar of crystals under constraints, for all space groups that these allow.

    A state is one number, ``counts * n_memories + memory``; the last one, ``dead``, cannot be completed. Episodes
    start in state 0.

    Attributes:
        constraints: the compiled constraints.
        probabilities (231,): of the space groups, 0 for groups without a possible crystal.

    Raises:
        ValueError: if no crystal can meet the constraints, or if their tables would need too much memory.
    """

    def __init__(self, constraints: Constraints) -> None:
        self.constraints = constraints
        weights = constraints.group_weights
        groups = np.flatnonzero(weights)
        self._classes = ElementClasses(constraints)
        multiplicities, self._multiplicity_index = np.unique(tables().primitive_multiplicity, return_inverse=True)
        self.dead = n_states(constraints, self._classes)
        size = len(groups) * (constraints.max_sites + 1) + len(multiplicities) * self._classes.n
        if size * (self.dead + 1) > _MAX_TABLE:
            raise InputError(
                f"constraints {constraints.in_words()} have {self.dead} states in each of {len(groups)} space groups, "
                "too many to tabulate: lower max_atoms, require fewer elements, list fewer groups or tie fewer sites"
            )
        self._next_counts, self._complete = count_transitions(constraints, self._classes, multiplicities)
        self._next_memory = memory_transitions(constraints, self._classes)
        self._n_memories = self._next_memory.shape[2]
        self._slot = np.full(N_GROUPS + 1, -1)
        self._slot[groups] = np.arange(len(groups))
        self._letters, self._completable = self._tabulate(groups)
        possible = self._letters[:, 0, 0] > 0
        _check_possible(constraints, groups, possible)
        self.probabilities = np.zeros(N_GROUPS + 1)
        self.probabilities[groups[possible]] = weights[groups[possible]] / weights[groups[possible]].sum()

    @cached_property
    def cumulative(self) -> NDArray[np.float64]:
        """Cumulative probabilities of the space groups (231,), the last possible one at 1."""
        cumulative = np.cumsum(self.probabilities)
        return np.where(cumulative >= cumulative[-1], 1.0, cumulative)

    def sample_groups(self, size: int, rng: np.random.Generator) -> _Index:
        """Sample the space groups (size,) of crystals."""
        return np.searchsorted(self.cumulative, rng.random(size), side="right")

    @cached_property
    def only_group(self) -> int:
        """The one space group that is possible, or 0 if there are several."""
        groups = np.flatnonzero(self.probabilities)
        return int(groups[0]) if len(groups) == 1 else 0

    @cached_property
    def is_unrestricted(self) -> bool:
        """Whether every allowed element may occupy every site, independent of the sites before."""
        return self.dead == 1 and self._classes.n == 1 and bool((self._next_memory == 0).all())

    @cached_property
    def element_mask(self) -> NDArray[np.bool_]:
        """Allowed elements (118,) of some site."""
        return self._classes.of_element[1:] >= 0

    def letters(self, G: _Index, site: _Index, start: _Index, state: _Index) -> NDArray[np.bool_]:
        """Return whether STOP and the letters are allowed next (n, 28); ``start`` (n,) is the first letter in order."""
        bits = self._letters[self._slot[G], site, state] & _FROM[start]
        return (bits[:, None] & _BIT[:N_LETTERS]) != 0

    def elements(self, G: _Index, W: _Index, site: _Index, state: _Index, A: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the allowed elements (n, 118) of site number ``site`` on ``W``; ``A`` (n, 21) are those before."""
        if self.is_unrestricted:
            return np.broadcast_to(self.element_mask, (len(G), N_ELEMENTS))
        after = self._after(G, W, site, state)
        bits = self._completable[self._slot[G][:, None], site[:, None] + 1, after]
        possible = np.zeros((len(G), self._classes.n + 1), bool)  # the last column is for elements of no class
        possible[:, :-1] = (bits & _BIT[tables().successor[G, W]][:, None]) != 0
        allowed = possible[:, self._classes.of_element[1:]]
        if self.constraints.tied_sites:
            first = self._first_tied[site]
            tied = first < site
            allowed[tied] &= A[tied, first[tied], None] == np.arange(1, N_ELEMENTS + 1)
        return allowed

    def advance(self, G: _Index, W: _Index, Z: _Index, site: _Index, state: _Index) -> _Index:
        """Return the states (n,) after element ``Z`` (n,) on letter ``W`` as site number ``site``."""
        if self.is_unrestricted:
            return state
        return self._after(G, W, site, state)[np.arange(len(G)), self._classes.of_element[Z]]

    @cached_property
    def _first_tied(self) -> _Index:
        first = np.arange(self.constraints.max_sites + 1)
        for sites in self.constraints.tied_sites:
            inside = [i for i in sites if i < len(first)]
            first[inside] = inside[:1]
        return first

    def _after(self, G: _Index, W: _Index, site: _Index, state: _Index) -> _Index:
        """Return the states (n, C) that the classes of elements lead to."""
        counts = self._next_counts[self._multiplicity_index[G, W], :, state // self._n_memories]
        memory = self._next_memory[site, :, state % self._n_memories]
        return np.where((counts < 0) | (memory < 0), self.dead, counts * self._n_memories + memory)

    def _tabulate(self, groups: _Index) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Return by group, number of placed sites and state: possible next letters, completable first letters.

        Both are bit sets; bit 0 of the first is STOP, bit 28 of the second says that STOP alone completes.
        """
        n_sites, n_states = self.constraints.max_sites, self.dead + 1
        letters = np.zeros((len(groups), n_sites + 1, n_states), np.uint32)
        completable = np.zeros((len(groups), n_sites + 1, n_states), np.uint32)
        step = max(1, _CHUNK // (N_LETTERS * self._classes.n * n_states))
        for site in range(n_sites, -1, -1):
            stop = self._may_stop(site)
            after = self._transitions(site) if site < n_sites else None
            for start in range(0, len(groups), step):
                part = slice(start, start + step)
                can = np.zeros((len(groups[part]), N_LETTERS, n_states), bool)
                if after is not None:
                    can[:, 1:] = self._possible_letters(groups[part], site, after, completable[part, site + 1])
                can[:, 0] = stop
                letters[part, site] = (can * _BIT[:N_LETTERS, None]).sum(1, dtype=np.uint32)
                from_letter = np.logical_or.accumulate(can[:, :0:-1], axis=1)[:, ::-1] | stop
                completable[part, site] = (from_letter * _BIT[1:N_LETTERS, None]).sum(1, dtype=np.uint32)
                completable[part, site] |= stop * _BIT[N_LETTERS]
        return letters, completable

    def _may_stop(self, site: int) -> NDArray[np.bool_]:
        template = self.constraints.wyckoff_letters
        stop = np.zeros(self.dead + 1, bool)
        if site > 0 and (template is None or site == len(template)):
            stop[:-1] = np.repeat(self._complete, self._n_memories)
        return stop

    def _transitions(self, site: int) -> _Index:
        """Return the states (M, C, S + 1) that multiplicities and classes lead to from every state."""
        counts, memory = self._next_counts[:, :, :, None], self._next_memory[site][None, :, None, :]
        after = np.where((counts < 0) | (memory < 0), self.dead, counts * self._n_memories + memory)
        after = after.reshape(*after.shape[:2], self.dead)
        return np.concatenate([after, np.full((*after.shape[:2], 1), self.dead)], axis=2)

    def _possible_letters(
        self, groups: _Index, site: int, after: _Index, completable: NDArray[np.uint32]
    ) -> NDArray[np.bool_]:
        """Return which letters 1...27 (K, 27, S + 1) lead to a state that can be completed."""
        T = tables()
        multiplicity = self._multiplicity_index[groups, 1:]  # (K, 27)
        states = after[multiplicity]  # (K, 27, C, S + 1)
        bits = completable[np.arange(len(groups))[:, None, None, None], states]
        can = ((bits & _BIT[T.successor[groups, 1:]][:, :, None, None]) != 0).any(2)
        exists = np.arange(1, N_LETTERS) <= T.n_letters[groups, None]
        template = self.constraints.wyckoff_letters
        if template is not None:
            wanted = template[site] if site < len(template) else 0
            exists &= np.arange(1, N_LETTERS) == wanted
        return can & exists[:, :, None]


@lru_cache(maxsize=16)
def compile_grammar(constraints: Constraints) -> Grammar:
    """Return the grammar of constraints, cached."""
    return Grammar(constraints)


def _check_possible(constraints: Constraints, groups: _Index, possible: NDArray[np.bool_]) -> None:
    """Raise unless some group is possible, or all of them if they were listed one by one."""
    if possible.all() or (possible.any() and not constraints.group_is_explicit):
        return
    words = constraints.in_words()
    shown = words.pop("space_group", "mp20")
    impossible = "" if not possible.any() else f"; impossible are {groups[~possible].tolist()}"
    reasons = ", ".join(f"{name} = {value}" for name, value in words.items())
    raise InputError(f"no crystal in space_group = {shown} meets the constraints {reasons}{impossible}")
