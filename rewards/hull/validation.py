"""Validation of a potential and its hull against known energies above the hull."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError


class HullCheck(NamedTuple):
    """Agreement of energies above the hull with labels; ``stable`` means at most the threshold.

    Attributes:
        n: number of crystals with a label and an energy.
        mean_error: mean absolute error in eV/atom.
        median_error: median absolute error in eV/atom.
        bias: mean of energy minus label in eV/atom.
        agreement: fraction of crystals that are stable in both or in neither.
        false_stable: number of crystals that are stable only by the energies.
        false_unstable: number of crystals that are stable only by the labels.
    """

    n: int
    mean_error: float
    median_error: float
    bias: float
    agreement: float
    false_stable: int
    false_unstable: int


def compare(e_above_hull: NDArray[np.float64], labels: NDArray[np.float64], threshold: float = 0.1) -> HullCheck:
    """Compare energies above the hull (B,) with labels (B,), both in eV/atom; rows with a NaN are left out.

    Raises:
        ValueError: if the shapes differ, or no row has both numbers.
    """
    if e_above_hull.shape != labels.shape:
        raise InputError(f"labels must have shape {e_above_hull.shape}, got {labels.shape}")
    both = np.isfinite(e_above_hull) & np.isfinite(labels)
    if not both.any():
        raise InputError("there is no crystal with both a label and an energy")
    values, labels = e_above_hull[both], labels[both]
    error, stable, labelled = values - labels, values <= threshold, labels <= threshold
    return HullCheck(
        n=int(both.sum()),
        mean_error=float(np.abs(error).mean()),
        median_error=float(np.median(np.abs(error))),
        bias=float(error.mean()),
        agreement=float((stable == labelled).mean()),
        false_stable=int((stable & ~labelled).sum()),
        false_unstable=int((~stable & labelled).sum()),
    )
