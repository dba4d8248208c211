"""Impossible sizes of the network are refused by name."""

import pytest
from small_networks import TINY

from agents import CrystalFormerConfig


@pytest.mark.parametrize("name", [name for name in TINY.to_dict() if "dropout" not in name])
@pytest.mark.parametrize("value", [-1, 2.0, "4", True, None])
def test_sizes_are_integers(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be an integer of at least [01], got {value!r}"):
        CrystalFormerConfig(**{name: value})


@pytest.mark.parametrize("name", [name for name in TINY.to_dict() if "dropout" not in name])
def test_only_the_first_letters_network_may_be_empty(name):
    if name == "first_letter_size":
        CrystalFormerConfig(**{name: 0})
    else:
        with pytest.raises(ValueError, match=f"^{name} must"):
            CrystalFormerConfig(**{name: 0})


@pytest.mark.parametrize("name", ["dropout", "attention_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1, float("nan"), "0.1", False])
def test_dropout_is_a_rate_below_one(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be a number in \[0, 1\), got {value!r}"):
        CrystalFormerConfig(**{name: value})


def test_heads_have_an_even_width():
    with pytest.raises(ValueError, match="key_size must be even"):
        CrystalFormerConfig(key_size=7)
