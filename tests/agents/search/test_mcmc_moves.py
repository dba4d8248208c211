"""A move changes its crystal, in the way that its kind says, and is as likely as its reverse."""

from collections import Counter

import numpy as np
import pytest
from tiny_grammar import base_model

from agents.search.mcmc_moves import MOVES, N_UNIFORMS, Moves
from crystal_env import Crystal, CrystalBatch
from crystal_env.grammar.constraints import constraints
from crystal_env.wyckoff import tables

RULES = {
    "anything": {},
    "one element": {"elements": ["Fe"]},
    "formula": {"formula": "SrTiO3"},
    "lists": {"site_elements": [["Na"], ["Cl", "F"], ["Li", "K", "Rb"]]},
    "tied": {"elements": ["Na", "Cl", "F"], "tied_sites": [[0, 1]]},
}


def moves(bins=24, **rules):
    return Moves(0.05, 0.05, bins, constraints(**rules))


def differ(first, second, name):
    return (getattr(first, name) != getattr(second, name)).reshape(len(first), -1).any(1)


@pytest.mark.parametrize("bins", [0, 24, 960])
@pytest.mark.parametrize("case", RULES)
def test_every_move_changes_what_its_kind_says_and_nothing_else(case, bins):
    crystals = base_model().sample([1, 12, 62, 148, 166, 221] * 40, seed=0, bins=bins, **RULES[case])
    changed, kind = moves(bins, **RULES[case]).propose(crystals, np.random.default_rng(0).random((240, N_UNIFORMS)))
    assert np.array_equal(differ(changed, crystals, "A"), kind == MOVES.index("element"))
    assert np.array_equal(differ(changed, crystals, "XYZ"), kind == MOVES.index("coordinates"))
    assert np.array_equal(differ(changed, crystals, "L"), kind == MOVES.index("lattice"))
    assert not differ(changed, crystals, "W").any()
    assert (kind == MOVES.index("element")).any() == (case not in ("one element", "formula"))


def test_coordinates_move_only_where_a_site_has_a_free_one():
    crystals = base_model().sample([225] * 300, seed=0, wyckoff_letters="abe", elements=["Na"])
    changed, kind = moves(0).propose(crystals, np.random.default_rng(0).random((300, N_UNIFORMS)))
    moved = (changed.XYZ != crystals.XYZ).any(-1)
    assert not moved[:, :2].any()
    assert np.array_equal(moved[:, 2], kind == MOVES.index("coordinates"))
    fixed = base_model().sample([225] * 300, seed=0, wyckoff_letters="ab", elements=["Na", "Cl"])
    _, kind = moves(0).propose(fixed, np.random.default_rng(0).random((300, N_UNIFORMS)))
    assert set(kind) == {MOVES.index("element"), MOVES.index("lattice")}


def test_elements_keep_to_the_lists_of_their_sites():
    rules = RULES["lists"]
    crystals = base_model().sample([1] * 400, seed=0, wyckoff_letters="aaa", **rules)
    changed, kind = moves(0, **rules).propose(crystals, np.random.default_rng(0).random((400, N_UNIFORMS)))
    rows = np.flatnonzero(kind == 1)
    assert not (changed.A[rows, 0] != crystals.A[rows, 0]).any()  # nothing but sodium
    assert np.isin(changed.A[rows, 1], [9, 17]).all()
    assert np.isin(changed.A[rows, 2], [3, 19, 37]).all()
    assert ((changed.A[rows] != crystals.A[rows]).sum(1) == 1).all()


def test_tied_sites_change_their_element_together():
    rules = RULES["tied"]
    crystals = base_model().sample([1] * 400, seed=0, wyckoff_letters="aaa", **rules)
    changed, kind = moves(0, **rules).propose(crystals, np.random.default_rng(0).random((400, N_UNIFORMS)))
    assert np.array_equal(changed.A[:, 0], changed.A[:, 1])
    assert set((changed.A != crystals.A).sum(1)[kind == 1]) == {1, 2}


def frequencies(crystal, rules, bins, size=30_000):
    """Return how often one crystal is changed into each other one."""
    batch = CrystalBatch.from_crystals([crystal])[np.zeros(size, int)]
    changed, _ = moves(bins, **rules).propose(batch, np.random.default_rng(1).random((size, N_UNIFORMS)))
    first, place = changed.distinct()
    counts: Counter[str] = Counter()
    for c, count in zip(changed[first], np.bincount(place).tolist(), strict=True):
        counts[str(Crystal(int(c.G), c.W, c.A, c.XYZ, c.L))] += count
    return counts


@pytest.mark.parametrize("case", ["lists", "tied"])
def test_a_move_is_as_likely_as_its_reverse(case):
    crystal = base_model().sample([198], seed=0, bins=24, wyckoff_letters="aa", **RULES[case])[0]
    there = frequencies(crystal, RULES[case], 24)
    checked = 0
    for text, count in there.most_common(12):
        if Crystal.from_string(text).L[0] < 0.1:
            continue  # stands for all lattices out of bounds, which have no probability
        back = frequencies(Crystal.from_string(text), RULES[case], 24)[str(crystal)]
        assert abs(back - count) < 5 * (back + count) ** 0.5
        checked += count > 250
    assert checked > 4


def test_lattices_stay_those_of_their_group():
    crystals = base_model().sample(np.arange(1, 231), seed=0, bins=24, max_sites=1)
    changed, kind = moves(24).propose(crystals, np.random.default_rng(0).random((230, N_UNIFORMS)))
    rows, T = kind == MOVES.index("lattice"), tables()
    angle = T.lattice_angle[crystals.G]
    assert np.array_equal(np.where(angle > 0, angle, 0)[rows], np.where(angle > 0, changed.L, 0)[rows])
    tied = np.take_along_axis(changed.L, T.lattice_source[crystals.G], axis=1)
    assert np.allclose(np.where(angle > 0, changed.L, tied), changed.L)
