import numpy as np
import pytest
from ase.data import chemical_symbols
from pymatgen.core import Element

from crystal_env.elements import ATOMIC_NUMBER, RADIOACTIVE, SYMBOLS, atomic_number, atomic_numbers


def test_symbols_are_those_of_ase():
    assert list(SYMBOLS) == chemical_symbols[:119]
    assert len(ATOMIC_NUMBER) == 118


def test_radioactive_elements_are_those_of_pymatgen():
    assert {z for z in range(1, 119) if Element(SYMBOLS[z]).is_radioactive} == RADIOACTIVE


@pytest.mark.parametrize(("element", "number"), [("H", 1), ("Og", 118), (26, 26), (np.int64(8), 8)])
def test_atomic_number_reads_symbols_and_numbers(element, number):
    assert atomic_number(element) == number


@pytest.mark.parametrize("element", ["Xx", "X", "na", "", "26", 0, 119, -1, 1.5, True, float("nan"), None, [1]])
def test_atomic_number_rejects_what_is_no_element(element):
    with pytest.raises(ValueError, match="element must be a chemical symbol or an atomic number"):
        atomic_number(element)


def test_atomic_numbers_are_sorted_and_unique():
    assert atomic_numbers(["O", "Ti", 8, "Sr"]) == (8, 22, 38)


def test_atomic_numbers_refuse_a_bare_string():
    with pytest.raises(ValueError, match="got the string 'SrTiO'"):
        atomic_numbers("SrTiO")
