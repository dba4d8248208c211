"""Checks of arguments: a value that is not allowed is refused under its own name."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crystal_env.errors import InputError


def finite_number(
    name: str,
    value: Any,
    *,
    above: float = -np.inf,
    least: float = -np.inf,
    below: float = np.inf,
    most: float = np.inf,
) -> float:
    """Return an argument that must be a finite number.

    Args:
        name: name of the argument.
        value: the value given.
        above: number that it must exceed.
        least: lowest number allowed.
        below: number that it must not reach.
        most: highest number allowed.

    Raises:
        InputError: if it is anything else; the message names the argument, the value and what is allowed.
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (is_number and np.isfinite(value) and above < value < below and least <= value <= most):
        raise InputError(f"{name} must be a finite number{_limits(above, least, below, most)}, got {value!r}")
    return float(value)


def integer(name: str, value: Any, least: int) -> int:
    """Return an argument that must be an integer of at least ``least``; True and False are none.

    Raises:
        InputError: if it is anything else; the message names the argument, the value and what is allowed.
    """
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (is_integer and value >= least):
        raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return an argument that must be one of some words.

    Raises:
        InputError: if it is anything else; the message names the argument, the value and what is allowed.
    """
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} must be in {tuple(allowed)}, got {value!r}")
    return value


def _limits(above: float, least: float, below: float, most: float) -> str:
    limits = [f"above {above:g}"] * (above > -np.inf) + [f"of at least {least:g}"] * (least > -np.inf)
    limits += [f"below {below:g}"] * (below < np.inf) + [f"at most {most:g}"] * (most < np.inf)
    return " " + " and ".join(limits) if limits else ""
