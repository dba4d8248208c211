"""A property and S.U.N. in one reward between 0 and 1, which the preset ``best`` learns a property target from."""

from typing import Any

from rewards import SUN, Affine, BandGap, Clip, DielectricFoM, Sigmoid, WeightedProduct


class SUNDielectric(WeightedProduct):
    """The geometric mean of S.U.N. and the figure of merit over 100 eV, at most 1; see `WeightedProduct` for the terms.

    Args:
        sun: arguments of `rewards.SUN`.
        models: arguments of `rewards.DielectricFoM`.
    """

    def __init__(self, sun: dict[str, Any] | None = None, **models: Any) -> None:
        fom = Clip(Affine(DielectricFoM(**models), 0.01, floor=0.0), 0.0, 1.0)
        super().__init__({"fom": fom, "sun": SUN(**sun or {})}, floor=0.0)


class SUNBandGap(WeightedProduct):
    """The geometric mean of S.U.N. and a smooth step of the band gap, ½ at ``gap``; see `WeightedProduct`.

    Args:
        gap: the band gap in eV that is asked for; the step rises from 0.05 to 0.95 within 1 eV around it.
        sun: arguments of `rewards.SUN`.
        model: arguments of `rewards.BandGap`.
    """

    def __init__(self, gap: float = 3.0, sun: dict[str, Any] | None = None, **model: Any) -> None:
        wide = Sigmoid(BandGap(**model), low=gap - 0.5, high=gap + 0.5, of="band_gap")
        super().__init__({"gap": wide, "sun": SUN(**sun or {})}, floor=0.0)
