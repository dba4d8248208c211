"""Several rewards as one: sum, product, minimum, and a gate before a costly one."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward, without_failure

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal


class _Part(NamedTuple):
    weight: float
    scorer: Scorer


class Combination:
    """Several rewards of the same crystals, and one number of them.

    The terms are, for every part, its total as ``name`` and its terms as ``name/term``; ``success`` is 1 where all
    parts succeed. A crystal that a part cannot score, for which it raises or gives a number that is not finite, gets
    ``floor`` and a reason that names the part. All parts are asked about all crystals.

    Args:
        parts: name -> reward, or name -> (weight, reward); weights are 1 by default. A reward is any callable, or
            ``"module:attribute"``.
        floor: the total of a crystal that cannot be scored.

    Raises:
        ValueError: if there is no part, a name is empty, ``"success"`` or has a slash, a weight is not what the
            combination needs, ``floor`` is not finite, or a part is no reward.
    """

    lowest: ClassVar[float] = -np.inf
    """The lowest value of a part that can be combined."""

    def __init__(self, parts: Mapping[str, Reward | str | tuple[float, Reward | str]], floor: float = -10.0) -> None:
        if not parts:
            raise InputError(f"parts must hold at least one reward, got {parts!r}")
        self.floor = checked_floor(floor)
        self.parts: dict[str, _Part] = {}
        for name, part in parts.items():
            if not name or "/" in name or name == "success":
                raise InputError(f"names of parts must not be empty, 'success' or have a slash, got {name!r}")
            weight, reward = part if isinstance(part, tuple) else (1.0, part)
            self.check_weight(name, weight)
            self.parts[name] = _Part(float(weight), Scorer(resolve_reward(reward), self.floor))

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
        total, rows = np.full(len(crystals), self.floor), without_failure(failures)
        with np.errstate(all="ignore"):
            total[rows] = self.combine(
                np.array([result.total[rows] for result in results.values()]),
                np.array([part.weight for part in self.parts.values()]),
            )
        total, failures = finite_or_floor(total, failures, self.floor)
        scored = np.zeros(len(crystals), bool)
        scored[without_failure(failures)] = True
        terms["success"] = (success & scored).astype(np.float64)
        return RewardResult(total, terms, failures)

    def check_weight(self, name: str, weight: float) -> None:
        """Make sure that a weight makes sense."""
        if not np.isfinite(weight):
            raise InputError(f"weight of {name!r} must be finite, got {weight}")

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one number (B,) of the totals (parts, B) and weights (parts,)."""
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
        """Make sure that a weight is positive."""
        if not 0 < weight < np.inf:
            raise InputError(f"weight of {name!r} must be positive, got {weight}")

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
    """A reward that is asked only about crystals that pass a condition: the costly model only for what is worth it.

    A crystal passes if the condition succeeds, by its term ``success`` where it has one, else if its total is positive.
    The others get ``floor``, success 0, the reward's terms as ``floor`` too, and a reason. The terms of the reward keep
    their names; the condition's total is ``gate`` and its terms are ``gate/term``, or ``gate2`` and so on where gates
    are nested.

    Args:
        condition: a reward, such as `Validity`.
        reward: the reward of those that pass.
        floor: the total of the others, and of those that cannot be scored.

    Raises:
        ValueError: if ``condition`` or ``reward`` is no reward, or ``floor`` is not finite.

    Example:
        >>> import rewards
        >>> reward = Gate(rewards.Validity(), rewards.EnergyAboveHull())
    """

    def __init__(self, condition: Reward | str, reward: Reward | str, floor: float = -10.0) -> None:
        self.floor = checked_floor(floor)
        self.condition = Scorer(resolve_reward(condition), self.floor)
        self.scorer = Scorer(resolve_reward(reward), self.floor)
        self._names: list[str] | None = None

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        asked = self.condition(crystals)
        passed = asked.success()
        if "success" not in asked.terms:
            passed &= asked.total > 0
        result = self.scorer(crystals[passed])
        total, failures = np.full(len(crystals), self.floor), np.full(len(crystals), None, object)
        for row in np.flatnonzero(~passed):
            reason = asked.failures[row]
            failures[row] = "it does not pass the gate" + ("" if reason is None else f": {reason}")
        total[passed], failures[passed] = result.total, result.failures
        terms, success = {}, np.zeros(len(crystals))
        success[passed] = result.success()
        for name in dict.fromkeys([*self._known_names(), *result.terms]):
            terms[name] = np.full(len(crystals), self.floor)
            terms[name][passed] = result.terms.get(name, self.floor)
        label = unused_label("gate", terms)
        terms |= {label: asked.total, **{f"{label}/{name}": values for name, values in asked.terms.items()}}
        return RewardResult(total, terms | {"success": success}, failures)

    def _known_names(self) -> list[str]:
        """Return the reward's terms, which have to be there even if no crystal passes."""
        if self._names is None:
            try:
                empty = self.scorer.reward(CrystalBatch.empty())
            except Exception:  # noqa: BLE001  a user's reward may not expect it, and then shows its terms later
                empty = None
            self._names = list(empty.terms) if isinstance(empty, RewardResult) else []
        return self._names


def checked_floor(floor: float) -> float:
    """Return what crystals get that cannot be scored.

    Raises:
        ValueError: if it is not finite.
    """
    if not np.isfinite(floor):
        raise InputError(f"floor must be finite, got {floor}")
    return float(floor)


def finite_or_floor(
    total: NDArray[np.float64], failures: NDArray[np.object_], floor: float
) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Return totals and reasons (B,) in which numbers that are not finite have become the floor, with a reason."""
    bad = ~np.isfinite(total)
    failures = failures.copy()
    failures[bad] = [
        reason or f"the result is {value}" for reason, value in zip(failures[bad], total[bad], strict=True)
    ]
    return np.where(bad, floor, total), failures


def unused_label(label: str, terms: Iterable[str]) -> str:
    """Return the label, numbered from 2 on if a term has it already."""
    taken, found = {name.partition("/")[0] for name in terms}, label
    number = 2
    while found in taken:
        found, number = f"{label}{number}", number + 1
    return found
