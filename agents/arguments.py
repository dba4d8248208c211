"""Checks of arguments: a value that is not allowed is refused under its own name."""

from collections.abc import Callable
from typing import Any

import numpy as np

from crystal_env.errors import InputError


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise a ValueError unless a value is an integer of at least ``least``; True and False are none."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_number(name: str, value: Any, allowed: str, is_allowed: Callable[[float], bool] = lambda x: True) -> None:
    """Raise a ValueError that says what is ``allowed`` unless a value is a finite number that is."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not np.isfinite(value) or not is_allowed(float(value)):
        raise InputError(f"{name} must be {allowed}, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raise a ValueError unless a value is a finite number above 0."""
    check_number(name, value, "a finite number above 0", lambda x: x > 0)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless a value is one of some words."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be in {choices}, got {value!r}")
