"""The state machine: many unfinished crystals, advanced together by one decision each.

Environment, vector environment and samplers are thin layers over `CrystalStates`. It takes real decisions only;
coordinates and lattice parameters that follow by symmetry are filled in when crystals are read.

A step is a few dozen operations on arrays over all rows, in whatever phases they are: tables hold the column of a
decision and the next phase. Inactive rows write into a spare column.
"""

import copy
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.encoding import denormalise, gamma_allowed, gamma_bounds, normalise_angle
from crystal_env.geometry import representatives
from crystal_env.grammar.feasibility import Grammar
from crystal_env.vocabulary import FIRST_ELEMENT, N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import N_GROUPS, N_LETTERS, N_SLOTS, tables

_Rows = NDArray[np.int64]

# plain integers: an attribute of an enumeration costs as much as a small array operation
_GROUP, _LETTER, _ELEMENT, _X = int(Phase.SPACE_GROUP), int(Phase.LETTER), int(Phase.ELEMENT), int(Phase.X)
_LATTICE, _GAMMA, _DONE = int(Phase.A), int(Phase.GAMMA), int(Phase.DONE)

# The columns of a row: five numbers a site, six of the lattice, two constants, and a spare one.
_FIRST_PARAMETER = 5 * N_SLOTS
_SPARE = _FIRST_PARAMETER + 8
_EMPTY = np.zeros(_SPARE + 1)
_EMPTY[_SPARE - 2 : _SPARE] = 90, 120
# By phase: the column of a decision, its stride per site, and the offset of ids.
_COLUMN = np.array([_SPARE, 0, 1, 2, 3, 4, *range(_FIRST_PARAMETER, _FIRST_PARAMETER + 6), _SPARE])
_PER_SITE = np.array([0, 5, 5, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0])
_ORIGIN = np.array([0, 0, FIRST_ELEMENT - 1, *[0] * 10])


class CrystalStates:
    """N crystals under construction. Rows start out finished: `reset` them first.

    Attributes:
        vocabulary: the action ids.
        phase (N,): the next decision, a `Phase`.
        G (N,): space groups, 0 until they are chosen.
        masks (N, V): allowed action ids; the array itself, to be copied by callers.
    """

    def __init__(self, size: int, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.phase = np.full(size, _DONE)
        self.G = np.zeros(size, np.int64)
        self.masks = vocabulary.base_masks[self.phase]
        self._values = np.zeros((size, _SPARE + 1))
        self._prefix: NDArray[Any] = np.zeros(
            (size, vocabulary.max_decisions + 3), np.int32 if vocabulary.bins else np.float32
        )
        self._prefix[:, 1] = _DONE
        self._site = np.zeros(size, np.int64)
        self._decisions = np.zeros(size, np.int64)
        self._letter = np.zeros(size, np.int64)  # of the site under construction
        self._first_letter = np.ones(size, np.int64)  # that may follow
        self._state = np.zeros(size, np.int64)  # of the constraints, see Grammar
        self._n_atoms = np.zeros(size, np.int64)
        self._grammar = np.zeros(size, np.int64)
        self._grammars: list[Grammar] = []
        self._base_masks = vocabulary.base_masks
        self._is_unrestricted = False  # a single grammar that only restricts elements, alike for all sites

    def __len__(self) -> int:
        return len(self.phase)

    @property
    def site(self) -> NDArray[np.int64]:
        """Number of placed sites (N,), the index of the one under construction."""
        return self._site

    @property
    def n_decisions(self) -> NDArray[np.int64]:
        """Number of decisions taken (N,)."""
        return self._decisions

    @property
    def observations(self) -> NDArray[Any]:
        """Space group, phase and the decisions so far (N, 2 + T): id + 1, or normalised values in continuous mode.

        The array itself, to be copied by callers.
        """
        return self._prefix[:, :-1]

    def take(self, rows: _Rows) -> Self:
        """Return a copy of the given rows (n,), repeats allowed, to branch into several continuations."""
        new = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and name != "_base_masks":
                setattr(new, name, value[rows])
        new._grammars = list(self._grammars)
        return new

    def reset(self, rows: _Rows, grammar: Grammar, groups: NDArray[np.int64]) -> None:
        """Start new crystals in ``rows`` (n,), in the space groups (n,), 0 where the agent chooses."""
        self._keep_grammar(rows, grammar)
        self.G[rows] = groups
        self._values[rows] = _EMPTY
        for array in (self._site, self._decisions, self._letter, self._state, self._n_atoms):
            array[rows] = 0
        self._first_letter[rows] = 1
        self._prefix[rows, 2:] = 0
        self.phase[rows] = np.where(groups > 0, _LETTER, _GROUP)
        self._prefix[rows, 0] = groups
        self._prefix[rows, 1] = self.phase[rows]
        self.masks[rows] = self._base_masks[self.phase[rows]]
        self._restrict(rows)

    def step(
        self, rows: _Rows, tokens: NDArray[np.int64], normalised: NDArray[np.float64] | None = None
    ) -> NDArray[np.bool_]:
        """Take one decision in each of ``rows`` (n,), which are unfinished and distinct.

        Args:
            rows: (n,) indices of crystals.
            tokens: (n,) action ids.
            normalised: (n,) normalised values in continuous mode, where the ids of numeric phases do not matter.

        Returns:
            (n,) whether the decision was allowed; a crystal whose decision was not stays as it is.
        """
        valid = self.allowed(rows, tokens, normalised)
        if not valid.all():
            rows, tokens = rows[valid], tokens[valid]
            normalised = None if normalised is None else normalised[valid]
        active, token = np.zeros(len(self), bool), np.zeros(len(self), np.int64)
        active[rows], token[rows] = True, tokens
        phase = np.where(active, self.phase, _DONE)
        if normalised is None:
            u, written = self.vocabulary.normalised[phase, token], token + 1
        else:
            u = np.zeros(len(self))
            u[rows] = normalised
            written = np.where(phase >= _X, u, token + 1)
        self._write(active, phase, token, u, written)
        self._advance_phase(active, phase)
        np.take(self._base_masks, self.phase, axis=0, out=self.masks, mode="clip")
        self._restrict(None)
        return valid

    def allowed(
        self, rows: _Rows, tokens: NDArray[np.int64], normalised: NDArray[np.float64] | None = None
    ) -> NDArray[np.bool_]:
        """Return whether `step` with the same arguments would allow each decision (n,)."""
        known = (tokens >= 0) & (tokens < self.vocabulary.size)
        allowed = known & self.masks[rows, np.where(known, tokens, 0)]
        if normalised is None:
            return allowed
        phase = self.phase[rows]
        allowed = np.where(phase >= _X, (normalised >= 0) & (normalised <= 1), allowed)
        gamma = np.flatnonzero(phase == _GAMMA)
        if len(gamma):
            low, high = self.gamma_bounds(rows[gamma]).T
            allowed[gamma] &= (normalised[gamma] >= low) & (normalised[gamma] <= high)
        return allowed

    def crystals(self, rows: _Rows) -> CrystalBatch:
        """Return copies of crystals (n,) as far as they are decided; undecided entries are 0."""
        G, values = self.G[rows], self._values[rows]
        sites = values[:, :_FIRST_PARAMETER].reshape(len(rows), N_SLOTS, 5)
        W, A, XYZ = sites[:, :, 0].astype(np.int64), sites[:, :, 1].astype(np.int64), sites[:, :, 2:].copy()
        row, slot = np.nonzero(np.arange(N_SLOTS) < self._site[rows, None])
        XYZ[row, slot] = representatives(G[row], W[row, slot], XYZ[row, slot])
        L = values[:, _FIRST_PARAMETER : _FIRST_PARAMETER + 6].copy()
        finished = np.flatnonzero(self.phase[rows] == _DONE)
        L[finished] = values[finished[:, None], _lattice_columns()[G[finished]]]
        return CrystalBatch(G, W, A, XYZ, L)

    def site_of(
        self, rows: _Rows, index: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return letters (n,), atomic numbers (n,) and representatives (n, 3) of one site of each of ``rows`` (n,).

        Undecided entries of a site under construction are 0, and so are the coordinates that depend on them.
        """
        values = self._values[rows[:, None], 5 * index[:, None] + np.arange(5)]
        W, A = values[:, 0].astype(np.int64), values[:, 1].astype(np.int64)
        return W, A, representatives(self.G[rows], W, values[:, 2:])

    def gamma_bounds(self, rows: _Rows) -> NDArray[np.float64]:
        """Return the bounds (n, 2) of the normalised value of gamma, where alpha and beta are decided."""
        return normalise_angle(gamma_bounds(*self._alpha_beta(rows)))

    def normalised_bounds(self, row: int) -> tuple[float, float]:
        """Return the bounds of the next normalised value of a row, (0, 1) except for a free gamma."""
        if self.phase[row] != _GAMMA:
            return 0.0, 1.0
        exact = self.gamma_bounds(np.array([row]))[0]
        low, high = exact.astype(np.float32)  # in the precision of actions both ends must be allowed
        low = low if low >= exact[0] else np.nextafter(low, np.float32(1))
        high = high if high <= exact[1] else np.nextafter(high, np.float32(0))
        return float(low), float(high)

    def _alpha_beta(self, rows: _Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._values[rows, _FIRST_PARAMETER + 3], self._values[rows, _FIRST_PARAMETER + 4]

    def _write(
        self,
        active: NDArray[np.bool_],
        phase: NDArray[np.int64],
        token: NDArray[np.int64],
        u: NDArray[np.float64],
        written: NDArray[Any],
    ) -> None:
        """Write the decisions of all rows into the crystals and the observations."""
        every = np.arange(len(self))
        is_element = phase == _ELEMENT
        self._letter = np.where(phase == _LETTER, token, self._letter)
        self._n_atoms += np.where(is_element, tables().multiplicity[self.G, self._letter], 0)
        value = np.where(phase < _X, token - _ORIGIN[phase], denormalise(u, phase, self._n_atoms))
        self._values[every, _COLUMN[phase] + _PER_SITE[phase] * self._site] = value
        self._prefix[every, np.where(active, 2 + self._decisions, -1)] = written
        self._decisions += active
        if self.vocabulary.chooses_group:
            self.G = np.where(phase == _GROUP, token - self.vocabulary.first_group + 1, self.G)
            self._prefix[:, 0] = self.G
        if self._is_unrestricted:
            return
        for grammar, part in self._by_grammar(np.flatnonzero(is_element)):
            Z = token[part] - FIRST_ELEMENT + 1
            place = self.G[part], self._letter[part], Z, self._site[part]
            self._state[part] = grammar.advance(*place, self._state[part])

    def _advance_phase(self, active: NDArray[np.bool_], phase: NDArray[np.int64]) -> None:
        """Set the next phase of all rows that were active in ``phase``."""
        following = _next_phase()[self.G, self._letter, phase]
        complete = (following == _LETTER) & (phase >= _ELEMENT)
        self._first_letter = np.where(complete, tables().successor[self.G, self._letter], self._first_letter)
        self._site += complete
        self.phase = np.where(active, following, self.phase)
        self._prefix[:, 1] = self.phase

    def _keep_grammar(self, rows: _Rows, grammar: Grammar) -> None:
        """Set the grammar of rows, and drop grammars that no row uses any more."""
        if len(self._grammars) == 1 and self._grammars[0] is grammar:
            return
        others = np.ones(len(self), bool)
        others[rows] = False
        used = np.unique(self._grammar[others & (self.phase != _DONE)])
        kept = [self._grammars[index] for index in used]
        if grammar not in kept:
            kept.append(grammar)
        moved = np.zeros(len(self._grammars) + 1, np.int64)
        moved[used] = np.arange(len(used))
        self._grammar = moved[self._grammar]
        self._grammar[rows] = kept.index(grammar)
        self._grammars = kept
        self._base_masks = self.vocabulary.base_masks
        self._is_unrestricted = len(kept) == 1 and grammar.is_unrestricted
        if self._is_unrestricted:
            self._base_masks = self._base_masks.copy()
            self._base_masks[_ELEMENT, FIRST_ELEMENT:N_SYMBOLS] = grammar.element_mask

    def _by_grammar(self, rows: _Rows) -> list[tuple[Grammar, _Rows]]:
        if len(self._grammars) == 1:
            return [(self._grammars[0], rows)] if len(rows) else []
        parts = [(grammar, rows[self._grammar[rows] == index]) for index, grammar in enumerate(self._grammars)]
        return [(grammar, part) for grammar, part in parts if len(part)]

    def _restrict(self, rows: _Rows | None) -> None:
        """Restrict masks (of all rows by default) from the phase's to those of grammar and gamma."""

        def at(phase: int) -> _Rows:
            return np.flatnonzero(self.phase == phase) if rows is None else rows[self.phase[rows] == phase]

        for grammar, part in self._by_grammar(at(_LETTER)):
            letters = grammar.letters(self.G[part], self._site[part], self._first_letter[part], self._state[part])
            self.masks[part, :N_LETTERS] = letters
        if not self._is_unrestricted:
            self._restrict_elements(at(_ELEMENT))
        if self.vocabulary.chooses_group:
            for grammar, part in self._by_grammar(at(_GROUP)):
                self.masks[part, self.vocabulary.first_group :] = grammar.probabilities[1:] > 0
        if self.vocabulary.bins and len(gamma := at(_GAMMA)):
            numbers = slice(N_SYMBOLS, self.vocabulary.first_group)
            u = self.vocabulary.normalised[_GAMMA, numbers]
            self.masks[gamma, numbers] = gamma_allowed(u, *self._alpha_beta(gamma))

    def _restrict_elements(self, rows: _Rows) -> None:
        for grammar, part in self._by_grammar(rows):
            A = self._values[part, 1:_FIRST_PARAMETER:5].astype(np.int64)
            elements = grammar.elements(self.G[part], self._letter[part], self._site[part], self._state[part], A)
            self.masks[part, FIRST_ELEMENT:N_SYMBOLS] = elements


@lru_cache(maxsize=1)
def _next_phase() -> NDArray[np.int64]:
    """Return the phase after a decision (231, 28, 13), by group, letter of the site under construction, and phase."""
    T = tables()
    following = np.full((N_GROUPS + 1, N_LETTERS, len(Phase)), _DONE)
    following[:, :, _GROUP] = _LETTER
    following[:, 1:, _LETTER] = _ELEMENT
    following[:, 0, _LETTER] = _LATTICE  # letter 0 is STOP, and every group has a free a
    coordinate = T.next_coordinate  # (231, 28, 4), 3 where no free one is left
    following[:, :, _ELEMENT:_LATTICE] = np.where(coordinate < 3, coordinate + _X, _LETTER)
    following[:, :, _LATTICE:_DONE] = _LATTICE + T.next_parameter[:, None, 1:]
    return following


@lru_cache(maxsize=1)
def _lattice_columns() -> NDArray[np.int64]:
    """Return the columns (231, 6) that hold the parameters of a complete lattice, by group."""
    T = tables()
    constant = np.where(T.lattice_angle == 120, _SPARE - 1, _SPARE - 2)
    return np.where(T.lattice_angle > 0, constant, _FIRST_PARAMETER + T.lattice_source)
