"""A property predicted by any model, and the band gap."""

from pathlib import Path

import numpy as np

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult, without_failure
from rewards.distinct import once_per_crystal
from rewards.goal import Goal, Kind
from rewards.predict import Model, as_model, predict
from rewards.screen import Screen

BAND_GAP_MODEL = "MEGNet-BandGap-mfi-MP-2019.4.1"
"""The multi-fidelity band gap model of matgl on Hugging Face (Chen et al., Nat. Comput. Sci. 1, 46 (2021))."""


class Property:
    """A property that a model predicts for the primitive cell as it is.

    The total is the value's reward by `Goal`, or ``floor`` where that is higher. Terms are the value, called ``name``,
    and ``success``. A crystal that fails the screen or breaks the model gets the total ``floor``, the value 0 and a
    reason.

    Args:
        model: folder or name of a property model of matgl, or a callable from a list of ASE atoms to values (B,).
        goal: ``"maximise"``, ``"minimise"``, or for a ``target`` the loss ``"mse"``, ``"mae"`` or ``"success"``.
        target: the target value.
        tolerance: distance from the target that counts as success.
        name: name of the value among the terms.
        floor: the lowest total, also that of a crystal that cannot be scored.
        screen: limits that a crystal must meet before the model runs.

    Raises:
        ValueError: if ``model`` is not a model, ``floor`` is not finite, or as `Goal` does.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> size = Property(lambda atoms: [len(a) for a in atoms], "mae", target=4, name="atoms")
        >>> size([Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")]).total
        array([-2.])
    """

    def __init__(
        self,
        model: "str | Path | Model",
        goal: Kind = "maximise",
        target: float | None = None,
        tolerance: float = 0.0,
        name: str = "property",
        floor: float = -10.0,
        screen: Screen | None = None,
    ) -> None:
        self.model = as_model(model)
        self.goal = Goal(goal, target, tolerance)
        self.name = name
        self.floor = finite_number("floor", floor)
        self.screen = screen or Screen()

    @once_per_crystal
    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        """Score B crystals; see the class for the terms."""
        values, failures = predict(self.model, crystals, self.screen)
        if values.shape[1] > 1:
            raise InputError(f"the model gives {values.shape[1]} numbers a crystal, a property is one")
        scored, value = self._scored(values[:, 0]), np.zeros(len(values))
        rows = without_failure(failures)
        value[rows] = scored[rows]
        total, success = np.full(len(values), self.floor), np.zeros(len(values))
        total[rows] = np.maximum(self.goal.reward(value[rows]), self.floor)
        success[rows] = self.goal.reached(value[rows])
        return RewardResult(total, {self.name: value, "success": success}, failures)

    def _scored(self, values: np.ndarray) -> np.ndarray:
        """Return the values that are scored."""
        return values


class BandGap(Property):
    """The band gap in eV by a multi-fidelity MEGNet, or by any other model; negative predictions count as 0.

    Terms are ``band_gap`` and ``success``. The model is poor for some simple dense compounds: it gives MgO 0.3 eV.

    Args:
        model: folder or name of a matgl model, or a callable from a list of ASE atoms to gaps (B,) in eV.
        goal, target, tolerance, floor, screen: as for `Property`.
        state: the fidelity: 0 PBE, 1 GLLB-SC, 2 HSE, 3 SCAN.

    Raises:
        ValueError: as `Property` does.
    """

    def __init__(
        self,
        model: "str | Path | Model" = BAND_GAP_MODEL,
        goal: Kind = "maximise",
        target: float | None = None,
        tolerance: float = 0.0,
        floor: float = -10.0,
        screen: Screen | None = None,
        state: int = 0,
    ) -> None:
        model = as_model(model, state=state) if isinstance(model, str | Path) else model
        super().__init__(model, goal, target, tolerance, "band_gap", floor, screen)

    def _scored(self, values: np.ndarray) -> np.ndarray:
        return np.maximum(values, 0.0)
