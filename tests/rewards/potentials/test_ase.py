"""Any ASE calculator: the same numbers here and in other processes, failures apart."""

import os
import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from joblib import Parallel, delayed

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


class Detector(EMT):
    """Effective medium theory that raises where a second thread or process uses it."""

    users = None

    def calculate(self, *args, **kwargs):
        me = (os.getpid(), threading.get_ident())
        self.users = self.users or me
        if self.users != me:
            raise RuntimeError(f"a calculator of {self.users} was used by {me}")
        super().calculate(*args, **kwargs)


def in_threads(potential, atoms, n=4):
    """Return the results of n threads that all compute the same at the same time."""
    start = threading.Barrier(n)

    def work(_):
        start.wait()
        return potential.energies(atoms)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(work, range(n)))


@pytest.mark.parametrize("calculator", [Detector, Detector()], ids=["class", "object"])
def test_a_calculator_belongs_to_one_thread(calculator):
    atoms = metals(1)
    expected = [own(one)[0] for one in atoms]
    for found in in_threads(ASEPotential(calculator, n_jobs=1), atoms):
        assert list(found.failures) == [None] * 4
        np.testing.assert_allclose(found.total, expected, rtol=1e-10)


def test_workers_of_joblib_share_no_calculator():
    atoms = metals(3)
    expected = [own(one)[0] for one in atoms]
    for n_jobs in (2, None):
        jobs = [delayed(ASEPotential(Detector, n_jobs=n_jobs).energies)(atoms) for _ in range(2)]
        for backend in ("loky", "threading"):
            for found in Parallel(n_jobs=2, backend=backend)(jobs):
                assert list(found.failures) == [None] * len(atoms)
                np.testing.assert_allclose(found.total, expected, rtol=1e-10)


def test_two_potentials_of_one_object_in_two_threads_share_it_not():
    calculator, atoms = Detector(), metals(1)
    assert list(ASEPotential(calculator, n_jobs=1).energies(atoms).failures) == [None] * 4
    for found in in_threads(ASEPotential(calculator, n_jobs=1), atoms, n=2):
        assert list(found.failures) == [None] * 4


def test_an_object_that_cannot_be_copied_stays_with_its_thread():
    calculator = EMT()
    calculator.lock = threading.Lock()
    potential = ASEPotential(calculator, n_jobs=1)
    assert np.isfinite(potential.energies(metals(1)).total).all()
    with pytest.raises(ValueError, match="calculator EMT belongs to another thread and cannot be copied"):
        in_threads(potential, metals(1), n=1)


def test_a_forked_process_has_a_calculator_of_its_own():
    potential = ASEPotential(Detector(), n_jobs=1)
    potential.energies(metals(1))
    read, write = os.pipe()
    child = os.fork()
    if not child:
        failures = potential.energies(metals(1)).failures
        os.write(write, b"shared" if any(failures) else b"own")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"own"


def test_a_worker_makes_its_calculator_once(tmp_path):
    def factory():
        (tmp_path / uuid.uuid4().hex).touch()
        return EMT()

    potential = ASEPotential(factory, n_jobs=2)
    for _ in range(2):
        assert np.isfinite(potential.energies(metals(8)).total).all()
    assert len(list(tmp_path.iterdir())) <= 2
