"""How often a reward was really asked, and a budget for it."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal


class BudgetExceeded(RuntimeError):
    """More crystals were to be scored than the budget allows."""


class Metered:
    """A reward that counts what it is asked.

    Exactly equal crystals of a batch count each: put `Cached` around the meter to count what is really computed, or
    the meter around `Cached` to count what is asked for.

    Attributes:
        calls: crystals scored.
        batches: calls of the reward.
        failures: crystals that could not be scored.
        seconds: wall time in the reward.

    Args:
        reward: any reward.
        budget: most crystals to be scored, by default any number.
        floor: the total of a crystal that cannot be scored.

    Raises:
        ValueError: if ``budget`` is not positive.
    """

    def __init__(self, reward: Reward | str, budget: int | None = None, floor: float = -10.0) -> None:
        if budget is not None and budget < 1:
            raise ValueError(f"budget must be positive, got {budget}")
        self.scorer = Scorer(resolve_reward(reward), float(floor))
        self.budget = budget
        self.calls = self.batches = self.failures = 0
        self.seconds = 0.0

    @property
    def left(self) -> float:
        """How many crystals the budget still allows."""
        return np.inf if self.budget is None else self.budget - self.calls

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals and count them.

        Raises:
            BudgetExceeded: if there are more than the budget still allows; none of them is scored.
        """
        crystals = as_batch(crystals)
        if len(crystals) > self.left:
            raise BudgetExceeded(
                f"{len(crystals)} crystals are to be scored, the budget of {self.budget} still allows {self.left:g}"
            )
        start = time.perf_counter()
        result = self.scorer(crystals)
        self.seconds += time.perf_counter() - start
        self.calls += len(crystals)
        self.batches += 1
        self.failures += int(sum(failure is not None for failure in result.failures))
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, to be saved with an agent."""
        return {name: getattr(self, name) for name in ("calls", "batches", "failures", "seconds")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the counts that `state_dict` gave."""
        self.calls, self.batches, self.failures = (int(state[name]) for name in ("calls", "batches", "failures"))
        self.seconds = float(state["seconds"])
