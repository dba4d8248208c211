"""The replay buffer: every crystal that was scored, with its reward terms and its log-likelihoods at sampling."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from agents.training.offline_episodes import Episode, episodes
from agents.training.replay_file import read_transitions, write_transitions
from agents.training.transitions import REJECTED, Transitions
from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult

Draw = Literal["uniform", "recent", "rank"]

_RANK_OFFSET = 0.01  # of the size of the buffer, added to every rank


class ReplayBuffer:
    """Keeps the latest crystals, about 1 kB each.

    Args:
        size: capacity; beyond it the oldest crystals are dropped.

    Attributes:
        data: the crystals, the oldest first.
        settings: settings that rewards and log-likelihoods depend on.
    """

    def __init__(self, size: int) -> None:
        self.size, self.data = size, Transitions()
        self.settings: dict[str, Any] = {}
        self._keys: list[str] = []

    def __len__(self) -> int:
        return len(self.data)

    def add(self, new: Transitions) -> int:
        """Add crystals, those apart whose numbers are not all finite; return how many were added."""
        new = new.take(new.usable())
        kept = max(0, len(self.data) + len(new) - self.size)
        every = Transitions.concatenate([self.data, new])
        self.data = every.take(np.arange(kept, len(every))) if kept else every
        self._keys = [*self._keys, *_keys(new)][kept:]
        return len(new)

    def keys(self) -> set[str]:
        """Return the keys of all crystals that were scored: see `Crystal.key`."""
        return set(self._keys) - {""}

    def weights(self, draw: Draw, recency: float) -> NDArray[np.float64]:
        """Return the probabilities (n,) of the crystals in a minibatch.

        Args:
            draw: ``"uniform"``; ``"recent"``, each iteration of age counts by the factor ``recency``; or ``"rank"``, in
                proportion to 1 / (0.01 n + rank) by reward (Tripp et al., arXiv:2006.09191, Eq. 3).
            recency: factor in (0, 1].
        """
        weights = np.ones(len(self))
        if draw == "recent" and len(self):
            weights = recency ** (self.data.iteration.max() - self.data.iteration).astype(np.float64)
        elif draw == "rank":
            weights[np.argsort(-self.data.rewards, kind="stable")] /= _RANK_OFFSET * len(self) + np.arange(len(self))
        return weights / weights.sum()

    def save(self, path: str | Path) -> None:
        """Write all crystals into a file, replaced whole or not at all: see `agents.training.replay_file`.

        Args:
            path: with the suffix ``.npz``, ``.csv`` or ``.csv.gz``.

        Raises:
            ValueError: if the suffix is another one.
        """
        write_transitions(path, self.data)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return a buffer with all crystals of a file of `save`, or of any file with crystals and rewards.

        Numbers that the file lacks are NaN. An agent learns from the crystals after
        ``agent.add_to_buffer(buffer.data.crystals, buffer.data.result)``.

        Raises:
            ValueError: naming the line or row of the file that is malformed, and why.
        """
        data = read_transitions(path)
        buffer = cls(max(1, len(data)))
        buffer.data, buffer._keys = data, _keys(data)
        return buffer

    def episodes(self, bins: int = 960) -> Iterator[Episode]:
        """Yield the episodes of ``CrystalGen-v0`` that build the crystals, the oldest first.

        Args:
            bins: of the discrete environment, on the nearest of which numbers are put; 0 for the continuous one.

        Raises:
            ValueError: if the environment cannot build a crystal.
        """
        return episodes(self.data.crystals, self.data.rewards, bins)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as tensors and texts, to be saved with an agent."""
        state: dict[str, Any] = {"size": self.size, "settings": self.settings}
        state["failures"] = [failure or "" for failure in self.data.result.failures]
        for name in ("G", "W", "A", "XYZ", "L"):
            state[name] = torch.from_numpy(getattr(self.data.crystals, name))
        for f in fields(Transitions):
            if isinstance(value := getattr(self.data, f.name), np.ndarray):
                state[f.name] = torch.from_numpy(value)
        state["total"] = torch.from_numpy(self.data.result.total)
        state["terms"] = {name: torch.from_numpy(values) for name, values in self.data.result.terms.items()}
        return state

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Restore what `state_dict` gave."""
        arrays = {name: value.cpu().numpy().copy() for name, value in state.items() if torch.is_tensor(value)}
        crystals = CrystalBatch(*(arrays.pop(name) for name in ("G", "W", "A", "XYZ", "L")))
        failures = np.array([*(failure or None for failure in state["failures"]), None], object)[:-1]
        terms = {name: values.cpu().numpy().copy() for name, values in state["terms"].items()}
        result = RewardResult(arrays.pop("total"), terms, failures)
        self.size, self.settings = int(state["size"]), state["settings"]
        self.data = Transitions(crystals=crystals, result=result, **arrays)
        self._keys = _keys(self.data)


def _keys(data: Transitions) -> list[str]:
    """Return the keys of crystals, no text for those that were rejected without a score."""
    rows = zip(data.crystals, data.result.failures, strict=True)
    return ["" if (failure or "").startswith(REJECTED) else crystal.key() for crystal, failure in rows]
