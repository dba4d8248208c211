"""Goals for a property: maximise it, minimise it, or reach a target."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number
from crystal_env.errors import InputError

Kind = Literal["maximise", "minimise", "mse", "mae", "success"]


@dataclass(frozen=True)
class Goal:
    """Turns values of a property into rewards.

    ``"maximise"`` is the value v itself, ``"minimise"`` is -v, ``"mse"`` is -(v - target)^2, ``"mae"`` is
    -|v - target|, and ``"success"`` is 1 within ``tolerance`` of the target, else 0.

    Args:
        kind: one of these.
        target: the target value; for the first two it is optional, the threshold of success.
        tolerance: distance from the target that counts as success.

    Raises:
        ValueError: if ``kind`` is unknown, ``target`` is missing or not finite, or ``tolerance`` is negative or not
            finite.
    """

    kind: Kind = "maximise"
    target: float | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"goal must be one of {get_args(Kind)}, got {self.kind!r}")
        if self.target is None and self.kind not in ("maximise", "minimise"):
            raise InputError(f"target must be given with goal {self.kind!r}")
        if self.target is not None:
            finite_number("target", self.target)
        finite_number("tolerance", self.tolerance, least=0)

    def reward(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rewards (B,) of values (B,)."""
        if self.kind == "success":
            return self.reached(values).astype(np.float64)
        if self.kind in ("maximise", "minimise"):
            return values if self.kind == "maximise" else -values
        away = np.abs(values - float(self.target or 0.0))
        return -(away**2 if self.kind == "mse" else away)

    def reached(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which values (B,) reach the goal; without a target all finite ones."""
        if self.target is None:
            return np.isfinite(values)
        if self.kind == "maximise":
            return values >= self.target - self.tolerance
        if self.kind == "minimise":
            return values <= self.target + self.tolerance
        return np.abs(values - self.target) <= self.tolerance
