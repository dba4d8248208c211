"""Results of potentials, and names of models with weights from a file."""

import hashlib

import numpy as np
import pytest
from ase.build import bulk

from rewards.potentials import ForceField, Potential
from rewards.potentials.ase import ASEPotential
from rewards.potentials.interface import as_energies, as_forces, name_of_file


def test_what_failed_is_not_a_number():
    failures = np.array([None, "broken"], object)
    energies = as_energies([-3.5, None], failures)
    np.testing.assert_array_equal(energies.total, [-3.5, np.nan])
    atoms = [bulk("Cu"), bulk("NaCl", "rocksalt", 5.6)]
    forces = as_forces(atoms, [(-3.5, np.ones((1, 3)), np.eye(3)), None], failures)
    np.testing.assert_array_equal(forces.total, [-3.5, np.nan])
    assert [force.shape for force in forces.forces] == [(1, 3), (2, 3)]
    assert np.isnan(forces.forces[1]).all()
    assert np.isnan(forces.stress[1]).all()
    np.testing.assert_array_equal(forces.stress[0], np.eye(3))
    assert as_energies([], failures[:0]).total.shape == (0,)


def test_a_name_changes_with_the_content_of_its_file(tmp_path):
    path = tmp_path / "weights.pt"
    assert name_of_file("model", path) == "model"
    for content in (b"one", b"another"):
        path.write_bytes(content)
        assert name_of_file("model", path) == f"model@{hashlib.sha256(content).hexdigest()[:8]}"


def test_a_force_field_is_a_potential_with_forces(pair_potential):
    assert isinstance(pair_potential, Potential)
    assert not isinstance(pair_potential, ForceField)
    assert isinstance(ASEPotential("ase.calculators.emt:EMT"), ForceField)


@pytest.mark.parametrize("n_jobs", [0, -1, 1.5])
def test_processes_are_a_positive_number(n_jobs):
    with pytest.raises(ValueError, match="n_jobs must be an integer of at least 1"):
        ASEPotential("ase.calculators.emt:EMT", n_jobs=n_jobs)
