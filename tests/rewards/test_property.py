"""Properties of models and the figure of merit: formulas by hand, and failures that stay alone."""

import pickle

import numpy as np
import pytest

from crystal_env.crystal import CrystalBatch
from rewards.dielectric import DielectricFoM, dielectric_constant
from rewards.predict import predict
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


def test_a_model_that_gives_too_few_numbers_runs_one_by_one(crystals):
    values, failures = predict(lambda atoms: sizes(atoms)[:1], crystals, Screen())
    np.testing.assert_array_equal(values[:, 0], [2, 5, 4, 11, 1])
    assert list(failures) == [None] * 5


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


def test_figure_of_merit_is_gap_times_dielectric_constant(crystals):
    reward = DielectricFoM(lambda atoms: 10 * sizes(atoms), lambda atoms: sizes(atoms) - 3, threshold=100)
    result = reward(crystals)
    np.testing.assert_allclose(result.terms["band_gap"], [0, 2, 1, 8, 0])
    np.testing.assert_allclose(result.terms["dielectric_constant"], [20, 50, 40, 110, 10])
    np.testing.assert_allclose(result.total, [0, 100, 40, 880, 0])
    np.testing.assert_array_equal(result.terms["success"], [0, 1, 0, 1, 0])
    accepted = DielectricFoM(lambda atoms: 10 * sizes(atoms), lambda atoms: sizes(atoms) - 3, max_dielectric=100)
    result = accepted(crystals)
    np.testing.assert_allclose(result.total, [0, 100, 40, 0, 0])
    assert result.failures[3] == "dielectric constant 110, accepted are up to 100"
    assert result.terms["band_gap"][3] == 0


def test_six_components_are_a_tensor_whose_mean_eigenvalue_counts():
    components = np.random.default_rng(0).normal(size=(20, 6)) * 10
    xx, yy, zz, yz, xz, xy = components.T
    tensors = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]).transpose(2, 0, 1)
    expected = [np.linalg.eigvals(tensor).real.mean() for tensor in tensors]
    np.testing.assert_allclose(dielectric_constant(components), expected, atol=1e-9)
    np.testing.assert_allclose(dielectric_constant(components), (xx + yy + zz) / 3, atol=1e-9)  # the trace
    with pytest.raises(ValueError, match="1 or 6 numbers a crystal, got 3"):
        dielectric_constant(components[:, :3])


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
