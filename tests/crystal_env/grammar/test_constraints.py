"""Constraints become one normal form, and what cannot be one is refused by name, at construction and at reset."""

import gymnasium as gym
import numpy as np
import pytest
from pymatgen.core import Composition

from crystal_env.elements import RADIOACTIVE
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import constraints, mp20_group_counts

SPACE_GROUPS = [
    (0, "space_group must be an integer from 1 to 230, got 0"),
    (231, "got 231"),
    (True, "got True"),
    (np.True_, "got True"),
    (2.0, "got 2.0"),
    (float("nan"), "got nan"),
    (None, "got None"),
    ("P1", "got 'P1'"),
    (b"mp20", "got b'mp20'"),
    ({1, 2}, r"got \{1, 2\}"),
    ([], "at least one group"),
    ([1, 1], "each once"),
    ([1, True], "got True"),
    ([1.5, 2], "got 1.5"),
    ([[1, 2], [3]], r"got \[1, 2\]"),
    (np.array([[1, 2], [3, 4]]), r"got \[1, 2\]"),
    ([0.1] * 229, "got 0.1"),
    (np.full(230, np.nan), "space_group weights must be finite numbers.* got nan for space group 1"),
    ([1.0] * 229 + [np.inf], "got inf for space group 230"),
    ([10**400] + [1] * 229, "weights must be finite"),
    ([1, -1] * 115, "got -1 for space group 2"),
    ([0] * 230, "not all zero, got 230 zeros"),
    ([True] * 230, "got True for space group 1"),
    (["1"] * 230, "got '1' for space group 1"),
    ([None] * 230, "got None for space group 1"),
    ([1 + 0j] * 230, r"got \(1\+0j\) for space group 1"),
    ([[1, 2]] * 230, r"got \[1, 2\] for space group 1"),
]
FORMULAS = [
    ("", "formula must be a composition"),
    (" ", "formula must be a composition"),
    ("nonsense", "formula must be a composition"),
    ("Fe3+", "formula must be a composition"),
    ("Xx", "got 'Xx'"),
    ("X2O", "got 'X'"),
    ("HDO", "got 'D': isotopes are not told apart, write 'H'"),
    ("T2O", "got 'T': isotopes"),
    ("D", "got 'D'"),
    ("H0", "whole positive numbers"),
    ("H-1", "formula must be a composition"),
    ("Fe0.5O", "whole positive numbers"),
    ("H1e400", "whole positive numbers"),
    ({}, r"whole positive numbers of atoms, got \{\}"),
    ({"D": 1, "O": 1}, "got 'D'"),
    ({"": 1}, "got ''"),
    ({0: 1}, "got 0"),
    ({"Na": float("inf")}, "whole positive numbers"),
    ({"Na": float("nan")}, "whole positive numbers"),
    ({"Na": 0, "Cl": 1}, "whole positive numbers"),
    ({"Na": -1}, "whole positive numbers"),
    ({"Na": 1.5}, "whole positive numbers"),
    ({"Na": True}, "whole positive numbers"),
    ({"Na": "2"}, "whole positive numbers"),
    ({"Na": None}, "whole positive numbers"),
    ({"Na": 1, 11: 1}, "Na is there twice"),
    (Composition("D2O"), "got 'D'"),
    (5, "formula must be a composition such as 'SrTiO3' or {'Ti': 1, 'O': 2}, got 5"),
    (["Na", "Cl"], "got \\['Na', 'Cl'\\]"),
    (b"NaCl", "got b'NaCl'"),
    ({"Na": 10**6, "Cl": 1}, "too many to tabulate"),
]
LISTS = [
    *(
        (
            {name: wrap(symbol)},
            rf"^{name}.*: element must be a chemical symbol or an atomic number .*, got {shown}",
        )
        for name, wrap in (
            ("elements", lambda symbol: [symbol]),
            ("required_elements", lambda symbol: ["O", symbol]),
            ("site_elements", lambda symbol: [["O"], [symbol]]),
        )
        for symbol, shown in (
            ("D", "'D': isotopes"),
            ("T", "'T': isotopes"),
            ("Xx", "'Xx'"),
            ("X", "'X'"),
            ("", "''"),
            ("fe", "'fe'"),
            (0, "0"),
            (119, "119"),
            (True, "True"),
            (np.True_, "np.True_"),
            (8.0, "8.0"),
            (float("nan"), "nan"),
            (None, "None"),
            (["O"], r"\['O'\]"),
        )
    ),
    ({"elements": []}, "elements leaves no element"),
    ({"elements": "Fe"}, "^elements must be a list, got 'Fe'"),
    ({"elements": np.array([[8, 9]])}, "got array"),
    ({"elements": ["Fe"], "required_elements": ["O"]}, "required_elements needs \\['O'\\]"),
    ({"elements": ["Fe"], "formula": "FeO"}, "formula needs \\['O'\\]"),
    ({"formula": "UO2", "exclude_radioactive": True}, "formula needs \\['U'\\]"),
    ({"required_elements": None}, "required_elements must be a list, got None"),
    ({"exclude_radioactive": "no"}, "exclude_radioactive must be True or False, got 'no'"),
    ({"max_sites": 0}, "max_sites must be an integer from 1 to 20"),
    ({"max_sites": 21}, "got 21"),
    ({"max_sites": True}, "got True"),
    ({"max_atoms": 0}, "max_atoms must be an integer from 1"),
    ({"max_atoms": float("inf")}, "got inf"),
    ({"max_atoms": 10**30}, "too many to tabulate"),
    ({"wyckoff_letters": ""}, "wyckoff_letters must be a string of 1 to 20 letters"),
    ({"wyckoff_letters": "ba"}, "in the order"),
    ({"wyckoff_letters": "a?"}, "wyckoff_letters: Wyckoff letter must be"),
    ({"wyckoff_letters": "abc", "max_sites": 2}, "max_sites allows 2"),
    ({"site_elements": [[]]}, "no element at site 0"),
    ({"site_elements": 5}, "site_elements must be a list, got 5"),
    ({"site_elements": ["O", "Sr"]}, r"^site_elements\[0\] must be a list, got 'O'"),
    ({"tied_sites": [[0]]}, "two or more"),
    ({"tied_sites": [[0, 1], [1, 2]]}, "each site in one group"),
    ({"tied_sites": [0, 1]}, r"^tied_sites\[0\] must be a list, got 0"),
    ({"tied_sites": [["a", "b"]]}, "tied_sites must be an integer from 0 to 19, got 'a'"),
    ({"tied_sites": None}, "tied_sites must be a list, got None"),
]
WRONG = [
    *(({"space_group": value}, message) for value, message in SPACE_GROUPS),
    *(({"formula": value}, message) for value, message in FORMULAS),
    *LISTS,
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kwargs", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_cannot_be_met_is_refused_at_construction_and_reset(kwargs, message):
    with pytest.raises(InputError, match=message):
        gym.make("CrystalGen-v0", reward=None, **kwargs)
    env = gym.make("CrystalGen-v0", reward=None)
    before, _ = env.reset(seed=0)
    with pytest.raises(InputError, match=message):
        env.reset(options=kwargs)
    assert np.array_equal(env.unwrapped.states.observations[0], before)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e308, 1e-320, 1, 7.5])
def test_weights_of_any_size_are_their_ratios(scale):
    ratios = np.where(np.arange(230) % 2, 1.0, 0.5) if scale != 1e-320 else np.ones(230)
    weights = constraints(space_group=scale * ratios).group_weights[1:]
    assert np.abs(weights / (ratios / ratios.sum()) - 1).max() < 1e-12


def test_lists_of_groups_and_all_groups_are_even():
    assert constraints(space_group=[225, 2]).space_group == (2, 225)
    assert constraints(space_group=np.array([225, 2])).space_group == (2, 225)
    for every in (range(1, 231), list(range(230, 0, -1)), np.arange(1, 231)):
        assert np.unique(constraints(space_group=every).group_weights[1:]).tolist() == [1 / 230]
    assert np.array_equal(constraints().group_weights[1:], mp20_group_counts())


@pytest.mark.parametrize(
    "formula",
    ["SrTiO3", "Ti1Sr1O3", "(SrTiO3)2", {"Sr": 1, "Ti": 1, "O": 3}, {38: 2, 22: 2.0, "O": 6}, Composition("SrTiO3")],
)
def test_a_formula_is_reduced_however_it_is_written(formula):
    normal = constraints(formula=formula)
    assert normal.formula == ((8, 3), (22, 1), (38, 1))
    assert normal.elements == (8, 22, 38)
    assert normal.max_atoms == 20
    assert normal == constraints(formula="SrTiO3")


def test_brackets_in_formulas_are_those_of_pymatgen():
    for formula in ("Ca(OH)2", "[Fe(CN)6]K4", "Li3Fe2(PO4)3", "CH3CH2OH"):
        expected = Composition(formula).reduced_composition
        assert dict(constraints(formula=formula).formula) == {element.Z: n for element, n in expected.items()}


def test_a_formula_unit_of_many_atoms_has_room():
    assert constraints(formula={"Y": 3, "Al": 5, "O": 12, "H": 5}).max_atoms == 25
    assert constraints(formula="NaCl", max_atoms=8).max_atoms == 8


def test_elements_are_numbers_or_symbols_without_order_or_repeats():
    assert constraints(elements=["O", 26, np.int64(8), "Fe"]).elements == (8, 26)
    stable = constraints(exclude_radioactive=True).elements
    assert set(stable) == set(range(1, 119)) - RADIOACTIVE


def test_equal_constraints_are_equal_and_hash_alike():
    left = constraints(elements=["O", "Fe"], tied_sites=[[1, 0]], site_elements=[None, ["Fe"]], wyckoff_letters="abc")
    right = constraints(elements=(26, 8), tied_sites=((0, 1),), site_elements=(None, (26,)), wyckoff_letters="abc")
    assert left == right
    assert hash(left) == hash(right)
    assert left != constraints(elements=["O", "Fe"])


def test_constraints_are_named_with_their_values_in_messages():
    named = constraints(space_group=[2, 14], formula="SrTiO3", site_elements=[["Sr"], None], wyckoff_letters="ab")
    assert named.in_words() == {
        "space_group": "(2, 14)",
        "formula": "O3TiSr",
        "max_atoms": "20",
        "site_elements": "[['Sr'], None]",
        "wyckoff_letters": "ab",
    }
