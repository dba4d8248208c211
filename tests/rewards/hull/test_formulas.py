import numpy as np
import pytest
from pymatgen.core import Composition

from rewards.hull.formulas import as_compositions, parse_formula, reduced_formula


@pytest.mark.parametrize("formula", ["NaN", "SrTiO3", "Na2Cl2", "C60", "UO2", "H10La", "NiO", "Fe3Mn2Si3O12"])
def test_formula_is_parsed_as_by_pymatgen_and_reduced(formula):
    counts = parse_formula(formula)
    expected = Composition(formula)
    assert {z: int(counts[z]) for z in np.flatnonzero(counts)} == {e.Z: int(n) for e, n in expected.items()}
    assert Composition(reduced_formula(counts)) == Composition(expected.reduced_formula)


@pytest.mark.parametrize("formula", ["", "na", "Xx2", "Na(OH)2", "Na0.5Cl", "Na Cl", "X"])
def test_text_that_is_no_formula_is_a_value_error(formula):
    with pytest.raises(ValueError, match="formula"):
        parse_formula(formula)


def test_compositions_dicts_formulas_and_arrays_are_the_same():
    mixed = as_compositions(["NaCl", Composition("Na0.5Cl0.5"), Composition("D2O"), {"Na": 1, "Cl": 2.0}])
    assert mixed.shape == (4, 119)
    assert mixed[3, [11, 17]].tolist() == [1, 2]
    assert mixed[0, [11, 17]].tolist() == [1, 1]
    assert mixed[1, [11, 17]].tolist() == [0.5, 0.5]
    assert mixed[2, [1, 8]].tolist() == [2, 1]
    np.testing.assert_array_equal(as_compositions((2 * mixed).astype(int)), 2 * mixed)
    assert as_compositions([]).shape == (0, 119)


def test_wrong_shape_and_empty_composition_are_value_errors():
    with pytest.raises(ValueError, match=r"shape \(B, 119\), got \(2, 5\)"):
        as_compositions(np.ones((2, 5)))
    with pytest.raises(ValueError, match="composition 1 has no atoms"):
        as_compositions(np.eye(119)[[1]].repeat(2, 0) * [[1], [0]])
