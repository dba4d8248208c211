"""A meter that counts what a reward is asked, and stops when the budget is spent."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward
from rewards.combinators.cache import Keys

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal

OnExceeded = Literal["raise", "floor"]

_COUNTERS = ("calls", "batches", "seconds", "failures")


class BudgetExceeded(RuntimeError):
    """More crystals were to be scored than the budget allows."""


class Metered:
    """A reward that counts how often it really ran.

    Total, terms and failures are those of the reward. What is counted depends on where the meter stands:
    ``Cached(Metered(reward))`` counts the crystals that the reward ran for, ``Metered(Cached(reward))`` all that were
    asked for. The budget is a limit of ``calls``. A batch that would go beyond it raises `BudgetExceeded` before any of
    it is scored; with ``on_exceeded="floor"`` the first crystals are scored as far as the budget reaches, and the
    others get ``floor`` and a reason. Environments and agents survive whatever a reward raises: there the outcome is
    the same.

    Args:
        reward: any reward.
        budget: most crystals to be scored, by default any number.
        on_exceeded: ``"raise"`` or ``"floor"``.
        floor: the total of a crystal beyond the budget, or for which the reward raises.
        count_distinct: whether to count different crystals, which costs a canonical key (a millisecond) each.

    Attributes:
        calls: crystals that were scored.
        batches: times the reward was called; a batch for which it raises is asked again crystal by crystal.
        seconds: time spent in the reward.
        failures: crystals that could not be scored.

    Raises:
        ValueError: if ``budget`` is negative or ``on_exceeded`` is neither.

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
        if budget is not None and budget < 0:
            raise InputError(f"budget must be at least 0, got {budget}")
        if on_exceeded not in get_args(OnExceeded):
            raise InputError(f"on_exceeded must be one of {get_args(OnExceeded)}, got {on_exceeded!r}")
        self.reward = resolve_reward(reward)
        self.scorer = Scorer(self._timed, float(floor))
        self.budget, self.on_exceeded, self.floor = budget, on_exceeded, float(floor)
        self.calls = self.batches = self.failures = 0
        self.seconds = 0.0
        self._keys = Keys() if count_distinct else None
        self._seen: set[str] = set()
        self._terms: list[str] = []

    @property
    def distinct(self) -> int | None:
        """Different crystals that were scored, equivalent descriptions being one; None if they are not counted."""
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
                f"the budget of {self.budget} crystals is exceeded: {self.calls} were scored, {len(crystals)} asked"
            )
        scored = crystals[:allowed]
        result = self.scorer(scored)
        self.calls += len(scored)
        self.failures += int(np.count_nonzero(~result.scored))
        if self._keys is not None:
            self._seen.update(self._keys(scored))
        beyond = self._refused(len(crystals) - allowed)
        result = RewardResult.concatenate([result, beyond], self.floor, self._terms)
        self._terms = list(result.terms)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted, to be saved with an agent."""
        return {**{name: getattr(self, name) for name in _COUNTERS}, "seen": sorted(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

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
        return RewardResult(np.full(size, self.floor), {}, np.full(size, reason, object))

    def _timed(self, crystals: CrystalBatch) -> Any:
        """Ask the reward, and take the time."""
        self.batches += 1
        start = time.perf_counter()
        try:
            return self.reward(crystals)
        finally:
            self.seconds += time.perf_counter() - start
