"""A dielectric that is stable too: the figure of merit and the energy above the hull as one reward."""

from typing import Any

from rewards import Affine, DielectricFoM, Diversity, EnergyAboveHull, Sigmoid, WeightedProduct


class StableDielectric(WeightedProduct):
    """The geometric mean of the figure of merit over 100 eV and a sigmoid of the energy above the hull.

    The sigmoid falls from 0.95 at the hull to 0.05 at 0.4 eV/atom. Energies more than 0.2 eV/atom below the hull are
    not accepted. See `WeightedProduct` for the terms.

    Args:
        models: arguments of `DielectricFoM`.
    """

    def __init__(self, **models: Any) -> None:
        stability = Sigmoid(EnergyAboveHull(max_depth=0.2), low=0.4, high=0.0, of="e_above_hull")
        super().__init__({"fom": Affine(DielectricFoM(**models), 0.01, floor=0.0), "stability": stability}, floor=0.0)


class DiverseDielectric(Diversity):
    """The same, falling to 0 for formulas that have come up more than ``free`` times.

    Args:
        free: crystals of a formula that are rewarded in full.
        full: number of crystals of a formula beyond which the reward is 0.
        models: arguments of `DielectricFoM`.
    """

    def __init__(self, free: int = 50, full: int = 200, **models: Any) -> None:
        super().__init__(StableDielectric(**models), "formula", free=free, full=full)
