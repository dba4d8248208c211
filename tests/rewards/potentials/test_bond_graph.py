import itertools

import numpy as np
import pytest

from rewards.potentials.bond_graph import Bonds, _pair, count_angles, find_angles, find_bonds


@pytest.fixture
def cell():
    rng = np.random.default_rng(0)
    lattice = np.diag([3.0, 3.5, 4.0]) + rng.normal(0, 0.3, (3, 3))
    return rng.random((4, 3)) @ lattice, lattice


def brute_force(positions, lattice, cutoff):
    bonds = set()
    for image in itertools.product(range(-4, 5), repeat=3):
        distance = np.linalg.norm(positions[None] + np.array(image) @ lattice - positions[:, None], axis=-1)
        for i, j in zip(*np.nonzero((distance <= cutoff) & (distance > 1e-8)), strict=True):
            bonds.add((int(i), int(j), *image))
    return bonds


def as_set(bonds: Bonds):
    return set(zip(bonds.center.tolist(), bonds.neighbor.tolist(), *bonds.image.T.tolist(), strict=True))


def test_bonds_are_those_of_a_search_over_all_images(cell):
    bonds = find_bonds(*cell, cutoff=5.0)
    assert as_set(bonds) == brute_force(*cell, 5.0)
    assert len(as_set(bonds)) == len(bonds.center)


def test_both_directions_of_a_bond_share_one_index(cell):
    bonds = find_bonds(*cell, cutoff=5.0)
    assert np.array_equal(np.bincount(bonds.undirected), np.full(len(bonds.center) // 2, 2))
    assert np.array_equal(bonds.undirected[bonds.directed], np.arange(len(bonds.directed)))
    for index in range(len(bonds.directed)):
        there, back = np.flatnonzero(bonds.undirected == index)
        assert bonds.center[there] == bonds.neighbor[back]
        assert bonds.center[back] == bonds.neighbor[there]
        assert np.array_equal(bonds.image[there], -bonds.image[back])


def test_bond_without_its_reverse_is_left_out():
    center, neighbor = np.array([0, 1, 0]), np.array([1, 0, 1])
    image = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0]])
    bonds = _pair(center, neighbor, image, np.array([1.0, 1.0, 5.0]))
    assert as_set(bonds) == {(0, 1, 0, 0, 0), (1, 0, 0, 0, 0)}


def test_angles_are_all_ordered_pairs_of_short_bonds_at_one_atom(cell):
    bonds = find_bonds(*cell, cutoff=5.0)
    first, second = find_angles(bonds, cutoff=3.0)
    short = np.flatnonzero(bonds.distance <= 3.0)
    expected = {(a, b) for a in short for b in short if a != b and bonds.center[a] == bonds.center[b]}
    assert set(zip(first, second, strict=True)) == expected
    assert len(first) == len(expected) == count_angles(bonds, cutoff=3.0)


def test_isolated_atom_has_no_bonds_and_no_angles():
    bonds = find_bonds(np.zeros((1, 3)), np.eye(3) * 20.0, cutoff=6.0)
    assert len(bonds.center) == len(bonds.directed) == count_angles(bonds, 3.0) == len(find_angles(bonds, 3.0)[0]) == 0
