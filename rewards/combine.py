"""Several rewards as one: sum, product, minimum, and a gate before a costly one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward
from rewards.predict import without_failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal


class _Part(NamedTuple):
    weight: float
    scorer: Scorer


class Combination:
    """Several rewards of the same crystals, and one number of them.

    The terms are, for every part, its total as ``name`` and its terms as ``name/term``; ``success`` is 1 where all
    parts succeed. A crystal that one part cannot score gets ``floor`` and a reason that names the part; so does one for
    which a part raises, or gives a number that is not finite. All parts are asked about all crystals.

    Args:
        parts: name -> reward, or name -> (weight, reward); weights are 1 by default.
        floor: the total of a crystal that cannot be scored.

    Raises:
        ValueError: if there is no part, a name is empty or has a slash, or a weight is not what the combination needs.
    """

    def __init__(self, parts: Mapping[str, Reward | str | tuple[float, Reward | str]], floor: float = -10.0) -> None:
        if not parts:
            raise ValueError("parts must hold at least one reward")
        self.floor = float(floor)
        self.parts: dict[str, _Part] = {}
        for name, part in parts.items():
            if not name or "/" in name or name == "success":
                raise ValueError(f"names of parts must not be empty, 'success' or have a slash, got {name!r}")
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
            for row in np.flatnonzero([failure is not None for failure in result.failures]):
                failures[row] = failures[row] or f"{name}: {result.failures[row]}"
        total, rows = np.full(len(crystals), self.floor), without_failure(failures)
        totals = np.array([result.total[rows] for result in results.values()])  # (parts, scored)
        total[rows] = self.combine(totals, np.array([part.weight for part in self.parts.values()]))
        terms["success"] = success.astype(np.float64)
        return RewardResult(total, terms, failures)

    def check_weight(self, name: str, weight: float) -> None:
        """Make sure that a weight makes sense."""
        if not np.isfinite(weight):
            raise ValueError(f"weight of {name} must be finite, got {weight}")

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one number (B,) of the totals (parts, B) and weights (parts,)."""
        raise NotImplementedError


class WeightedSum(Combination):
    """The sum of weight times reward; see `Combination` for arguments and terms.

    Example:
        >>> import rewards
        >>> both = WeightedSum({"valid": (2.0, rewards.Validity()), "dense": (0.1, rewards.Density(target=5.0))})
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> sorted(both([rock_salt]).terms)[:3]
        ['dense', 'dense/density', 'dense/success']
    """

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weighted sum (B,)."""
        return weights @ totals


class WeightedProduct(Combination):
    """The weighted geometric mean, the product of reward^(weight / sum of weights); rewards below 0 count as 0.

    For rewards between 0 and 1, such as sigmoids: it is 0 if one part is. See `Combination` for arguments and terms;
    weights must be positive.
    """

    def check_weight(self, name: str, weight: float) -> None:
        """Make sure that a weight is positive."""
        if not 0 < weight < np.inf:
            raise ValueError(f"weight of {name} must be positive, got {weight}")

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weighted geometric mean (B,)."""
        return np.prod(np.maximum(totals, 0.0) ** (weights / weights.sum())[:, None], axis=0)


class Minimum(Combination):
    """The smallest of weight times reward; see `Combination` for arguments and terms."""

    def combine(self, totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the smallest weighted total (B,)."""
        return (weights[:, None] * totals).min(0)


class Gate:
    """A reward that is asked only about crystals that pass a condition: the costly model only for what is worth it.

    The terms are those of the reward, and those of the condition as ``gate/term``. A crystal that does not pass gets
    ``floor``, success 0 and a reason.

    Args:
        condition: a reward whose success is asked for, such as `Validity`.
        reward: the reward of those that pass.
        floor: the total of the others, and of those that cannot be scored.

    Example:
        >>> import rewards
        >>> reward = Gate(rewards.Validity(), rewards.EnergyAboveHull())
    """

    def __init__(self, condition: Reward | str, reward: Reward | str, floor: float = -10.0) -> None:
        self.floor = float(floor)
        self.condition = Scorer(resolve_reward(condition), self.floor)
        self.scorer = Scorer(resolve_reward(reward), self.floor)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        asked = self.condition(crystals)
        passed = asked.success()
        result = self.scorer(crystals[passed])
        total, failures = np.full(len(crystals), self.floor), np.full(len(crystals), None, object)
        for row in np.flatnonzero(~passed):
            reason = asked.failures[row]
            failures[row] = "it does not pass the gate" + ("" if reason is None else f": {reason}")
        total[passed], failures[passed] = result.total, result.failures
        terms = {f"gate/{name}": values for name, values in asked.terms.items()}
        for name, values in result.terms.items():
            terms[name] = np.full(len(crystals), 0.0 if name == "success" else self.floor)
            terms[name][passed] = values
        success = np.zeros(len(crystals))
        success[passed] = result.success()
        return RewardResult(total, {**terms, "success": success}, failures)
