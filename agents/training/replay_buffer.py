"""The replay buffer: every crystal that was scored, with its reward terms and its log-likelihoods at sampling."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult

Draw = Literal["uniform", "recent", "rank"]

PARTS = ("letters", "elements", "coordinates", "lattice")
"""The parts of a log-likelihood, in the order of its columns."""

REJECTED = "rejected: "
"""What the failure of a crystal begins with that a filter has kept from being scored."""

_RANK_OFFSET = 0.01  # of the size of the buffer, added to every rank


@dataclass(frozen=True)
class Transitions:
    """n scored crystals; an episode of ``CrystalGen-v0`` is a crystal, since its reward comes at the end.

    Attributes:
        crystals: n crystals.
        rewards (n,): what is maximised.
        result: total rewards, terms and failures, as the reward gave them.
        log_prob (n, 4): log-likelihoods of letters, elements, coordinates and lattice by the policy that sampled the
            crystals, or, of crystals from elsewhere, by the policy at the time they were added, in nats.
        reference_log_prob (n, 4): those by the reference policy.
        iteration (n,): iteration in which the crystals were added, negative where `KLPPO.learn` restarted the count.
        is_sampled (n,): whether the policy that ``log_prob`` is by sampled them.
    """

    crystals: CrystalBatch = field(default_factory=CrystalBatch.empty)
    rewards: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    result: RewardResult = field(default_factory=lambda: RewardResult.concatenate([], 0.0))
    log_prob: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    reference_log_prob: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    iteration: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    is_sampled: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.rewards)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the given rows (m,), repeats allowed."""
        return type(self)(
            self.crystals[rows], self.rewards[rows], self.result.take(rows), self.log_prob[rows],
            self.reference_log_prob[rows], self.iteration[rows], self.is_sampled[rows],
        )  # fmt: skip

    def usable(self) -> NDArray[np.int64]:
        """Return the rows whose numbers are all finite: of the others nothing can be learned."""
        numbers = np.column_stack([self.rewards, self.log_prob, self.reference_log_prob])
        return np.flatnonzero(np.isfinite(numbers).all(1))

    @classmethod
    def concatenate(cls, parts: "list[Transitions]") -> Self:
        """Join parts in order; a term that a part lacks is 0 there, but which crystals succeeded stays as it was."""
        arrays = ("rewards", "log_prob", "reference_log_prob", "iteration", "is_sampled")
        results = [part.result for part in parts]
        if any("success" in result.terms for result in results):
            results = [r._replace(terms={**r.terms, "success": r.success().astype(np.float64)}) for r in results]
        return cls(
            crystals=CrystalBatch.concatenate([part.crystals for part in parts]),
            result=RewardResult.concatenate(results, 0.0),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
        )


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
