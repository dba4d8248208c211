import numpy as np
import pytest

from crystal_env.wyckoff import LETTERS, letter_index, tables

GENERIC = np.array([0.1234, 0.2718, 0.3141])


def as_points(points: np.ndarray) -> set[tuple[int, ...]]:
    """Points modulo 1, exact to a millionth."""
    return {tuple(row) for row in (np.rint(points * 1e6).astype(int) % 1_000_000).tolist()}


def flat(rotations: np.ndarray, translations: np.ndarray) -> zip:
    """Operations as lists of integers, translations in units of 1/24."""
    rotations, translations = np.rint(rotations).astype(int), np.rint(translations * 24).astype(int) % 24
    return zip(rotations.reshape(-1, 9).tolist(), translations.tolist(), strict=True)


def test_table_holds_all_positions_and_operations_of_230_groups():
    T = tables()
    assert T.n_letters[1:].sum() == 1731
    assert T.rotation.shape == (14433, 3, 3)
    assert T.translation.shape == (14433, 3)
    assert T.multiplicity.max() == 192
    assert np.flatnonzero(T.n_letters == 27).tolist() == [47]


def test_number_of_positions_by_freedom():
    T = tables()
    exists = T.multiplicity > 0
    assert np.bincount(T.rank[exists]).tolist() == [616, 718, 167, 230]
    assert (T.rank[~exists] == 0).all()


def test_general_positions_are_the_operations_of_spglib(spglib_operations):
    T = tables()
    for G in range(1, 231):
        rows = T.operations(G, int(T.n_letters[G]))
        rotations, translations = spglib_operations(G)
        ours = {(*R, *t) for R, t in flat(T.rotation[rows], T.translation[rows])}
        theirs = {(*R, *t) for R, t in flat(rotations, translations)}
        assert ours == theirs, G


def test_every_orbit_is_the_general_position_of_its_first_atom():
    T = tables()
    for G in range(1, 231):
        general = T.operations(G, int(T.n_letters[G]))
        for W in range(1, T.n_letters[G] + 1):
            rows = T.operations(G, W)
            listed = as_points(T.rotation[rows] @ GENERIC + T.translation[rows])
            first = T.projection[G, W, :, :3] @ GENERIC + T.projection[G, W, :, 3]
            orbit = as_points(T.rotation[general] @ first + T.translation[general])
            assert listed == orbit, (G, W)
            assert len(listed) == T.multiplicity[G, W], (G, W)


def test_free_coordinates_determine_the_others():
    T = tables()
    rng = np.random.default_rng(0)
    for G, W in np.argwhere(T.multiplicity):
        R, t, free = T.projection[G, W, :, :3], T.projection[G, W, :, 3], T.free_coordinates[G, W]
        values = rng.random(3)
        point = R @ values + t
        np.testing.assert_allclose(point[free], values[free] + np.rint(point[free] - values[free]), atol=1e-12)
        other = np.where(free, values, rng.random(3))  # what is not free does not matter
        np.testing.assert_allclose(R @ other + t, point, atol=1e-12)


def test_next_letters_follow_the_rules_of_the_grammar():
    T = tables()
    for G in range(1, 231):
        for previous in range(T.n_letters[G] + 1):
            allowed = {0} if previous else set()
            for letter in range(1, T.n_letters[G] + 1):
                repeats = letter == previous and T.rank[G, letter] > 0
                if letter > previous or repeats:
                    allowed.add(letter)
            assert set(np.flatnonzero(T.next_letter[G, previous]).tolist()) == allowed
    assert not T.next_letter[0].any()


def test_free_lattice_parameters_of_the_seven_systems():
    T = tables()
    expected = {1: 6, 2: 6, 3: 4, 15: 4, 16: 3, 74: 3, 75: 2, 142: 2, 143: 2, 167: 2, 194: 2, 195: 1, 230: 1}
    assert {G: int(T.free_lattice[G].sum()) for G in expected} == expected
    for G in range(1, 231):
        fixed = T.lattice_angle[G] > 0
        assert not (fixed & T.free_lattice[G]).any()
        source = T.lattice_source[G]
        assert ((source == np.arange(6)) == (T.free_lattice[G] | fixed)).all()


def test_primitive_vectors_span_the_centring_translations(spglib_operations):
    T = tables()
    for G in range(1, 231):
        rotations, translations = spglib_operations(G)
        points = translations[(rotations == np.eye(3)).all((1, 2))]
        assert T.n_centring[G] == len(points)
        vectors = T.primitive_vectors[G]
        np.testing.assert_allclose(np.linalg.det(vectors), 1 / len(points))
        in_primitive = points @ np.linalg.inv(vectors)
        np.testing.assert_allclose(in_primitive, np.rint(in_primitive), atol=1e-9)


def test_first_block_of_a_position_makes_up_the_primitive_cell():
    T = tables()
    assert (T.primitive_multiplicity * T.n_centring[:, None] == T.multiplicity).all()


def test_letter_index_counts_from_a():
    assert [letter_index(letter) for letter in LETTERS] == list(range(1, 28))


@pytest.mark.parametrize("letter", ["", "B", "ab", "1", "Z"])
def test_letter_index_rejects_what_is_no_letter(letter):
    with pytest.raises(ValueError, match=r"one of a\.\.\.z or A"):
        letter_index(letter)


def test_tables_are_read_once():
    assert tables() is tables()
