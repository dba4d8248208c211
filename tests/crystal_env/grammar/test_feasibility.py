"""Masks against brute force: every crystal that meets the constraints can be reached, and nothing else."""

import itertools

import numpy as np
import pytest

from crystal_env.elements import RADIOACTIVE, atomic_number
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import Grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import LETTERS, tables

BINS = 24


def reachable(grammar, group):
    """Return all (letters, elements) that masked steps reach in a group, by following every allowed decision."""
    states = CrystalStates(1, Vocabulary(BINS, grammar.constraints.chooses_group))
    states.reset(np.array([0]), grammar, np.array([group]))
    reached = set()
    while len(states):
        lattice = states.phase >= Phase.A
        for crystal in states.crystals(np.flatnonzero(lattice)):
            reached.add((tuple(crystal.W), tuple(crystal.A)))
        states = states.take(np.flatnonzero(~lattice))
        assert states.masks.any(1).all(), "an allowed decision led to a dead end"
        numeric = states.phase >= Phase.X
        assert states.masks[numeric, N_SYMBOLS:].all(), "a coordinate was restricted"
        states.masks[numeric, N_SYMBOLS + 1 :] = False  # the value of a coordinate does not change what follows
        rows, tokens = np.nonzero(states.masks)
        states = states.take(rows)
        assert states.step(np.arange(len(rows)), tokens).all()
    return reached


def enumerated(group, *, elements, max_sites, **rules):
    """Return all (letters, elements) that meet the constraints, by trying every one there is."""
    T = tables()
    letters = range(1, T.n_letters[group] + 1)
    numbers = [atomic_number(symbol) for symbol in elements]
    found = set()
    for n in range(1, max_sites + 1):
        for W in itertools.combinations_with_replacement(letters, n):
            fixed = [w for w in W if not T.free_coordinates[group, w].any()]
            if len(set(fixed)) < len(fixed):
                continue
            atoms = [T.multiplicity[group, w] // T.n_centring[group] for w in W]
            found |= {(W, A) for A in itertools.product(numbers, repeat=n) if meets(W, A, atoms, **rules)}
    return found


def meets(
    W,
    A,
    atoms,
    *,
    required_elements=(),
    formula=None,
    max_atoms=None,
    site_elements=(),
    tied_sites=(),
    wyckoff_letters=None,
    exclude_radioactive=False,
):
    counts = {z: sum(m for m, a in zip(atoms, A, strict=True) if a == z) for z in A}
    if formula:
        wanted = {atomic_number(symbol): count for symbol, count in formula.items()}
        max_atoms = max_atoms or max(20, sum(formula.values()))
        if set(counts) != set(wanted) or len({counts[z] / wanted[z] for z in wanted}) > 1:
            return False
        if counts[A[0]] % wanted[A[0]]:
            return False
    allowed = zip(site_elements, A, strict=False)
    held = [{A[i] for i in sites if i < len(A)} for sites in tied_sites]
    return (
        all(atomic_number(symbol) in A for symbol in required_elements)
        and (max_atoms is None or sum(atoms) <= max_atoms)
        and all(entry is None or a in [atomic_number(symbol) for symbol in entry] for entry, a in allowed)
        and all(len(elements) <= 1 for elements in held)
        and (wyckoff_letters is None or "".join(LETTERS[w - 1] for w in W) == wyckoff_letters)
        and not (exclude_radioactive and RADIOACTIVE & set(A))
    )


CASES = [
    (225, {"elements": ["Na", "Cl"], "max_sites": 3}),
    (225, {"elements": ["Na", "Cl"], "max_sites": 4, "formula": {"Na": 1, "Cl": 1}, "max_atoms": 8}),
    (221, {"elements": ["Sr", "Ti", "O"], "max_sites": 3, "formula": {"Sr": 1, "Ti": 1, "O": 3}}),
    (166, {"elements": ["Bi", "Te", "Se"], "max_sites": 3, "required_elements": ["Bi", "Te"], "max_atoms": 6}),
    (1, {"elements": ["H", "O"], "max_sites": 4, "formula": {"H": 2, "O": 1}, "max_atoms": 3}),
    (62, {"elements": ["Fe", "O"], "max_sites": 3, "tied_sites": [[0, 2]]}),
    (62, {"elements": ["Fe", "O", "S"], "max_sites": 3, "tied_sites": [[0, 1]], "required_elements": ["S", "O"]}),
    (227, {"elements": ["Mg", "Al", "O"], "max_sites": 3, "site_elements": [["Mg"], ["Al", "Mg"], ["O"]]}),
    (227, {"elements": ["Mg", "Al", "O"], "max_sites": 3, "wyckoff_letters": "ade"}),
    (14, {"elements": ["Tc", "O", "U"], "max_sites": 3, "exclude_radioactive": True}),
    (47, {"elements": ["Cu"], "max_sites": 3, "max_atoms": 3}),
]


@pytest.mark.parametrize(("group", "rules"), CASES)
def test_masks_reach_exactly_the_crystals_that_meet_constraints(group, rules):
    expected = enumerated(group, **rules)
    assert expected
    assert reachable(Grammar(constraints(space_group=group, **rules)), group) == expected


def random_rules(rng):
    elements = list(rng.permutation(["Li", "Fe", "O", "F"])[: rng.integers(1, 4)])
    rules = {"elements": elements, "max_sites": int(rng.integers(1, 4))}
    if rng.random() < 0.4:
        rules["required_elements"] = list(rng.permutation(elements)[: rng.integers(1, len(elements) + 1)])
    if rng.random() < 0.3:
        rules["formula"] = {z: int(rng.integers(1, 4)) for z in elements}
        divisor = np.gcd.reduce(list(rules["formula"].values()))
        rules["formula"] = {z: int(n // divisor) for z, n in rules["formula"].items()}
    if rng.random() < 0.5:
        rules["max_atoms"] = int(rng.integers(1, 13))
    if rng.random() < 0.3:
        lists = [list(rng.permutation(elements)[: rng.integers(1, len(elements) + 1)]) for _ in range(2)]
        rules["site_elements"] = [None if rng.random() < 0.3 else entry for entry in lists]
    if rng.random() < 0.3:
        rules["tied_sites"] = [[0, 1]] if rng.random() < 0.5 else [[0, 2]]
    return rules


def test_random_constraints_agree_with_brute_force_or_are_refused():
    rng = np.random.default_rng(2026)
    refused = 0
    for _ in range(120):
        group, rules = int(rng.choice([2, 12, 47, 123, 139, 166, 186, 194, 216, 221, 225, 227])), random_rules(rng)
        rules["max_sites"] = min(rules["max_sites"], 2 if group in (47, 123) else 3)
        expected = enumerated(group, **rules)
        try:
            grammar = Grammar(constraints(space_group=group, **rules))
        except ValueError:
            assert not expected, f"refused though possible: group {group}, {rules}"
            refused += 1
            continue
        assert reachable(grammar, group) == expected, f"group {group}, {rules}"
    assert 0 < refused < 100


def test_possible_groups_of_weights_are_those_with_a_crystal():
    rules = {"elements": ["Na", "Cl"], "max_sites": 2, "formula": {"Na": 1, "Cl": 1}, "max_atoms": 2}
    grammar = Grammar(constraints(space_group="agent", **rules))
    expected = {group for group in range(1, 231) if enumerated(group, **rules)}
    assert set(np.flatnonzero(grammar.probabilities)) == expected
