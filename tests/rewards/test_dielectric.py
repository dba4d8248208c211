"""The figure of merit of dielectrics, by hand."""

import numpy as np
import pytest

from rewards.dielectric import DielectricFoM, dielectric_constant


def sizes(atoms):
    return np.array([float(len(a)) for a in atoms])


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
