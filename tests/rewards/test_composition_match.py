"""Compositions against pymatgen's, and stoichiometries against all assignments of elements."""

from itertools import permutations

import numpy as np
import pytest
from pymatgen.core import Composition

from rewards.composition_match import CompositionMatch


def fractions(formula):
    return {str(element): x for element, x in Composition(formula).fractional_composition.items()}


def distance(one, other):
    return sum(abs(one.get(key, 0) - other.get(key, 0)) for key in {*one, *other})


@pytest.mark.parametrize("formula", ["SrTiO3", "TiO2", "Fe", "NaCl2", "H10La", "Sr2Ti2O6", "Xe"])
def test_overlap_is_one_minus_half_the_distance_of_fractions(formula, crystals):
    result = CompositionMatch(formula)(crystals)
    expected = [1 - distance(fractions(crystal.formula), fractions(formula)) / 2 for crystal in crystals]
    np.testing.assert_allclose(result.total, expected, atol=1e-12)
    reduced = Composition(formula).reduced_formula
    assert result.success().tolist() == [crystal.formula == reduced for crystal in crystals]


@pytest.mark.parametrize("stoichiometry", ["ABC3", "AB", "C3BA", "A2B", "AB10", "A", "ABCD"])
def test_stoichiometry_is_the_best_assignment_of_elements_to_letters(stoichiometry, crystals):
    result = CompositionMatch(stoichiometry=stoichiometry)(crystals)
    parts = [part for part in stoichiometry.replace("A", " A").replace("B", " B").replace("C", " C").split(" ") if part]
    wanted = [float(part[1:] or 1) for part in " ".join(parts).replace("D", " D").split()]
    for row, crystal in enumerate(crystals):
        given = list(fractions(crystal.formula).values())
        n = max(len(given), len(wanted))
        target = np.array([*wanted, *[0] * (n - len(wanted))]) / sum(wanted)
        best = max(1 - np.abs(np.array(p) - target).sum() / 2 for p in permutations([*given, *[0] * (n - len(given))]))
        assert result.total[row] == pytest.approx(best)
        assert result.success()[row] == (abs(best - 1) < 1e-12)
    assert result.success().any() == (stoichiometry not in ("A2B", "ABCD"))


def test_elements_are_compared_as_sets(crystals):
    wanted = {"Ti", "O", "Zn"}
    result = CompositionMatch(elements=wanted)(crystals)
    sets = [set(fractions(crystal.formula)) for crystal in crystals]
    np.testing.assert_allclose(result.total, [len(s & wanted) / len(s | wanted) for s in sets])
    assert not result.success().any()
    assert CompositionMatch(elements=["O", 30])(crystals).success().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of .* must be given, got \\[\\]"),
        ({"formula": "NaCl", "elements": ["Na"]}, "exactly one of .* got \\['formula', 'elements'\\]"),
        ({"formula": "NaQ"}, "unknown element 'Q'"),
        ({"formula": ""}, "formula must be like"),
        ({"formula": "Na0"}, "formula must have atoms, got 'Na0'"),
        ({"stoichiometry": "ABA"}, "stoichiometry must be like 'ABC3', every letter once, got 'ABA'"),
        ({"stoichiometry": "Na"}, "stoichiometry must be like"),
        ({"stoichiometry": ""}, "stoichiometry must have atoms"),
        ({"elements": "Na"}, "elements must be a list"),
        ({"elements": ["Qq"]}, "element must be a chemical symbol"),
        ({"elements": []}, "elements must have atoms"),
    ],
)
def test_wrong_arguments_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        CompositionMatch(**arguments)
