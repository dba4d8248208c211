"""The state machine: decisions of many rows, each as if it were alone."""

import numpy as np
import pytest

from crystal_env.crystal import Crystal
from crystal_env.encoding import gamma_bounds
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import Grammar, compile_grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.sampling import sample_masked
from crystal_env.vocabulary import FIRST_ELEMENT, N_SYMBOLS, Phase, Vocabulary

BINS = 24
FREE = compile_grammar(constraints(space_group=[1, 14, 62, 166, 225]))


def started(size, vocabulary=None, grammar=FREE, seed=0):
    states = CrystalStates(size, vocabulary or Vocabulary(BINS))
    states.reset(np.arange(size), grammar, grammar.sample_groups(size, np.random.default_rng(seed)))
    return states


def everything(states):
    return [states.phase, states.G, states.masks, states.observations, states.site, states.n_decisions]


def test_rows_under_different_constraints_do_not_mix():
    rng = np.random.default_rng(0)
    grammars = [
        Grammar(constraints(space_group=225, elements=["Na", "Cl"], formula="NaCl")),
        Grammar(constraints(space_group=[2, 14], elements=["Fe", "O"], tied_sites=[[0, 1]])),
        Grammar(constraints(max_atoms=6)),
    ]
    states = CrystalStates(30, Vocabulary(BINS))
    owner = np.arange(30) % 3
    for index, grammar in enumerate(grammars):
        rows = np.flatnonzero(owner == index)
        groups = rng.choice(231, len(rows), p=grammar.probabilities)
        states.reset(rows, grammar, groups)
    while len(rows := np.flatnonzero(states.phase != Phase.DONE)):
        assert states.step(rows, sample_masked(states.masks[rows], rng)).all()
    crystals = states.crystals(np.arange(30))
    assert {crystal.formula for crystal in crystals[owner == 0]} == {"NaCl"}
    assert all(len(set(crystal.A[:2])) == 1 and set(crystal.A) <= {8, 26} for crystal in crystals[owner == 1])
    assert crystals[owner == 2].n_atoms(primitive=True).max() <= 6


def test_element_ids_are_where_the_vocabulary_says():
    states = CrystalStates(1, Vocabulary(BINS))
    states.reset(np.array([0]), Grammar(constraints(elements=["H", "Og"])), np.array([1]))
    states.step(np.array([0]), np.array([1]))
    assert np.flatnonzero(states.masks[0]).tolist() == [FIRST_ELEMENT, FIRST_ELEMENT + 117]


def test_rows_step_alone_as_they_step_together():
    rng, states = np.random.default_rng(1), started(12)
    alone = [started(12).take(np.array([row])) for row in range(12)]
    for _ in range(25):
        rows = np.flatnonzero((states.phase != Phase.DONE) & (rng.random(12) < 0.7))
        tokens = sample_masked(states.masks[rows], rng)
        assert states.step(rows, tokens).all()
        for row, token in zip(rows, tokens, strict=True):
            assert alone[row].step(np.array([0]), np.array([token])).all()
        for row in range(12):
            for left, right in zip(everything(states), everything(alone[row]), strict=True):
                assert np.array_equal(left[row], right[0])


def test_a_decision_that_is_not_allowed_changes_nothing():
    states = started(3)
    states.step(np.array([1]), np.array([1]))
    before = [array.copy() for array in everything(states)]
    for token in (-1, N_SYMBOLS, 10**9):
        assert not states.step(np.array([0]), np.array([token])).any()
    assert states.step(np.array([0, 2]), np.array([N_SYMBOLS, 1])).tolist() == [False, True]
    for left, right in zip(everything(states), before, strict=True):
        assert np.array_equal(left[:2], right[:2])
    assert states.phase[2] == Phase.ELEMENT


def test_a_copy_goes_its_own_way():
    states = started(2)
    twin = states.take(np.array([1, 1, 0]))
    assert len(twin) == 3
    before = [array.copy() for array in everything(states)]
    twin.step(np.arange(3), np.ones(3, int))
    assert all(np.array_equal(left, right) for left, right in zip(everything(states), before, strict=True))


def test_undecided_parts_of_crystals_are_zero():
    states, row = started(1, grammar=compile_grammar(constraints(space_group=14))), np.array([0])
    for token in (5, FIRST_ELEMENT + 25, N_SYMBOLS + 6, N_SYMBOLS + 12):
        states.step(row, np.array([token]))
    crystal = states.crystals(row)[0]
    assert (crystal.G, crystal.letters, crystal.A.tolist()) == (14, "e", [26])
    assert crystal.XYZ.tolist() == [[0.25, 0.5, 0.0]]
    assert not crystal.L.any()
    W, A, XYZ = states.site_of(row, np.array([0]))
    assert (W.tolist(), A.tolist(), XYZ.tolist()) == ([5], [26], [[0.25, 0.5, 0.0]])


def test_finished_crystals_are_crystals_of_the_grammar():
    rng, states = np.random.default_rng(3), started(60, Vocabulary(960))
    while len(rows := np.flatnonzero(states.phase != Phase.DONE)):
        assert states.step(rows, sample_masked(states.masks[rows], rng)).all()
    for crystal in states.crystals(np.arange(60)):
        assert Crystal(*crystal.arrays) == crystal  # the constructor checks, and completes what symmetry fixes


@pytest.mark.parametrize("bins", [24, 0])
def test_gamma_is_bounded_by_alpha_and_beta(bins):
    crystal = Crystal.from_string("1-a-Na-0-0-0-X-5-5-5-85-50-100")
    vocabulary, row = Vocabulary(bins), np.array([0])
    states = started(1, vocabulary, compile_grammar(constraints(space_group=1)))
    for action in crystal.to_actions(vocabulary)[:-1]:
        assert states.normalised_bounds(0) == (0.0, 1.0)
        token, u = (action, None) if bins else (action[0], np.array([action[1]], float))
        assert states.step(row, np.array([token], int), u).all()
    alpha, beta = states.crystals(row).L[0, 3:5]
    low, high = gamma_bounds(np.array([alpha]), np.array([beta]))[0]
    assert 30 < low < high < 150
    assert np.allclose(30 + 120 * np.array(states.normalised_bounds(0)), [low, high], atol=1e-4)
    if bins:
        angles = 30 + 5 * np.arange(bins)
        assert np.array_equal(states.masks[0, N_SYMBOLS:], (angles >= low) & (angles <= high))
    for angle in (low - 0.1, low + 0.1, high - 0.1, high + 0.1):
        if not bins:
            u = np.array([(angle - 30) / 120])
            assert states.allowed(row, np.array([0]), u).tolist() == [low <= angle <= high]


def test_a_reset_of_some_rows_leaves_the_others():
    rng, states = np.random.default_rng(0), started(6)
    for _ in range(5):
        states.step(np.arange(6), sample_masked(states.masks, rng))
    before = [array.copy() for array in everything(states)]
    states.reset(np.array([1, 4]), compile_grammar(constraints(space_group=2, elements=["O"])), np.array([2, 2]))
    kept = [0, 2, 3, 5]
    for left, right in zip(everything(states), before, strict=True):
        assert np.array_equal(left[kept], right[kept])
    assert states.G[[1, 4]].tolist() == [2, 2]
    assert states.n_decisions[[1, 4]].tolist() == [0, 0]
    states.step(np.array([1]), np.array([1]))
    assert np.flatnonzero(states.masks[1]).tolist() == [FIRST_ELEMENT + 7]
