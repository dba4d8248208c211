import json
from pathlib import Path

import numpy as np
import pytest

from crystal_env.symmetry import normaliser
from crystal_env.wyckoff import LETTERS, tables


def test_letter_permutations_contain_those_of_pyxtal():
    pyxtal = pytest.importorskip("pyxtal", reason="needs pyxtal's table of Wyckoff sets")
    table = json.loads((Path(pyxtal.__file__).parent / "database" / "wyckoff_sets.json").read_text())
    for G in range(1, 231):
        n = tables().n_letters[G]
        expected = {tuple(LETTERS.index(c) + 1 for c in row.split()) for row in table[str(G)]["Transformed WP"]}
        found = {tuple(row[1 : n + 1]) for row in normaliser.letter_permutations(G).tolist()}
        if G > 15:
            assert found == expected, G
        else:  # pyxtal lists the Euclidean normaliser of a general lattice there, which is smaller
            assert found >= expected, G


def test_inversion_centres_are_permuted_by_all_maps_of_the_cube():
    assert len(normaliser.letter_permutations(2)) == 8 * 168


@pytest.mark.parametrize("G", range(1, 231))
def test_permutations_are_a_group_that_keeps_multiplicity_and_freedom(G):
    T = tables()
    permutations = normaliser.letter_permutations(G)
    n = T.n_letters[G] + 1
    assert permutations[0][:n].tolist() == list(range(n))
    assert (np.sort(permutations[:, :n], axis=1) == np.arange(n)).all()
    assert (T.multiplicity[G, permutations[:, :n]] == T.multiplicity[G, :n]).all()
    assert (T.rank[G, permutations[:, :n]] == T.rank[G, :n]).all()
    known = {row.tobytes() for row in permutations}
    some = permutations[:: max(1, len(permutations) // 12)]
    products = [first[second] for first in some for second in permutations]
    assert {product.tobytes() for product in products} <= known


@pytest.mark.parametrize("G", [1, 3, 5, 9, 14, 15, 19, 24, 40, 62, 70, 88, 99, 122, 146, 166, 186, 194, 206, 220, 227])
def test_maps_carry_the_operations_of_the_group_into_themselves(G):
    rotations, shifts = normaliser.general_operations(G)
    operations = {(*R.ravel(), *(t % 24)) for R, t in zip(rotations, shifts, strict=True)}
    for P in normaliser.linear_parts(G)[:40]:
        inverse = np.rint(np.linalg.inv(P)).astype(int)
        for p in normaliser.maps(G, P).p[:4] * 24:
            carried = set()
            for R, t in zip(rotations, shifts, strict=True):
                image = P @ R @ inverse
                carried.add((*image.ravel(), *(np.rint(P @ t + p - image @ p).astype(int) % 24)))
            assert carried == operations


def test_what_is_not_in_the_normaliser_has_no_maps():
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert len(normaliser.maps(47, swap).p) == 8
    assert len(normaliser.maps(62, swap).p) == 0  # P n m a distinguishes its axes


def test_polar_axes():
    polar = {G: normaliser.polar_axes(G).tolist() for G in range(1, 231)}
    assert polar[1] == [True, True, True]
    assert polar[4] == [False, True, False]
    assert polar[7] == [True, False, True]
    assert polar[33] == polar[99] == polar[146] == polar[186] == [False, False, True]
    assert sum(any(axes) for axes in polar.values()) == 68  # the polar groups of the International Tables
