"""States of the constraints and how sites change them, against counting by hand."""

from itertools import product

import numpy as np
import pytest

from crystal_env.elements import atomic_number
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.transitions import (
    ElementClasses,
    count_transitions,
    max_counts,
    memory_transitions,
    n_states,
)

MULTIPLICITIES = np.array([0, 1, 2, 3, 4])


def numbers(*symbols):
    return [atomic_number(symbol) for symbol in symbols]


def test_elements_that_no_constraint_tells_apart_form_one_class():
    rules = constraints(
        elements=["Li", "Na", "K", "Fe", "O", "S"], required_elements=["O"], site_elements=[["Li", "Na", "O"], None]
    )
    classes = ElementClasses(rules)
    expected = [numbers("Li", "Na"), numbers("S", "K", "Fe"), numbers("O")]
    assert sorted(classes.members) == sorted(expected)
    for index, members in enumerate(classes.members):
        assert (classes.of_element[members] == index).all()
    assert classes.of_element[numbers("Cl", "H")].tolist() == [-1, -1]
    assert ElementClasses(constraints()).n == 1


@pytest.mark.parametrize(
    "rules",
    [
        {"formula": {"Sr": 1, "Ti": 1, "O": 3}, "max_atoms": 10},
        {"formula": "Al2O3", "required_elements": ["Al"], "max_atoms": 15},
        {"elements": ["Fe", "O", "S"], "required_elements": ["O", "S"]},
        {"elements": ["Fe", "O", "S"], "required_elements": ["S"], "max_atoms": 7},
        {"max_atoms": 5},
        {},
    ],
)
def test_counts_grow_as_counted_site_by_site(rules):
    rules = constraints(**rules)
    classes = ElementClasses(rules)
    steps, complete = count_transitions(rules, classes, MULTIPLICITIES)
    limits = max_counts(rules)
    assert n_states(rules, classes) == len(complete) == np.prod([limit + 1 for limit in limits], dtype=int)
    formula = dict(rules.formula or ())
    for sites in product(range(classes.n), MULTIPLICITIES[1:].tolist(), repeat=2):
        state, atoms, seen = 0, dict.fromkeys(formula, 0), set()
        for index, multiplicity in (sites[:2], sites[2:]):
            element = classes.members[index][0]
            seen.add(element)
            atoms[element] = atoms.get(element, 0) + multiplicity
            state = int(steps[multiplicity, index, state]) if state >= 0 else -1
        units = {atoms[z] / n for z, n in formula.items()}
        most = (rules.max_atoms or 10**9) if not formula else (rules.max_atoms // sum(formula.values()))
        fits = all(atoms[z] <= most * n for z, n in formula.items()) if formula else sum(atoms.values()) <= most
        assert (state >= 0) == fits
        if fits:
            whole = not formula or (len(units) == 1 and units.pop() % 1 == 0 and min(atoms.values()) > 0)
            assert complete[state] == (whole and set(rules.required_elements) <= seen)


@pytest.mark.parametrize(
    "rules",
    [
        {"tied_sites": [[0, 2]], "max_sites": 4},
        {"tied_sites": [[0, 3], [1, 2]], "max_sites": 4},
        {"tied_sites": [[0, 1, 3]], "site_elements": [None, ["Fe", "O"], ["S"]], "max_sites": 4},
        {"site_elements": [["Fe"], ["O", "S"]], "max_sites": 3},
        {"tied_sites": [[1, 9]], "max_sites": 3},
    ],
)
def test_tied_sites_are_remembered_until_the_last_of_them(rules):
    tied, lists = rules.get("tied_sites", []), rules.get("site_elements", [])
    symbols = ["Fe", "O", "S"]
    rules = constraints(elements=symbols, required_elements=symbols, **rules)  # a class for each element
    classes = ElementClasses(rules)
    steps = memory_transitions(rules, classes)
    assert steps.shape == (rules.max_sites, 3, 4 ** len(tied))
    for held in product(range(3), repeat=rules.max_sites):
        memory = 0
        for site, index in enumerate(held):
            memory = int(steps[site, index, memory]) if memory >= 0 else -1
        names = ["Fe O S".split()[numbers(*symbols).index(classes.members[index][0])] for index in held]
        groups = [{names[site] for site in group if site < rules.max_sites} for group in tied]
        fits = all(len(group) <= 1 for group in groups)
        fits &= all(entry is None or names[site] in entry for site, entry in enumerate(lists[: rules.max_sites]))
        assert (memory >= 0) == fits
        if fits:
            assert memory == 0 or any(max(group) >= rules.max_sites for group in tied)
