"""Arrays that are no crystal of the grammar are refused, and the message names the array."""

import numpy as np
import pytest

from crystal_env.checks import as_numbers, check_crystal
from crystal_env.crystal import Crystal

VALID = {"G": 225, "W": [1, 2], "A": [11, 17], "XYZ": [[0, 0, 0], [0.5, 0.5, 0.5]], "L": [5.64] * 3 + [90] * 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"G": 0}, "space group G must be an integer from 1 to 230, got 0"),
        ({"G": 231}, "space group G"),
        ({"G": True}, "space group G"),
        ({"G": 225.0}, "space group G"),
        ({"W": [], "A": [], "XYZ": np.zeros((0, 3))}, "1 to 20 sites"),
        ({"G": 1, "W": [1] * 21, "A": [1] * 21, "XYZ": np.zeros((21, 3))}, "1 to 20 sites"),
        ({"W": [2, 1], "XYZ": [[0.5, 0.5, 0.5], [0, 0, 0]]}, "letters must not decrease"),
        ({"W": [1, 1]}, "nor repeat where they leave no freedom"),
        ({"W": [1, 13]}, "letters of group 225 have indices 1 to 12"),
        ({"W": [0, 1]}, "indices 1 to 12"),
        ({"A": [11, 119]}, "atomic numbers A must be 1 to 118"),
        ({"A": [0, 17]}, "atomic numbers A"),
        ({"A": [11]}, r"A must have shape \(2,\)"),
        ({"XYZ": [[0, 0, 0], [0.5, 0.5, 1.0]]}, r"coordinates XYZ must lie in \[0, 1\)"),
        ({"XYZ": [[0, 0, 0], [0.5, 0.5, np.nan]]}, "coordinates XYZ"),
        ({"XYZ": [[0, 0, 0], [0.5, 0.5, 0.4]]}, "site 1 .* does not lie on the first operation of letter 'b'"),
        ({"L": [5.64, 5.64, 5.7, 90, 90, 90]}, "lattice L of group 225 must be of the form"),
        ({"L": [5.64, 5.64, 5.64, 90, 90, 91]}, "lattice L of group 225"),
        ({"L": [-1, 5, 5, 90, 90, 90]}, "positive lengths"),
        ({"L": [np.inf, 5, 5, 90, 90, 90]}, "positive lengths"),
        ({"G": 1, "W": [1, 1], "L": [5, 5, 5, 120, 120, 125]}, "no cell has the angles"),
    ],
)
def test_a_crystal_outside_the_grammar_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Crystal(**{**VALID, **change})


def test_numbers_that_must_be_whole_are_not_cut_off():
    with pytest.raises(ValueError, match="W must hold whole numbers"):
        Crystal(225, [1.9], [11], [[0, 0, 0]], [5, 5, 5, 90, 90, 90])
    with pytest.raises(ValueError, match="XYZ must be an array of numbers"):
        Crystal(225, [1], [11], [["x", 0, 0]], [5, 5, 5, 90, 90, 90])


def test_real_crystals_pass_and_their_shuffled_letters_do_not(mp20):
    for crystal in mp20:
        check_crystal(*crystal.arrays)
        G, W, *others = crystal.arrays
        if len(set(W.tolist())) > 1:
            with pytest.raises(ValueError, match="letters must not decrease"):
                check_crystal(G, W[::-1], *others)


def test_numbers_are_copied_into_the_dtype():
    given = np.array([1.0, 2.0])
    numbers = as_numbers("W", given, np.int64)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [1, 2]
    same = as_numbers("L", given, np.float64)
    same[0] = 7
    assert given[0] == 1.0
