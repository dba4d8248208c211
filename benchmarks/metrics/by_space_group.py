"""Rates for each space group, and over all of them with given weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.intervals import rate
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import mp20_group_counts
from crystal_env.wyckoff import N_GROUPS


def space_group_weights(weights: "str | Mapping[int, float] | NDArray[np.float64]") -> NDArray[np.float64]:
    """Return weights (231,) of the space groups, that of 0 being 0.

    Args:
        weights: space group -> weight, weights (230,), or ``"mp20"`` for the frequencies in MP-20.

    Raises:
        ValueError: if they are none of these, or negative, or all 0.
    """
    result = np.zeros(N_GROUPS + 1)
    if isinstance(weights, str):
        if weights != "mp20":
            raise InputError(f"weights must be 'mp20', a mapping or 230 numbers, got {weights!r}")
        result[1:] = mp20_group_counts()
    elif isinstance(weights, Mapping):
        if wrong := [group for group in weights if group not in range(1, N_GROUPS + 1)]:
            raise InputError(f"weights must be of space groups 1 to {N_GROUPS}, got {wrong}")
        for group, weight in weights.items():
            result[group] = weight
    else:
        numbers = np.asarray(weights, np.float64)
        if numbers.shape != (N_GROUPS,):
            raise InputError(f"weights must be {N_GROUPS} numbers, got shape {numbers.shape}")
        result[1:] = numbers
    if not np.isfinite(result).all() or result.min() < 0 or not result.sum() > 0:
        raise InputError("weights must be finite, none of them negative and one of them positive")
    return result


def rates_by_space_group(
    space_groups: NDArray[np.int64], flags: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, Any]]:
    """Return for each space group the number of its attempts, and the rate of each flag among them.

    Args:
        space_groups: (N,) space groups of the attempts; those without one, 0, are left out.
        flags: name -> (N,) which attempts have it.
    """
    numbers = {}
    for group in np.unique(space_groups[space_groups > 0]).tolist():
        here = space_groups == group
        total = int(here.sum())
        rates = {name: rate(values[here].sum(), total) for name, values in flags.items()}
        numbers[str(group)] = {"attempts": total, **rates}
    return numbers


def weighted_rates(numbers: Mapping[str, Any], weights: NDArray[np.float64]) -> dict[str, Any]:
    """Return rates over all space groups, each with its weight (231,) whatever its attempts.

    Intervals combine Wilson's of the groups by the method of variance estimates recovery (Zou and Donner, Stat. Med.
    27, 1693 (2008)). Groups without an attempt are left out; ``weight_without_attempts`` is their weight.
    """
    present = [group for group in numbers if weights[int(group)] > 0]
    total = sum(weights[int(group)] for group in present)
    result: dict[str, Any] = {"weight_without_attempts": float(1 - total / weights.sum())}
    if not present:
        return result
    w = np.array([weights[int(group)] for group in present]) / total
    for name in numbers[present[0]]:
        if name == "attempts":
            continue
        p = np.array([numbers[group][name]["rate"] for group in present])
        low, high = np.array([numbers[group][name]["interval"] for group in present]).T
        value = float(w @ p)
        down, up = float(np.sqrt(w**2 @ (p - low) ** 2)), float(np.sqrt(w**2 @ (high - p) ** 2))
        result[name] = {"rate": value, "interval": [max(value - down, 0.0), min(value + up, 1.0)]}
    return result
