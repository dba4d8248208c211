import dataclasses

import numpy as np
import pytest
from ase.calculators.emt import EMT

from crystal_env.crystal import Crystal, CrystalBatch
from rewards.force_stress import ForceStress
from rewards.potentials.ase import ASEPotential

GOLD = Crystal.from_string("221-a-Au-0-0-0-c-Cu-0-1/2-1/2-X-3.8-3.8-3.8-90-90-90")
LOOSE = Crystal.from_string("99-a-Au-0-0-0-b-Cu-1/2-1/2-0.35-X-3-3-4-90-90-90")


def test_total_is_minus_the_logarithm_of_mean_force_and_mean_stress():
    result = ForceStress(ASEPotential(EMT, n_jobs=1))(CrystalBatch.from_crystals([GOLD, LOOSE]))
    for row, crystal in enumerate((GOLD, LOOSE)):
        atoms = crystal.to_atoms()
        atoms.calc = EMT()
        force = np.clip(np.linalg.norm(atoms.get_forces(), axis=1).mean(), 0.01, 100)
        stress = np.clip(np.abs(np.linalg.eigvals(atoms.get_stress(voigt=False))).mean(), 0.01, 100)
        assert result.total[row] == pytest.approx(-np.log(force + stress))
        assert result.terms["force"][row] == pytest.approx(force)
    assert result.terms["success"].tolist() == [1, 0]
    assert result.total[0] > result.total[1]


def test_failures_get_the_lowest_reward_and_stay_alone():
    iron = dataclasses.replace(GOLD, A=np.array([26, 26]))
    result = ForceStress(ASEPotential(EMT, n_jobs=1))(CrystalBatch.from_crystals([iron, GOLD]))
    assert result.total[0] == pytest.approx(-np.log(200))
    assert "NotImplementedError" in result.failures[0]
    assert result.failures[1] is None


def test_a_potential_without_forces_is_refused(pair_potential):
    with pytest.raises(ValueError, match="must have forces and stress, pair has not"):
        ForceStress(pair_potential)
    with pytest.raises(ValueError, match=r"^threshold must be a finite number above 0, got"):
        ForceStress(threshold=0)
