import numpy as np
import pytest

from benchmarks.tasks.targets import BulkModulusTarget, DensityTarget, StiffAndStable
from crystal_env import Crystal, CrystalBatch
from rewards import BulkModulus, EnergyAboveHull
from rewards.density import densities

ROCK_SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
SHIFTED = "225-a-Cl-0-0-0-b-Na-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
OSMIUM = "194-c-Os-1/3-2/3-1/4-X-2.73-2.73-4.31-90-90-120"
SQUEEZED = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-2.5-2.5-2.5-90-90-90"


def crystals(*texts):
    return CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])


def test_density_counts_only_for_what_is_valid():
    batch = crystals(OSMIUM, ROCK_SALT, SQUEEZED)
    result = DensityTarget()(batch)
    expected = 1 - np.minimum(np.abs(densities(batch) - 18) / 10, 1)
    assert result.total[:2] == pytest.approx(expected[:2])
    assert densities(batch)[2] > 18
    assert result.total[2] == result.terms["success"][2] == 0
    assert result.failures[2] is not None


def test_bulk_modulus_and_two_objectives_have_their_parts():
    batch = crystals(ROCK_SALT, OSMIUM)
    modulus = BulkModulus(floor=0.0)(batch).terms["bulk_modulus"]
    energy = EnergyAboveHull()(batch).terms["e_above_hull"]
    assert BulkModulusTarget()(batch).total == pytest.approx(1 - np.minimum(np.abs(modulus - 300) / 250, 1))
    both = StiffAndStable()(batch)
    expected = np.minimum(modulus, 400) / 800 + (0.5 - np.clip(energy, 0, 0.5))
    assert both.total == pytest.approx(expected)
    assert both.terms["success"].tolist() == [0, 1]
