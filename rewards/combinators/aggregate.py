"""Several rewards as one: sum, product, minimum, and a gate before an expensive one."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward, reward_floor, without_failure

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal


class _Part(NamedTuple):
    weight: float
    scorer: Scorer


class Combination:
    """Several rewards of the same crystals, combined into one number.

    The terms are, for every part, its total as ``name`` and its terms as ``name/term``; ``success`` is 1 where all
    parts succeed. A crystal that a part cannot score, for which it raises or returns a number that is not finite, gets
    ``floor`` and a reason that names the part. All parts score all crystals.

    Args:
        parts: name -> reward, or name -> (weight, reward); weights are 1 by default. A reward is any callable, or
            ``"module:attribute"``.
        floor: the total of a crystal that cannot be scored.

    Attributes:
        floor: the lowest total: the argument, or that of the parts' own floors where it is lower.

    Raises:
        ValueError: if there is no part, a name is empty, ``"success"`` or has a slash, a weight is out of range,
            ``floor`` is not finite, or a part is not a reward.
    """

    lowest: ClassVar[float] = -np.inf
    """The lowest value of a part that can be combined."""

    def __init__(self, parts: Mapping[str, Reward | str | tuple[float, Reward | str]], floor: float = -10.0) -> None:
        if not parts:
            raise InputError(f"parts must hold at least one reward, got {parts!r}")
        self._floor = finite_number("floor", floor)
        self.parts: dict[str, _Part] = {}
        for name, part in parts.items():
            if not name or "/" in name or name == "success":
                raise InputError(f"names of parts must not be empty, 'success' or have a slash, got {name!r}")
            weight, reward = part if isinstance(part, tuple) else (1.0, part)
            self.check_weight(name, weight)
            self.parts[name] = _Part(float(weight), Scorer(resolve_reward(reward), self._floor))

    @property
    def floor(self) -> float:
        """The lowest total, as far as the parts state theirs; see the class."""
        floors = [reward_floor(part.scorer.reward) for part in self.parts.values()]
        weights = np.array([part.weight for part in self.parts.values()])
        known = np.array([floor for floor in floors if floor is not None])
        if len(known) < len(floors) or (weights < 0).any():
            return self._floor
        with np.errstate(all="ignore"):
            lowest = float(self.combine(np.maximum(known, self.lowest)[:, None], weights)[0])
        return min(self._floor, lowest) if np.isfinite(lowest) else self._floor

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        results = {name: part.scorer(crystals) for name, part in self.parts.items()}
        failures, terms = np.full(len(crystals), None, object), {}
        success = np.ones(len(crystals), bool)
        for name, result in results.items():
            terms[name] = result.total
            terms.update({f"{name}/{term}": values for term, values in result.terms.items()})
            success &= result.success()
            for row, (value, reason) in enumerate(zip(result.total, result.failures, strict=True)):
                if reason is None and value < self.lowest:
                    reason = f"{value:.3g}, allowed is at least {self.lowest:g}"
                if reason is not None:
                    failures[row] = failures[row] or f"{name}: {reason}"
        total, rows = np.full(len(crystals), self._floor), without_failure(failures)
        with np.errstate(all="ignore"):
            total[rows] = self.combine(
                np.array([result.total[rows] for result in results.values()]),
                np.array([part.weight for part in self.parts.values()]),
            )
        result = finite_or_floor(RewardResult(total, terms, failures), self._floor)
        return result._replace(terms=terms | {"success": (success & result.scored).astype(np.float64)})

    def check_weight(self, name: str, weight: float) -> None:
        """Check that a weight is in range."""
        finite_number(f"weight of {name!r}", weight)

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one number (B,) from totals (parts, B) and weights (parts,); it must not fall as a total rises."""
        raise NotImplementedError


class WeightedSum(Combination):
    """The sum of weight times reward; see `Combination` for arguments and terms.

    Example:
        >>> import rewards
        >>> from crystal_env.crystal import Crystal
        >>> both = WeightedSum({"valid": (2.0, rewards.Validity()), "dense": (0.1, rewards.Density(target=5.0))})
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> sorted(both([rock_salt]).terms)[:3]
        ['dense', 'dense/density', 'dense/success']
    """

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weighted sum (B,)."""
        return (weights[:, None] * totals).sum(0)


class WeightedProduct(Combination):
    """The weighted geometric mean, the product of reward^(weight / sum of weights), as REINVENT's product of scores.

    For rewards between 0 and 1, such as sigmoids: it is between 0 and 1 too, and 0 if one part is. A crystal with a
    negative part cannot be scored. See `Combination` for arguments and terms; weights must be positive.
    """

    lowest: ClassVar[float] = 0.0

    def __init__(self, parts: Mapping[str, Reward | str | tuple[float, Reward | str]], floor: float = 0.0) -> None:
        super().__init__(parts, floor)

    def check_weight(self, name: str, weight: float) -> None:
        """Check that a weight is positive."""
        finite_number(f"weight of {name!r}", weight, above=0)

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weighted geometric mean (B,)."""
        powers: NDArray[np.float64] = totals ** (weights / weights.sum())[:, None]
        return powers.prod(0)


class Minimum(Combination):
    """The smallest of weight times reward; see `Combination` for arguments and terms."""

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the smallest weighted total (B,)."""
        return (weights[:, None] * totals).min(0)


class Gate:
    """A reward for crystals that meet a condition, so that an expensive model runs for promising ones only.

    A crystal passes if the condition succeeds, by its term ``success`` where it has one, else if its total is positive.
    The others get ``floor``, success 0, the reward's terms as ``floor`` too, and a reason. The terms of the reward keep
    their names; the condition's total is ``gate`` and its terms are ``gate/term``, or ``gate2`` and so on where gates
    are nested.

    Args:
        condition: a reward, such as `Validity`.
        reward: the reward of crystals that pass.
        floor: the total of crystals that do not pass or cannot be scored.

    Attributes:
        floor: the lowest total: the argument, or the reward's own floor where it is lower.

    Raises:
        ValueError: if ``condition`` or ``reward`` is not a reward, or ``floor`` is not finite.

    Example:
        >>> import rewards
        >>> reward = Gate(rewards.Validity(), rewards.EnergyAboveHull())
    """

    def __init__(self, condition: Reward | str, reward: Reward | str, floor: float = -10.0) -> None:
        floor = finite_number("floor", floor)
        self.condition = Scorer(resolve_reward(condition), floor)
        self.scorer = Scorer(resolve_reward(reward), floor)
        self._names: list[str] | None = None

    @property
    def floor(self) -> float:
        """The lowest total; see the class."""
        return lower_floor(self.scorer.floor, self.scorer.reward)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals, floor = as_batch(crystals), self.scorer.floor
        condition = self.condition(crystals)
        passed = condition.success()
        if "success" not in condition.terms:
            passed &= condition.total > 0
        result = self.scorer(crystals[passed])
        total, failures = np.full(len(crystals), floor), np.full(len(crystals), None, object)
        for row in np.flatnonzero(~passed):
            reason = condition.failures[row]
            failures[row] = "it does not pass the gate" + ("" if reason is None else f": {reason}")
        total[passed], failures[passed] = result.total, result.failures
        terms, success = {}, np.zeros(len(crystals))
        success[passed] = result.success()
        for name in dict.fromkeys([*self._known_names(), *result.terms]):
            terms[name] = np.full(len(crystals), floor)
            terms[name][passed] = result.terms.get(name, floor)
        label = unused_label("gate", terms)
        terms |= {label: condition.total, **{f"{label}/{name}": values for name, values in condition.terms.items()}}
        return RewardResult(total, terms | {"success": success}, failures)

    def _known_names(self) -> list[str]:
        """Return the reward's terms, which must be present even if no crystal passes."""
        if self._names is None:
            try:
                empty = self.scorer.reward(CrystalBatch.empty())
            except Exception:  # noqa: BLE001  a user's reward may not take an empty batch; its terms are found later
                empty = None
            self._names = list(empty.terms) if isinstance(empty, RewardResult) else []
        return self._names


def lower_floor(floor: float, reward: Reward) -> float:
    """Return the lower of a floor and that of a reward, if the reward states one."""
    stated = reward_floor(reward)
    return floor if stated is None else min(floor, stated)


def finite_or_floor(result: RewardResult, floor: float) -> RewardResult:
    """Return a result in which a total that is not finite has become the floor, with a reason."""
    bad = ~np.isfinite(result.total)
    failures = result.failures.copy()
    failures[bad] = [
        reason or f"the result is {value}" for reason, value in zip(failures[bad], result.total[bad], strict=True)
    ]
    return result._replace(total=np.where(bad, floor, result.total), failures=failures)


def unused_label(label: str, terms: Iterable[str]) -> str:
    """Return the label, numbered from 2 on if a term has it already."""
    taken, found = {name.partition("/")[0] for name in terms}, label
    number = 2
    while found in taken:
        found, number = f"{label}{number}", number + 1
    return found
