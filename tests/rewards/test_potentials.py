import pytest

from rewards.chgnet import CHGNetPotential
from rewards.potentials import load_potential


def test_a_potential_is_found_by_its_name():
    assert load_potential("chgnet") == CHGNetPotential()
    assert load_potential("chgnet").name == "chgnet-0.3.0"


def test_an_object_with_name_and_energies_is_a_potential(pair_potential):
    assert load_potential(pair_potential) is pair_potential


@pytest.mark.parametrize("wrong", ["chgnt", None, 3])
def test_anything_else_is_a_value_error_that_names_what_is_allowed(wrong):
    with pytest.raises(ValueError, match=rf"'chgnet'.*got {wrong!r}"):
        load_potential(wrong)
