"""Scored crystals as episodes of ``CrystalGen-v0``: a data set for offline reinforcement learning."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.crystalformer.distribution import any_crystal
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import Vocabulary

_CHUNK = 256  # crystals at a time, for the memory of their observations


class Episode(NamedTuple):
    """An episode of T steps, the last of which completes the crystal and ends it.

    Attributes:
        observations (T + 1, 109): before every step, and after the last one.
        actions (T,): action ids; (T, 2) of id and normalised value in continuous mode.
        rewards (T,): 0 but for the last one, which is the crystal's.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]


def episodes(crystals: CrystalBatch, rewards: NDArray[np.float64], bins: int) -> Iterator[Episode]:
    """Yield the episodes that build B crystals, in their order.

    Args:
        crystals: B crystals.
        rewards: (B,) their rewards.
        bins: of the discrete environment, on the nearest of which numbers are put; 0 for the continuous one, whose
            actions are in single precision.

    Raises:
        ValueError: if the environment cannot build a crystal.
    """
    vocabulary = Vocabulary(bins)
    for start in range(0, len(crystals), _CHUNK):
        part = crystals[start : start + _CHUNK]
        actions, lengths = part.to_actions(vocabulary)
        observations = _observations(part.G, actions, lengths, vocabulary)
        for row, length in enumerate(lengths):
            steps = np.zeros(length)
            steps[-1] = rewards[start + row]
            yield Episode(observations[row, : length + 1].copy(), actions[row, :length].copy(), steps)


def _observations(
    G: NDArray[np.int64], actions: NDArray[Any], lengths: NDArray[np.int64], vocabulary: Vocabulary
) -> NDArray[Any]:
    """Return what the environment shows (B, T + 1, n) before and after T actions (B, T) or (B, T, 2)."""
    states = CrystalStates(len(G), vocabulary)
    states.reset(np.arange(len(G)), any_crystal(), G)
    seen = [states.observations.copy()]
    for step in range(int(lengths.max())):
        rows = np.flatnonzero(lengths > step)
        now = actions[rows, step]
        tokens, values = (now, None) if vocabulary.bins else (np.rint(now[:, 0]).astype(np.int64), now[:, 1] * 1.0)
        is_allowed = states.step(rows, tokens, values)
        if not is_allowed.all():
            raise InputError(f"the environment cannot build a crystal of group {G[rows[~is_allowed][0]]}: step {step}")
        seen.append(states.observations.copy())
    return np.stack(seen, axis=1)
