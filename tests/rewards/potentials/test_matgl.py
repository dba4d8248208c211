"""matgl's models, batched as one by one."""

import pickle

import numpy as np
import pytest
import torch
from ase import Atoms

from rewards.potentials.matgl import MatglPotential, MatglProperty
from rewards.potentials.matgl_files import load_matgl

pytest.importorskip("matgl")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def atoms(crystals):
    found = crystals[:4].to_atoms()
    for seed, one in enumerate(found):
        one.rattle(0.05, seed=seed)
    return found


def test_results_are_those_of_the_calculator_of_matgl(random_models, atoms):
    from matgl.ext.ase import PESCalculator

    found = MatglPotential(random_models / "pes").forces(atoms)
    calculator = PESCalculator(load_matgl(random_models / "pes"), stress_unit="eV/A3")
    for row, one in enumerate(atoms):
        one.calc = calculator
        assert found.total[row] == pytest.approx(one.get_potential_energy(), abs=1e-3)
        np.testing.assert_allclose(found.forces[row], one.get_forces(), atol=1e-4)
        np.testing.assert_allclose(found.stress[row], one.get_stress(voigt=False), atol=1e-4)


def test_property_models_are_matgls_own_prediction_one_by_one(random_models, crystals):
    model, atoms = load_matgl(random_models / "six"), crystals[:4].to_atoms()
    values, failures = MatglProperty(random_models / "six")(atoms)
    assert values.shape == (4, 6)
    assert list(failures) == [None] * 4
    for row, structure in enumerate(crystals[:4].to_structures(primitive=True)):
        np.testing.assert_allclose(values[row], model.predict_structure(structure).numpy(), atol=1e-4)


def test_structures_that_fail_harm_no_other_and_pickles_are_small(random_models, atoms):
    potential = pickle.loads(pickle.dumps(MatglPotential(random_models / "pes")))
    lonely, strange = Atoms("Cu", cell=np.eye(3) * 20, pbc=True), Atoms("Og", cell=np.eye(3) * 3, pbc=True)
    found = potential.energies([lonely, *atoms, strange])
    np.testing.assert_allclose(found.total[1:5], potential.energies(atoms).total, atol=1e-4)
    assert "no two atoms are within 5 Å" in found.failures[0]
    assert "does not know Og" in found.failures[5]
    assert len(pickle.dumps(potential)) < 700


def test_models_in_folders_of_one_name_have_different_names(random_models, tmp_path):
    import shutil

    one, other = tmp_path / "a" / "model", tmp_path / "b" / "model"
    for folder in (one, other):
        shutil.copytree(random_models / "pes", folder)
    assert MatglPotential(one).name == MatglPotential(other).name
    state = torch.load(other / "state.pt", weights_only=True)
    torch.save({name: value * 1.01 for name, value in state.items()}, other / "state.pt")
    assert MatglPotential(one).name != MatglPotential(other).name
    assert MatglPotential(one).name.startswith("model@")
