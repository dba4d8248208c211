import numpy as np
import pytest

from crystal_env.crystal import Crystal


def test_reading_what_was_written_gives_the_same_floats(random_crystal):
    rng = np.random.default_rng(2)
    for G in range(1, 231):
        crystal = random_crystal(G, rng)
        assert Crystal.from_string(str(crystal)) == crystal, crystal


def test_real_crystals_survive_the_text_form(mp20):
    assert [Crystal.from_string(str(crystal)) for crystal in mp20] == list(mp20)


@pytest.mark.parametrize("value", [5e-324, 1e-17, 1e-5, 0.1, 1 / 3, 7 / 960, np.nextafter(1, 0), 0.12345678901234567])
def test_awkward_floats_survive_the_text_form(value):
    crystal = Crystal(1, [1], [1], [[value, 0, 0]], [1e-3, 12345.678901234567, 1e22, 90, 90, 90])
    assert Crystal.from_string(str(crystal)) == crystal


def test_the_text_form_is_that_of_the_paper():
    string = "225-a-La-0-0-0-c-H-1/4-1/4-1/4-f-H-3/8-3/8-3/8-X-5.1-5.1-5.1-90-90-90"
    crystal = Crystal.from_string(string)
    assert crystal.formula == "LaH10"
    assert str(crystal) == string.replace("1/4", "0.25").replace("3/8", "0.375")


def test_fractions_without_a_short_decimal_stay_fractions(wurtzite):
    assert str(wurtzite) == "186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.382-X-3.25-3.25-5.21-90-90-120"


def test_rounded_dependent_coordinates_are_completed():
    crystal = Crystal.from_string("186-b-Zn-0.3333-0.6667-0-X-3-3-5-90-90-120")
    assert crystal.XYZ[0].tolist() == [1 / 3, 2 / 3, 0]


def test_surrounding_blanks_and_whole_coordinates_are_accepted():
    assert Crystal.from_string(" 221-a-Po-1-2-0.0-X-3-3-3-90-90-90\n").XYZ.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("", "text form must be G"),
        ("225", "text form must be G"),
        ("225-X-5-5-5-90-90-90", "text form must be G"),
        ("225-a-Na-0-0-0-5-5-5-90-90-90", "text form must be G"),
        ("225-a-Na-0-0-X-5-5-5-90-90-90", "text form must be G"),
        ("225-a-Na-0-0-0-X-5-5-5-90-90", "text form must be G"),
        ("231-a-Na-0-0-0-X-5-5-5-90-90-90", "space group must be an integer from 1 to 230, got '231'"),
        ("x-a-Na-0-0-0-X-5-5-5-90-90-90", "space group must be an integer"),
        ("225-B-Na-0-0-0-X-5-5-5-90-90-90", "Wyckoff letter must be one of"),
        ("225-z-Na-0-0-0-X-5-5-5-90-90-90", "letters of group 225 have indices 1 to 12"),
        ("225-a-Qq-0-0-0-X-5-5-5-90-90-90", "element must be a chemical symbol"),
        ("225-a-X-0-0-0-X-5-5-5-90-90-90", "element must be a chemical symbol"),
        ("225-a-Na-0-0-zero-X-5-5-5-90-90-90", "expected a number such as 0.25, 1/4 or 5.1, got 'zero'"),
        ("225-a-Na-0-0-1/0-X-5-5-5-90-90-90", "expected a number"),
        ("225-a-Na-0-0-nan-X-5-5-5-90-90-90", "expected a number"),
        ("225-a-Na-0-0-inf-X-5-5-5-90-90-90", "expected a number"),
        ("225-a-Na-0-0-1_0-X-5-5-5-90-90-90", "expected a number"),
        ("225-a-Na-0-0-0-X-5-5-5-90-90-x", "expected a number"),
        ("225-a-Na-0-0-0-X-5-5-6-90-90-90", "lattice L of group 225"),
        ("225-a-Na-0-0-0.5-X-5-5-5-90-90-90", "does not lie on the first operation"),
        ("225-a-Na-0-0-1e999-X-5-5-5-90-90-90", "coordinates XYZ must lie in"),
        ("²-a-Na-0-0-0-X-5-5-5-90-90-90", "space group must be an integer"),
        ("٢-a-Na-0-0-0-X-5-5-5-90-90-90", "space group must be an integer"),
    ],
)
def test_malformed_text_is_refused_with_the_reason(string, message):
    with pytest.raises(ValueError, match=message):
        Crystal.from_string(string)


def test_coordinates_near_fixed_ones_are_set_to_them_for_good():
    rounded = Crystal(194, [3], [12], [[0.3333, 0.6667, 0.25]], [3.2, 3.2, 5.2, 90, 90, 120])
    assert rounded.XYZ.tolist() == [[1 / 3, 2 / 3, 0.25]]
    assert Crystal.from_string(str(rounded)) == rounded


def test_minus_zero_is_zero():
    crystal = Crystal(1, [1], [6], [[-0.0, 0.5, -0.0]], [3, 4, 5, 90, 90, 90])
    assert str(crystal).startswith("1-a-C-0-0.5-0-X")
    assert hash(crystal) == hash(Crystal(1, [1], [6], [[0, 0.5, 0]], [3, 4, 5, 90, 90, 90]))


def test_crystals_with_dependent_coordinates_survive_to_the_last_bit():
    from crystal_env.wyckoff import tables

    T, rng = tables(), np.random.default_rng(0)
    for group in range(1, 231):
        for letter in range(1, T.n_letters[group] + 1):
            point = rng.random(3)
            R = T.projection[group, letter]
            xyz = (R[:, :3] @ point + R[:, 3]) % 1
            L = np.where(T.lattice_angle[group] > 0, T.lattice_angle[group], [5.1, 5.2, 5.3, 91, 92, 93])
            crystal = Crystal(group, [letter], [6], [xyz], L[T.lattice_source[group]])
            assert Crystal.from_string(str(crystal)) == crystal
