"""Transforms of a reward or of one of its terms: clip, affine, sigmoids, target."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward, reward_floor
from rewards.combinators.aggregate import finite_or_floor, unused_label
from rewards.goal import Goal, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

_MAX_EXPONENT = 300.0  # of ten, beyond which a double overflows
_STEEPNESS = 2.5  # REINVENT's usual 10 k with k = 0.25


class Transform:
    """A function of the total of a reward, or of one of its terms.

    The terms are those of the reward, with ``value``, the number that was transformed; where transforms are nested,
    ``value`` belongs to the innermost, ``value2`` to the next. A crystal that the reward could not score gets
    ``floor``, not a transformed number. Success is the reward's.

    Args:
        reward: any reward.
        of: name of the term to be transformed, by default the total.
        floor: the total of a crystal that cannot be scored.

    Raises:
        ValueError: if ``reward`` is not a reward or ``floor`` is not finite.
    """

    def __init__(self, reward: Reward | str, of: str | None = None, floor: float = 0.0) -> None:
        self.of, self._floor = of, finite_number("floor", floor)
        self.scorer = Scorer(resolve_reward(reward), self._floor)

    @property
    def floor(self) -> float:
        """The lowest total."""
        return self._floor

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms.

        Raises:
            ValueError: if the reward has no term ``of``.
        """
        result = self.scorer(as_batch(crystals))
        scored = result.scored
        if self.of is not None and self.of not in result.terms and scored.any():
            raise InputError(f"of must be one of the terms {sorted(result.terms)}, got {self.of!r}")
        missing = np.full(len(scored), self._floor)
        values = result.total if self.of is None else result.terms.get(self.of, missing)
        with np.errstate(all="ignore"):
            total = np.where(scored, self.transform(values), self._floor)
        terms = {**result.terms, unused_label("value", result.terms): values, **self.new_success(values, scored)}
        return finite_or_floor(RewardResult(total, terms, result.failures), self._floor)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the transformed values (B,)."""
        raise NotImplementedError

    def new_success(self, values: NDArray[np.float64], scored: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
        """Return the term ``success`` if the transform defines one."""
        return {}


class Clip(Transform):
    """The value within bounds.

    Args:
        reward: any reward.
        low: lowest value, also that of a crystal that cannot be scored.
        high: highest value.
        of: name of a term, by default the total.

    Raises:
        ValueError: if ``low`` is not below ``high``, or one is not finite.
    """

    def __init__(self, reward: Reward | str, low: float, high: float, of: str | None = None) -> None:
        self.low = finite_number("low", low)
        self.high = finite_number("high", high, above=self.low)
        super().__init__(reward, of, self.low)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values (B,) within the bounds."""
        return np.clip(values, self.low, self.high)


class Affine(Transform):
    """``scale * value + shift``.

    Args:
        reward: any reward.
        scale: factor, not zero.
        shift: what is added.
        of: name of a term, by default the total.
        floor: the total of a crystal that cannot be scored; choose it below all others.

    Attributes:
        floor: the lowest total: the argument, or the image of the reward's own floor where it is lower. It is not known
            for a term or a negative scale.

    Raises:
        ValueError: if ``scale`` is zero, or a number is not finite.
    """

    def __init__(
        self,
        reward: Reward | str,
        scale: float = 1.0,
        shift: float = 0.0,
        of: str | None = None,
        floor: float = -10.0,
    ) -> None:
        if scale == 0:
            raise InputError(f"scale must not be zero, got {scale!r}")
        self.scale, self.shift = finite_number("scale", scale), finite_number("shift", shift)
        super().__init__(reward, of, floor)

    @property
    def floor(self) -> float:
        """The lowest total; see the class."""
        stated = reward_floor(self.scorer.reward)
        if stated is None or self.of is not None or self.scale < 0:
            return self._floor
        return min(self._floor, self.scale * stated + self.shift)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scaled and shifted values (B,)."""
        return self.scale * values + self.shift


class Sigmoid(Transform):
    """A smooth step from 0 to 1, ``1 / (1 + 10^(-2.5 z))`` with z from -½ at ``low`` to ½ at ``high``.

    It is 0.05 at ``low`` and 0.95 at ``high``, as the score transform of REINVENT with its k = 0.25 (Blaschke et al.,
    J. Chem. Inf. Model. 60, 5918 (2020)). With ``low`` above ``high`` it falls. A crystal that cannot be scored gets 0.

    Args:
        reward: any reward.
        low: value at which it is 0.05.
        high: value at which it is 0.95.
        of: name of a term, by default the total.

    Raises:
        ValueError: if the two are equal or not finite.
    """

    def __init__(self, reward: Reward | str, low: float, high: float, of: str | None = None) -> None:
        self.low, self.high = finite_number("low", low), finite_number("high", high)
        if self.low == self.high:
            raise InputError(f"low and high must be different numbers, got {low!r} and {high!r}")
        super().__init__(reward, of, 0.0)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return steps (B,) between 0 and 1."""
        return _step(_STEEPNESS * (values - (self.low + self.high) / 2) / (self.high - self.low))


class DoubleSigmoid(Transform):
    """A window: about 1 between ``low`` and ``high``, ½ at both, 0 outside; a crystal that cannot be scored gets 0.

    It is the difference of two steps ``1 / (1 + 10^-z)``, z in units of ``width`` from ``low`` and from ``high``, as
    the score transform of REINVENT with ``width`` for its coef_div / coef_si = coef_div / coef_se.

    Args:
        reward: any reward.
        low: lower edge of the window.
        high: upper edge of the window.
        width: distance from an edge at which the step is 0.09 or 0.91; by default a tenth of the window.
        of: name of a term, by default the total.

    Raises:
        ValueError: if ``low`` is not below ``high``, ``width`` is not positive, or one is not finite.
    """

    def __init__(
        self, reward: Reward | str, low: float, high: float, width: float | None = None, of: str | None = None
    ) -> None:
        self.low = finite_number("low", low)
        self.high = finite_number("high", high, above=self.low)
        self.width = finite_number("width", (self.high - self.low) / 10 if width is None else width, above=0)
        super().__init__(reward, of, 0.0)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the window (B,) at values."""
        return _step((values - self.low) / self.width) - _step((values - self.high) / self.width)


class Target(Transform):
    """Closeness of a value to a target, with success within a tolerance.

    Args:
        reward: any reward.
        target: the target value.
        loss: ``"mse"``, -(v - target)^2; ``"mae"``, -|v - target|; ``"success"``, 1 within ``tolerance``, else 0.
        tolerance: distance that counts as success.
        of: name of a term, by default the total.
        floor: the lowest total, also that of a crystal that cannot be scored.

    Raises:
        ValueError: if ``loss`` is another, or as `Goal` does.
    """

    def __init__(
        self,
        reward: Reward | str,
        target: float,
        loss: Kind = "mae",
        tolerance: float = 0.0,
        of: str | None = None,
        floor: float = -10.0,
    ) -> None:
        if loss not in _LOSSES:
            raise InputError(f"loss must be one of {_LOSSES}, got {loss!r}")
        super().__init__(reward, of, floor)
        self.goal = Goal(loss, target, tolerance)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rewards (B,) of values."""
        return np.maximum(self.goal.reward(values), self._floor)

    def new_success(self, values: NDArray[np.float64], scored: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
        """Return success within the tolerance."""
        return {"success": (scored & self.goal.reached(values)).astype(np.float64)}


_LOSSES = ("mse", "mae", "success")


def _step(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + 10^-z)."""
    return 1 / (1 + 10.0 ** np.clip(-z, -_MAX_EXPONENT, _MAX_EXPONENT))
