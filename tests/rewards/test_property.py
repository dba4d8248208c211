"""Properties of models: rewards by hand, and isolated failures."""

import pickle

import numpy as np
import pytest

from crystal_env.crystal import CrystalBatch
from rewards.dielectric import DielectricFoM
from rewards.property import BandGap, Property
from rewards.screen import Screen


def sizes(atoms):
    return np.array([float(len(a)) for a in atoms])


def without_iron(atoms):
    if any(26 in a.numbers for a in atoms):
        raise RuntimeError("no iron here")
    return sizes(atoms)


def test_a_property_is_what_the_model_says_of_the_primitive_cell(crystals):
    result = Property(sizes, name="atoms")(crystals)
    np.testing.assert_array_equal(result.total, [2, 5, 4, 11, 1])
    np.testing.assert_array_equal(result.terms["atoms"], [2, 5, 4, 11, 1])
    target = Property(sizes, "mse", target=4, tolerance=1)(crystals)
    np.testing.assert_array_equal(target.total, [-4, -1, 0, -10, -9])  # -49 without the floor
    np.testing.assert_array_equal(target.terms["success"], [0, 1, 1, 0, 0])


@pytest.mark.parametrize("broken", [without_iron, lambda atoms: np.where(sizes(atoms) == 1, np.nan, sizes(atoms))])
def test_a_crystal_that_breaks_the_model_gets_the_floor(crystals, broken):
    result = Property(broken, floor=-3)(crystals)
    np.testing.assert_array_equal(result.total, [2, 5, 4, 11, -3])
    assert [failure is None for failure in result.failures] == [True] * 4 + [False]
    assert result.terms["property"][4] == result.terms["success"][4] == 0


def test_screened_crystals_are_never_seen_and_equal_ones_once(crystals):
    seen = []

    def model(atoms):
        seen.extend(atoms)
        return sizes(atoms)

    twice = CrystalBatch.concatenate([crystals, crystals])
    result = Property(model, screen=Screen(max_atoms=5))(twice)
    assert len(seen) == 4
    assert "11 atoms" in result.failures[3]
    assert "11 atoms" in result.failures[8]
    np.testing.assert_array_equal(result.total[:5], result.total[5:])


def test_gaps_below_zero_count_as_zero(crystals):
    result = BandGap(lambda atoms: sizes(atoms) - 4.5, "mae", target=1.0)(crystals)
    np.testing.assert_allclose(result.terms["band_gap"], [0, 0.5, 0, 6.5, 0])
    np.testing.assert_allclose(result.total, [-1, -0.5, -1, -5.5, -1])


def test_published_gap_model_gives_the_known_gap_of_rock_salt(crystals, models_folder):
    pytest.importorskip("matgl")
    reward = BandGap(models_folder / "MEGNet-MP-2019.4.1-BandGap-mfi")
    result = pickle.loads(pickle.dumps(reward))(crystals[:1])
    assert result.total[0] == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("wrong", [3, None])
def test_what_is_no_model_is_named(wrong):
    for make in (Property, DielectricFoM):
        with pytest.raises(ValueError, match=rf"^model must be .*got {wrong}"):
            make(wrong)
    with pytest.raises(ValueError, match=r"^max_dielectric must be a finite number above 0, got 0"):
        DielectricFoM(sizes, sizes, max_dielectric=0)
