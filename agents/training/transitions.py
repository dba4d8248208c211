"""n scored crystals, as the replay buffer keeps them and as its files hold them."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult

PARTS = ("letters", "elements", "coordinates", "lattice")
"""The parts of a log-likelihood, in the order of its columns."""

REJECTED = "rejected: "
"""What the failure of a crystal begins with that a filter has kept from being scored."""


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
