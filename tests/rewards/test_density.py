"""Densities against pymatgen's, and the reward that is made of them."""

import numpy as np
import pytest

from crystal_env import Crystal, CrystalBatch
from rewards import Density

SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-{0}-{0}-{0}-90-90-90"
CORUNDUM = "167-c-Al-0-0-0.352-e-O-0.306-0-1/4-X-4.76-4.76-12.99-90-90-120"
HOT = "225-a-La-0-0-0-c-H-1/4-1/4-1/4-f-H-0.375-0.375-0.375-X-5.1-5.1-5.1-90-90-90"


def batch(*strings):
    return CrystalBatch.from_crystals([Crystal.from_string(string) for string in strings])


def test_densities_are_pymatgens():
    crystals = batch(SALT.format(5.64), CORUNDUM, HOT)
    expected = [structure.density for structure in crystals.to_structures()]
    np.testing.assert_allclose(Density()(crystals).terms["density"], expected, rtol=1e-6)


def test_reward_is_minus_the_distance_to_the_target():
    crystals = batch(SALT.format(5.64), SALT.format(6.5), CORUNDUM)
    result = Density(target=2.2, tolerance=0.1, clip=1.5)(crystals)
    away = np.abs(result.terms["density"] - 2.2)
    np.testing.assert_allclose(result.total, -np.minimum(away, 1.5))
    assert away[2] > 1.5
    np.testing.assert_array_equal(result.success(), away <= 0.1)
    assert result.success().tolist() == [True, False, False]


def test_atoms_on_top_of_each_other_are_no_way_to_a_high_density():
    result = Density(target=20.0, clip=5.0)(batch(SALT.format(0.8), SALT.format(5.64)))
    assert result.total.tolist() == [-5.0, -5.0]
    assert result.failures[0] is not None
    assert result.failures[1] is None


@pytest.mark.parametrize("name", ["target", "tolerance", "clip"])
def test_numbers_have_to_be_positive(name):
    with pytest.raises(ValueError, match=name):
        Density(**{name: 0.0})
