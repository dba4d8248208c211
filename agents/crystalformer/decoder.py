"""Unfinished crystals in the network: the state machine, and a key/value cache."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.crystalformer.kv_cache import NewTokens
from agents.crystalformer.network import Network
from crystal_env.errors import InputError
from crystal_env.grammar.feasibility import Grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import Phase, Vocabulary
from crystal_env.wyckoff import N_LETTERS

_Rows = NDArray[np.int64]

# Kind of token, 0 letter ... 4 z, that a phase decides; past a site's last one where it decides none.
_KIND = np.array([0, 0, 1, 2, 3, 4, 1, 1, 1, 1, 1, 1, 1])


class Decoder:
    """Crystals that a network continues decision by decision.

    Of every decision only the tokens that are new pass through the network, together with those that follow from it by
    symmetry, or because nothing else is allowed.

    Attributes:
        states: the crystals.
        hidden (B, D): normalised residual stream at the last token of every crystal, 0 where there is none yet.
        output (B, O): the network's output for the next decision.
    """

    def __init__(self, model: Network, vocabulary: Vocabulary, grammar: Grammar, groups: _Rows) -> None:
        self.model = model
        self.states = CrystalStates(len(groups), vocabulary)
        self._length = np.zeros(len(groups), np.int64)
        self._cache = model.new_cache(len(groups))
        self.hidden = model.head.weight.new_zeros(len(groups), model.config.model_size)
        self.output = self.hidden.new_zeros(len(groups), model.config.output_size, dtype=model.real_dtype)
        self.restart(np.arange(len(groups)), grammar, groups)

    def restart(self, rows: _Rows, grammar: Grammar, groups: _Rows) -> None:
        """Begin new crystals in ``rows`` (n,), in the space groups (n,), 0 where it is to be chosen."""
        self.states.reset(rows, grammar, groups)
        self._length[rows] = 0
        self.hidden[rows] = 0
        self._set_first_letters(rows)

    def step(self, rows: _Rows, tokens: NDArray[np.int64], values: NDArray[np.float64] | None = None) -> None:
        """Take one allowed decision in each of ``rows`` (n,), as `CrystalStates.step`, and all that it forces."""
        fed = [self._decide(rows, tokens, values)]
        while len(rows := self._forced(rows)):
            only = self.states.masks[rows].argmax(1)
            fed.append(self._decide(rows, only, None if values is None else np.zeros(len(rows))))
        self._feed(*(np.concatenate(parts) for parts in zip(*fed, strict=True)))

    def replay(self, rows: _Rows, written: NDArray[Any], phase: NDArray[np.int64] | None = None) -> None:
        """Take several allowed decisions in each of ``rows`` (n,), in one pass.

        Args:
            rows: (n,) indices of crystals.
            written: (n, T) the decisions as `CrystalStates.observations` shows them, 0 after the last.
            phase: (n,) where they lead to, which with densities tells a number 0 from the end.
        """
        fed = [self._decide(*decisions) for decisions in walk(self.states, rows, written, phase)]
        if fed:
            self._feed(*(np.concatenate(parts) for parts in zip(*fed, strict=True)))

    def take(self, rows: _Rows) -> _Rows:
        """Keep the given crystals (n,) only; return which of the present rows the new ones are.

        Crystals stay where they are, but for the last ones, which fill the gaps.
        """
        n = len(rows)
        order, stays = np.arange(n), rows < n
        gaps = np.setdiff1d(order, rows[stays])
        order[gaps] = rows[~stays]
        move, to = (torch.from_numpy(part).to(self.model.device) for part in (order[gaps], gaps))
        self._cache.move(move, to, int(self._length.max(initial=0)))
        self.states, self._length = self.states.take(order), self._length[order]
        index = torch.from_numpy(order).to(self.model.device)
        self.hidden, self.output = self.hidden[index], self.output[index]
        return order

    def _forced(self, rows: _Rows) -> _Rows:
        """Return which of ``rows`` have a letter or an element to decide and no choice."""
        phase = self.states.phase[rows]
        rows = rows[(phase == Phase.LETTER) | (phase == Phase.ELEMENT)]
        return rows[self.states.masks[rows].sum(1) == 1]

    def _decide(
        self, rows: _Rows, tokens: NDArray[np.int64], values: NDArray[np.float64] | None
    ) -> tuple[NDArray[Any], ...]:
        """Advance the state machine; return row, position, symbol and coordinate (N,) of the new tokens."""
        site, first = self.states.site[rows], _KIND[self.states.phase[rows]]
        is_lattice, is_group = self.states.phase[rows] >= Phase.A, self.states.phase[rows] == Phase.SPACE_GROUP
        if not self.states.step(rows, tokens, values).all():
            raise InputError("tokens must be allowed in every row")
        if is_group.any():
            self._set_first_letters(rows[is_group])
        end = np.where(self.states.phase[rows] == Phase.LETTER, 5, _KIND[self.states.phase[rows]])
        feeds = ~(is_lattice | is_group)
        which, kind = np.nonzero((np.arange(5) >= first[:, None]) & (np.arange(5) < end[:, None]) & feeds[:, None])
        row, site = rows[which], site[which]
        W, A, XYZ = self.states.site_of(row, site)
        symbol = np.where(kind == 0, W, np.where(kind == 1, A, 0))
        coordinate = np.where(kind > 1, XYZ[np.arange(len(kind)), np.maximum(kind - 2, 0)], 0.0)
        return row, 5 * site + kind, symbol, coordinate

    def _feed(
        self, row: _Rows, position: NDArray[np.int64], symbol: NDArray[np.int64], coordinate: NDArray[np.float64]
    ) -> None:
        """Pass new tokens (N,) through the network."""
        if not len(row):
            return
        slot = position - self._length[row]
        np.maximum.at(self._length, row, position + 1)
        longest = int(self._length.max())
        self._cache.grow(longest, len(self.states))
        device, G = self.model.device, self.states.G[row]
        row_, slot_, position_, G_, symbol_ = (
            torch.from_numpy(array).to(device) for array in (row, slot, position, G, symbol)
        )
        x = torch.from_numpy(coordinate).to(device, self.model.real_dtype)
        new = NewTokens(row_, slot_, position_, G_, symbol_, x, len(self.states), int(slot.max()) + 1, longest)
        hidden = self.model.extend(self._cache, new)
        is_last = torch.from_numpy(position + 1 == self._length[row]).to(device)
        self.hidden[row_[is_last]] = hidden[is_last]
        self.output[row_[is_last]] = self.model.read(hidden[is_last])

    def _set_first_letters(self, rows: _Rows) -> None:
        """Set the output of crystals without a token, which describes the first letter."""
        index, groups = (torch.from_numpy(array).to(self.model.device) for array in (rows, self.states.G[rows]))
        self.output[index, :N_LETTERS] = self.model.first_letters(groups)


def token_position(states: CrystalStates) -> _Rows:
    """Return the position (N,) of the last token of every crystal, -1 where there is none yet."""
    position: _Rows = 5 * states.site + _KIND[states.phase] - 1
    return position


def walk(
    states: CrystalStates, rows: _Rows, written: NDArray[Any], phase: NDArray[np.int64] | None = None
) -> Iterator[tuple[_Rows, NDArray[np.int64], NDArray[np.float64] | None]]:
    """Yield rows, ids and normalised values of the decisions that observations show, each to be taken at once.

    Args:
        states: the crystals.
        rows: (n,) which of them.
        written: (n, T) the decisions as `CrystalStates.observations` shows them, 0 after the last.
        phase: (n,) where they lead to, which with densities tells a number 0 from the end.
    """
    continues = np.logical_or.accumulate(written[:, ::-1] != 0, axis=1)[:, ::-1]
    for column, more in zip(written.T, continues.T, strict=True):
        at = more if phase is None else more | (states.phase[rows] != phase)
        if not at.any():
            return
        if states.vocabulary.bins:
            yield rows[at], column[at].astype(np.int64) - 1, None
        else:
            is_number = states.phase[rows[at]] >= Phase.X
            tokens = np.where(is_number, 0, column[at] - 1).astype(np.int64)
            yield rows[at], tokens, np.where(is_number, column[at], 0.0).astype(np.float64)
