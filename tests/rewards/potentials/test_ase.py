"""Any ASE calculator: the same numbers here and in other processes, failures apart."""

import pickle

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from rewards.potentials.ase import ASEPotential


def metals(n):
    found = [bulk(symbol, cubic=True) for symbol in ("Cu", "Al", "Ni", "Au") for _ in range(n)]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.1, seed=seed)
    return found


def own(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)


@pytest.mark.parametrize("calculator", ["ase.calculators.emt:EMT", EMT, EMT()])
def test_energies_forces_and_stress_are_the_calculators(calculator):
    atoms = metals(1)
    found = ASEPotential(calculator, n_jobs=1).forces(atoms)
    for row, one in enumerate(atoms):
        energy, forces, stress = own(one)
        assert found.total[row] == pytest.approx(energy)
        np.testing.assert_allclose(found.forces[row], forces)
        np.testing.assert_allclose(found.stress[row], stress)
    assert ASEPotential(calculator).name == "EMT"


def test_several_processes_give_the_same_in_order():
    atoms = metals(4)
    atoms[5] = bulk("Fe")  # which effective medium theory does not know
    here, there = (ASEPotential("ase.calculators.emt:EMT", n_jobs=n).energies(atoms) for n in (1, 2))
    np.testing.assert_array_equal(here.total, there.total)
    assert np.flatnonzero(np.isnan(here.total)).tolist() == [5]
    assert "NotImplementedError" in here.failures[5]
    assert list(here.failures) == list(there.failures)


def test_a_calculator_is_made_once_and_with_its_arguments():
    made = []

    def factory(**kwargs):
        made.append(kwargs)
        return EMT(**kwargs)

    potential = ASEPotential(factory, {"asap_cutoff": True}, label="mine", scale="PBE", n_jobs=1)
    for _ in range(3):
        potential.energies(metals(1))
    assert made == [{"asap_cutoff": True}]
    assert (potential.name, potential.scale) == ("mine", "PBE")


def test_given_structures_stay_as_they_are_and_pickles_work():
    atoms = metals(1)
    potential = ASEPotential("ase.calculators.emt:EMT", n_jobs=1)
    expected = potential.energies(atoms).total
    assert all(one.calc is None for one in atoms)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(potential)).energies(atoms).total, expected)


@pytest.mark.parametrize("wrong", ["emt", ":EMT", 3])
def test_what_is_no_calculator_is_named(wrong):
    with pytest.raises(ValueError, match=r"^calculator must be"):
        ASEPotential(wrong)


@pytest.mark.parametrize("wrong", ["ase.calculators.emt:Nothing", "no_such_module:EMT"])
def test_a_name_that_cannot_be_imported_is_an_error_of_the_first_call(wrong):
    with pytest.raises(ValueError, match=rf"calculator '{wrong}' cannot be imported"):
        ASEPotential(wrong).energies(metals(1))
