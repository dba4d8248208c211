"""Arguments are returned as what they are, or refused under their own name."""

import numpy as np
import pytest

from crystal_env.arguments import choice, finite_number, integer
from crystal_env.errors import InputError


def test_limits_are_those_of_the_message():
    assert finite_number("x", 2, above=1, most=2) == 2.0
    assert isinstance(finite_number("x", np.float32(2)), float)
    assert integer("n", np.int64(3), least=3) == 3
    with pytest.raises(InputError, match=r"^x must be a finite number above 1 and at most 2, got 2.5$"):
        finite_number("x", 2.5, above=1, most=2)
    for wrong in ("2", None, True):
        with pytest.raises(InputError, match=rf"^x must be a finite number, got {wrong!r}$"):
            finite_number("x", wrong)
        with pytest.raises(InputError, match=rf"^n must be an integer of at least 1, got {wrong!r}$"):
            integer("n", wrong, least=1)


def test_bounds_are_open_or_closed_as_they_say():
    assert finite_number("x", 0, least=0, below=1) == 0.0
    for value in (1, -1e-9):
        with pytest.raises(InputError, match=r"^x must be a finite number of at least 0 and below 1, got"):
            finite_number("x", value, least=0, below=1)


def test_a_choice_is_one_of_the_words():
    assert choice("word", "a", ("a", "b")) == "a"
    for wrong in ("c", 1, None, ["a"]):
        with pytest.raises(InputError, match=r"^word must be in \('a', 'b'\), got"):
            choice("word", wrong, ("a", "b"))
