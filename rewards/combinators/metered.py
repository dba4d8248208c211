"""A meter that counts the calls of a reward, and stops when the budget is spent."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward
from rewards.combinators.aggregate import lower_floor
from rewards.combinators.cache import Keys

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal

OnExceeded = Literal["raise", "floor"]

_COUNTERS = ("calls", "batches", "seconds", "failures")


class BudgetExceeded(RuntimeError):
    """More crystals were to be scored than the budget allows."""


class Metered:
    """A reward that counts the crystals it scores.

    Total, terms and failures are those of the reward. The order of wrappers decides what is counted:
    ``Cached(Metered(reward))`` counts the crystals that the reward is evaluated for, ``Metered(Cached(reward))`` all
    queries, cached ones included. The budget is a limit of ``calls``. A batch that would exceed it raises
    `BudgetExceeded` before any of it is scored; with ``on_exceeded="floor"`` the first crystals are scored as far as
    the budget reaches, and the others get ``floor`` and a reason. Environments and agents survive whatever a reward
    raises, so there the two give the same result.

    Args:
        reward: any reward.
        budget: maximum number of crystals scored, by default unlimited.
        on_exceeded: ``"raise"`` or ``"floor"``.
        floor: the total of a crystal beyond the budget, or for which the reward raises.
        count_distinct: whether to count distinct crystals, which takes a canonical key (a millisecond) each.

    Attributes:
        calls: number of crystals scored.
        batches: number of calls of the reward; a batch for which it raises is scored again crystal by crystal.
        seconds: time spent in the reward.
        failures: number of crystals that could not be scored.
        floor: the lowest total: the argument, or the reward's own floor where it is lower.

    Raises:
        ValueError: if ``budget`` is negative, ``on_exceeded`` is neither, or ``floor`` is not finite.

    Example:
        >>> import rewards
        >>> reward = rewards.WeightedSum({"stable": Metered(rewards.EnergyAboveHull()), "dense": rewards.Density()})
    """

    def __init__(
        self,
        reward: Reward | str,
        budget: int | None = None,
        on_exceeded: OnExceeded = "raise",
        floor: float = -10.0,
        count_distinct: bool = True,
    ) -> None:
        budget = None if budget is None else integer("budget", budget, least=0)
        if on_exceeded not in get_args(OnExceeded):
            raise InputError(f"on_exceeded must be one of {get_args(OnExceeded)}, got {on_exceeded!r}")
        self.reward = resolve_reward(reward)
        self.scorer = Scorer(self._timed, finite_number("floor", floor))
        self.budget, self.on_exceeded = budget, on_exceeded
        self.calls = self.batches = self.failures = 0
        self.seconds = 0.0
        self._keys = Keys() if count_distinct else None
        self._seen: set[str] = set()
        self._terms: list[str] = []

    @property
    def floor(self) -> float:
        """The lowest total; see the class."""
        return lower_floor(self.scorer.floor, self.reward)

    @property
    def distinct(self) -> int | None:
        """Number of distinct crystals scored, equivalent settings counted once; None if they are not counted."""
        return None if self._keys is None else len(self._seen)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals, and count them.

        Raises:
            BudgetExceeded: if they are more than the budget allows, with ``on_exceeded="raise"``.
        """
        crystals = as_batch(crystals)
        left = len(crystals) if self.budget is None else max(self.budget - self.calls, 0)
        allowed = min(len(crystals), left)
        if allowed < len(crystals) and self.on_exceeded == "raise":
            raise BudgetExceeded(
                f"the budget of {self.budget} crystals is exceeded: {self.calls} were scored, {len(crystals)} queried"
            )
        scored = crystals[:allowed]
        result = self.scorer(scored)
        self.calls += len(scored)
        self.failures += int(np.count_nonzero(~result.scored))
        if self._keys is not None:
            self._seen.update(self._keys(scored))
        beyond = self._refused(len(crystals) - allowed)
        result = RewardResult.concatenate([result, beyond], self.scorer.floor, self._terms)
        self._terms = list(result.terms)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, to be saved with an agent."""
        return {**{name: getattr(self, name) for name in _COUNTERS}, "seen": sorted(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts of `state_dict`.

        Raises:
            ValueError: if a count is missing.
        """
        missing = sorted({*_COUNTERS, "seen"} - state.keys())
        if missing:
            raise InputError(f"state must be of a meter, it lacks {missing}")
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self._seen = set(state["seen"])

    def _refused(self, size: int) -> RewardResult:
        """Return the result of crystals beyond the budget."""
        reason = f"the budget of {self.budget} crystals is spent"
        return RewardResult(np.full(size, self.scorer.floor), {}, np.full(size, reason, object))

    def _timed(self, crystals: CrystalBatch) -> Any:
        """Call the reward and measure its time."""
        self.batches += 1
        start = time.perf_counter()
        try:
            return self.reward(crystals)
        finally:
            self.seconds += time.perf_counter() - start
