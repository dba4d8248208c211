"""Uniqueness against the components of the full matrix of matches."""

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.sparse.csgraph import connected_components

from crystal_env import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents
from rewards.uniqueness import Uniqueness

TETRAGONAL = "123-a-Na-0-0-0-d-Cl-1/2-1/2-1/2-X-4-4-{0}-90-90-90"


def tetragonal(*axes):
    return CrystalBatch.from_crystals(Crystal.from_string(TETRAGONAL.format(c)) for c in axes)


def mixed(crystals, seed):
    """Five structures, some several times in other descriptions or sizes, in random order."""
    rng = np.random.default_rng(seed)
    other = equivalents(crystals[rng.integers(5, size=6)], rng)
    other.L[:, :3] *= rng.uniform(0.9, 1.1, (6, 1))
    return CrystalBatch.concatenate([crystals, other, tetragonal(3.4, 6.4)])[rng.permutation(13)]


def test_a_structure_shares_one_among_its_copies(crystals):
    batch = mixed(crystals, 0)
    structures = batch.to_structures()
    matches = [[StructureMatcher().fit(one, other) for other in structures] for one in structures]
    number, labels = connected_components(np.array(matches))
    result = Uniqueness()(batch)
    copies = np.bincount(labels)[labels]
    np.testing.assert_array_equal(result.terms["copies"], copies)
    np.testing.assert_allclose(result.total, 1 / copies)
    np.testing.assert_allclose(result.total.sum(), number)
    np.testing.assert_array_equal(result.success(), copies == 1)
    assert 1 < (copies > 1).sum() < 13


def test_a_chain_of_matches_is_one_structure_in_any_order():
    chain = tetragonal(3.4, 4.6, 5.8)
    first, middle, last = chain.to_structures()
    assert StructureMatcher().fit(first, middle)
    assert StructureMatcher().fit(middle, last)
    assert not StructureMatcher().fit(first, last)
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 0, 1]):
        assert Uniqueness()(chain[order]).terms["copies"].tolist() == [3, 3, 3]
    assert Uniqueness()(chain[[0, 2]]).total.tolist() == [1, 1]


def test_the_order_of_a_batch_does_not_matter(crystals):
    batch, rng = mixed(crystals, 1), np.random.default_rng(2)
    expected = Uniqueness()(batch).total
    for _ in range(5):
        order = rng.permutation(len(batch))
        np.testing.assert_array_equal(Uniqueness()(batch[order]).total, expected[order])


def test_exact_copies_count_without_being_matched(crystals):
    assert Uniqueness()(crystals[[0, 1, 0, 0]]).terms["copies"].tolist() == [3, 1, 3, 3]


def test_what_fails_the_screen_is_no_copy_and_gets_nothing(crystals):
    squeezed = tetragonal(0.4, 0.4, 4.0)
    result = Uniqueness()(squeezed)
    assert result.total.tolist() == [0, 0, 1]
    assert result.success().tolist() == [False, False, True]
    assert [failure is None for failure in result.failures] == [False, False, True]
    assert len(Uniqueness()(crystals[:0]).total) == 0
