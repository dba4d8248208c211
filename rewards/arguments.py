"""Checks of the numbers that rewards are made with."""

from typing import Any

import numpy as np

from crystal_env.errors import InputError


def finite_number(
    name: str, value: Any, *, above: float = -np.inf, least: float = -np.inf, most: float = np.inf
) -> float:
    """Return an argument that must be a finite number.

    Args:
        name: name of the argument.
        value: the value given.
        above: number that it must exceed.
        least: lowest number allowed.
        most: highest number allowed.

    Raises:
        InputError: if it is anything else; the message names the argument, the value and what is allowed.
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (is_number and np.isfinite(value) and above < value and least <= value <= most):
        raise InputError(f"{name} must be a finite number{_limits(above, least, most)}, got {value!r}")
    return float(value)


def whole_number(name: str, value: Any, least: int) -> int:
    """Return an argument that must be a whole number from ``least`` on.

    Raises:
        InputError: if it is anything else; the message names the argument, the value and what is allowed.
    """
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (is_whole and value >= least):
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def _limits(above: float, least: float, most: float) -> str:
    limits = [f"above {above:g}"] * (above > -np.inf) + [f"at least {least:g}"] * (least > -np.inf)
    limits += [f"at most {most:g}"] * (most < np.inf)
    return " " + " and ".join(limits) if limits else ""
