"""The state machine: many unfinished crystals, advanced together by one decision each.

Every environment, vector environment and sampler of the project is a thin face of `CrystalStates`. Only real decisions
are asked for; coordinates and lattice parameters that follow by symmetry are filled in.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.feasibility import Grammar
from crystal_env.vocabulary import (
    FIRST_ELEMENT,
    N_SYMBOLS,
    STOP,
    Phase,
    Vocabulary,
    angle_to_unit,
    gamma_bounds,
    unit_to_value,
)
from crystal_env.wyckoff import N_LETTERS, N_SLOTS, tables

_Rows = NDArray[np.int64]

# plain integers: an attribute of an enumeration costs as much as a small array operation
_GROUP, _LETTER, _ELEMENT, _X, _LAST_COORDINATE = (
    int(p) for p in (Phase.SPACE_GROUP, Phase.LETTER, Phase.ELEMENT, Phase.X, Phase.Z)
)
_LATTICE, _GAMMA, _DONE = int(Phase.A), int(Phase.GAMMA), int(Phase.DONE)


class CrystalStates:
    """N crystals under construction. Rows start out finished: `reset` them first.

    Attributes:
        vocabulary: the action ids.
        phase (N,): what is decided next, a `Phase`.
        G (N,), W (N, 21), A (N, 21), XYZ (N, 21, 3), L (N, 6): the crystals so far, as in `CrystalBatch`.
        site (N,): number of placed sites, the index of the one under construction.
        masks (N, V): allowed action ids; the arrays themselves, to be copied before they leave.
        observations (N, 2 + T): space group, phase, then the decisions so far: id + 1, and in continuous mode the unit
            values of numbers themselves.
    """

    def __init__(self, size: int, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.phase = np.full(size, _DONE)
        self.G = np.zeros(size, np.int64)
        self.W = np.zeros((size, N_SLOTS), np.int64)
        self.A = np.zeros((size, N_SLOTS), np.int64)
        self.XYZ = np.zeros((size, N_SLOTS, 3))
        self.L = np.zeros((size, 6))
        self.site = np.zeros(size, np.int64)
        dtype = np.int32 if vocabulary.bins else np.float32
        self.observations: NDArray[Any] = np.zeros((size, 2 + vocabulary.max_decisions), dtype)
        self.observations[:, 1] = _DONE
        self.masks = vocabulary.base_masks[self.phase]
        self._decisions = np.zeros(size, np.int64)
        self._first_letter = np.ones(size, np.int64)
        self._state = np.zeros(size, np.int64)
        self._n_atoms = np.zeros(size, np.int64)
        self._grammars: list[Grammar] = []
        self._grammar = np.zeros(size, np.int64)

    def __len__(self) -> int:
        return len(self.phase)

    def reset(self, rows: _Rows, grammar: Grammar, groups: NDArray[np.int64]) -> None:
        """Start new crystals in ``rows`` (n,), in the space groups (n,), 0 where the agent chooses."""
        self._keep_grammar(rows, grammar)
        self.G[rows] = groups
        for array in (self.W, self.A, self.XYZ, self.L, self.site, self._decisions, self._state, self._n_atoms):
            array[rows] = 0
        self._first_letter[rows] = 1
        self.observations[rows, 2:] = 0
        self.phase[rows] = np.where(groups > 0, _LETTER, _GROUP)
        self._refresh(rows)

    def step(
        self, rows: _Rows, tokens: NDArray[np.int64], units: NDArray[np.float64] | None = None
    ) -> NDArray[np.bool_]:
        """Take one decision in each of ``rows`` (n,), which are unfinished and distinct.

        Args:
            rows: (n,) indices of crystals.
            tokens: (n,) action ids.
            units: (n,) unit values of numbers in continuous mode, where the ids of numeric phases do not matter.

        Returns:
            (n,) whether the decision was allowed; a crystal whose decision was not stays as it is.
        """
        valid = self.allowed(rows, tokens, units)
        phase = self.phase[rows]
        if not valid.all():
            rows, tokens, phase = rows[valid], tokens[valid], phase[valid]
            units = None if units is None else units[valid]
        numeric = phase >= _X
        if units is None:
            written: NDArray[Any] = tokens + 1
            units = np.zeros(len(rows))
            units[numeric] = self.vocabulary.unit[phase[numeric], tokens[numeric] - N_SYMBOLS]
        else:
            written = np.where(numeric, units, tokens + 1)
        self.observations[rows, 2 + self._decisions[rows]] = written
        self._decisions[rows] += 1
        self._advance(rows, phase, tokens, units)
        self._refresh(rows)
        return valid

    def allowed(
        self, rows: _Rows, tokens: NDArray[np.int64], units: NDArray[np.float64] | None = None
    ) -> NDArray[np.bool_]:
        """Return whether `step` with the same arguments would allow each decision (n,)."""
        known = (tokens >= 0) & (tokens < self.vocabulary.size)
        allowed = known & self.masks[rows, np.where(known, tokens, 0)]
        if units is None:
            return allowed
        phase = self.phase[rows]
        allowed = np.where(phase >= _X, (units >= 0) & (units <= 1), allowed)
        gamma = np.flatnonzero(phase == _GAMMA)
        if len(gamma):
            low, high = self._gamma_bounds(rows[gamma]).T
            allowed[gamma] &= (units[gamma] >= low) & (units[gamma] <= high)
        return allowed

    def crystals(self, rows: _Rows) -> CrystalBatch:
        """Return finished crystals (n,) as a batch of their own."""
        return CrystalBatch(self.G[rows], self.W[rows], self.A[rows], self.XYZ[rows], self.L[rows])

    def unit_bounds(self, row: int) -> tuple[float, float]:
        """Return the bounds of the unit value that one crystal may be given next, (0, 1) but for a free gamma."""
        if self.phase[row] != _GAMMA:
            return 0.0, 1.0
        low, high = self._gamma_bounds(np.array([row]))[0]
        return float(low), float(high)

    def _keep_grammar(self, rows: _Rows, grammar: Grammar) -> None:
        """Set the grammar of rows, and forget those that no row uses any more."""
        if self._grammars == [grammar]:
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

    def _by_grammar(self, rows: _Rows) -> list[tuple[Grammar, _Rows]]:
        if len(self._grammars) == 1:
            return [(self._grammars[0], rows)] if len(rows) else []
        parts = [(grammar, rows[self._grammar[rows] == index]) for index, grammar in enumerate(self._grammars)]
        return [(grammar, part) for grammar, part in parts if len(part)]

    def _gamma_bounds(self, rows: _Rows) -> NDArray[np.float64]:
        return angle_to_unit(gamma_bounds(self.L[rows, 3], self.L[rows, 4]))

    def _advance(
        self, rows: _Rows, phase: NDArray[np.int64], tokens: NDArray[np.int64], units: NDArray[np.float64]
    ) -> None:
        groups = phase == _GROUP
        if groups.any():
            self.G[rows[groups]] = tokens[groups] - self.vocabulary.first_group + 1
            self.phase[rows[groups]] = _LETTER
        letters = phase == _LETTER
        if letters.any():
            self._place_letters(rows[letters], tokens[letters])
        elements = phase == _ELEMENT
        if elements.any():
            self._place_elements(rows[elements], tokens[elements] - FIRST_ELEMENT + 1)
        coordinates = (phase >= _X) & (phase <= _LAST_COORDINATE)
        if coordinates.any():
            self._place_coordinates(rows[coordinates], units[coordinates])
        lattice = phase >= _LATTICE
        if lattice.any():
            self._place_lattice(rows[lattice], units[lattice])

    def _place_letters(self, rows: _Rows, letters: NDArray[np.int64]) -> None:
        self.W[rows, self.site[rows]] = letters
        self.phase[rows] = np.where(letters == STOP, _LATTICE, _ELEMENT)  # every group has a free a

    def _place_elements(self, rows: _Rows, Z: NDArray[np.int64]) -> None:
        T, G, site = tables(), self.G[rows], self.site[rows]
        W = self.W[rows, site]
        self.A[rows, site] = Z
        for grammar, part in self._by_grammar(rows):
            at = slice(None) if len(part) == len(rows) else np.isin(rows, part)
            self._state[part] = grammar.advance(G[at], W[at], Z[at], site[at], self._state[part])
        self._n_atoms[rows] += T.multiplicity[G, W]
        self._next_coordinate(rows, G, W, T.next_coordinate[G, W, 0])

    def _place_coordinates(self, rows: _Rows, units: NDArray[np.float64]) -> None:
        G, site, coordinate = self.G[rows], self.site[rows], self.phase[rows] - _X
        W = self.W[rows, site]
        self.XYZ[rows, site, coordinate] = units % 1
        self._next_coordinate(rows, G, W, tables().next_coordinate[G, W, coordinate + 1])

    def _next_coordinate(
        self, rows: _Rows, G: NDArray[np.int64], W: NDArray[np.int64], coordinate: NDArray[np.int64]
    ) -> None:
        self.phase[rows] = coordinate + _X
        complete = coordinate == 3
        if complete.any():
            self._complete_sites(rows[complete], G[complete], W[complete])

    def _complete_sites(self, rows: _Rows, G: NDArray[np.int64], W: NDArray[np.int64]) -> None:
        T, site = tables(), self.site[rows]
        projection = T.projection[G, W]
        points = (projection[:, :, :3] @ self.XYZ[rows, site][:, :, None])[:, :, 0] + projection[:, :, 3]
        points -= np.floor(points)
        points[points >= 1 - 1e-12] = 0.0
        self.XYZ[rows, site] = points
        self.site[rows] = site + 1
        self._first_letter[rows] = T.successor[G, W]
        self.phase[rows] = _LETTER

    def _place_lattice(self, rows: _Rows, units: NDArray[np.float64]) -> None:
        T, G, phase = tables(), self.G[rows], self.phase[rows]
        parameter = phase - _LATTICE
        self.L[rows, parameter] = unit_to_value(units, phase, self._n_atoms[rows])
        parameter = T.next_parameter[G, parameter + 1]
        self.phase[rows] = parameter + _LATTICE
        complete = parameter == 6
        if complete.any():
            rows, G = rows[complete], G[complete]
            L = np.take_along_axis(self.L[rows], T.lattice_source[G], axis=1)
            self.L[rows] = np.where(T.lattice_angle[G] > 0, T.lattice_angle[G], L)

    def _refresh(self, rows: _Rows) -> None:
        """Bring masks and the head of the observations up to date."""
        phase = self.phase[rows]
        self.observations[rows, 0] = self.G[rows]
        self.observations[rows, 1] = phase
        self.masks[rows] = self.vocabulary.base_masks[phase]
        present = np.bincount(phase, minlength=_DONE + 1).tolist()
        if present[_LETTER]:
            self._open_letters(rows[phase == _LETTER])
        if present[_ELEMENT]:
            self._open_elements(rows[phase == _ELEMENT])
        if present[_GROUP]:
            for grammar, part in self._by_grammar(rows[phase == _GROUP]):
                self.masks[part, self.vocabulary.first_group :] = grammar.probabilities[1:] > 0
        if present[_GAMMA] and self.vocabulary.bins:
            gamma = rows[phase == _GAMMA]
            unit, bounds = self.vocabulary.unit[_GAMMA], self._gamma_bounds(gamma)
            allowed = (unit >= bounds[:, :1]) & (unit <= bounds[:, 1:])
            self.masks[gamma, N_SYMBOLS : self.vocabulary.first_group] = allowed

    def _open_letters(self, rows: _Rows) -> None:
        for grammar, part in self._by_grammar(rows):
            letters = grammar.letters(self.G[part], self.site[part], self._first_letter[part], self._state[part])
            self.masks[part, :N_LETTERS] = letters

    def _open_elements(self, rows: _Rows) -> None:
        for grammar, part in self._by_grammar(rows):
            G, site = self.G[part], self.site[part]
            elements = grammar.elements(G, self.W[part, site], site, self._state[part], self.A[part])
            self.masks[part, FIRST_ELEMENT:N_SYMBOLS] = elements
