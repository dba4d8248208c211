"""SevenNet with the weights of its wheel, against its own ASE calculator and published energies."""

import pickle

import numpy as np
import pytest
import torch

from rewards.potentials import load_potential
from rewards.potentials.sevennet import MODELS, SevenNetPotential, _check_weights, load_sevennet

pytest.importorskip("sevenn")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def atoms(crystals):
    found = crystals[:3].to_atoms()
    for seed, one in enumerate(found):
        one.rattle(0.05, seed=seed)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_results_are_those_of_the_calculator_of_sevenn(model, atoms):
    from sevenn.calculator import SevenNetCalculator

    potential = SevenNetPotential(model)
    energies, found = potential.energies(atoms), potential.forces(atoms)
    np.testing.assert_allclose(energies.total, found.total, atol=1e-5)
    calculator = SevenNetCalculator(f"7net-{model.removeprefix('sevennet-')}", device="cpu")
    for row, one in enumerate(atoms):
        one.calc = calculator
        assert found.total[row] == pytest.approx(one.get_potential_energy(), abs=1e-5 * len(one))
        np.testing.assert_allclose(found.forces[row], one.get_forces(), atol=1e-5)
        np.testing.assert_allclose(found.stress[row], one.get_stress(voigt=False), atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_energies_are_on_the_uncorrected_scale(model):
    from ase.build import bulk

    rock_salt = {"NaCl": (5.69, -3.39), "MgO": (4.26, -5.97)}  # Å, eV/atom: PBE of the Materials Project
    atoms = [bulk(name, "rocksalt", a) for name, (a, _) in rock_salt.items()]
    expected = [2 * energy for _, energy in rock_salt.values()]
    np.testing.assert_allclose(SevenNetPotential(model).energies(atoms).total, expected, atol=0.06)
    corrected = load_potential(f"{model}+MP2020").energies(atoms).total
    np.testing.assert_allclose(corrected - expected, [-0.614, -0.687], atol=0.06)  # of Cl and of O in an oxide


def test_loading_leaves_dtype_and_random_state_as_found(atoms):
    load_sevennet.cache_clear()
    before = torch.get_default_dtype(), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        energies = SevenNetPotential("sevennet-0").energies(atoms[:1])
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    np.testing.assert_allclose(SevenNetPotential("sevennet-0").energies(atoms[:1]).total, energies.total, atol=1e-6)


def test_atoms_far_apart_have_the_energy_of_isolated_atoms():
    from ase import Atoms

    far = [Atoms("Fe", cell=[a, a, a], pbc=True) for a in (20, 30)] + [Atoms("FeO", [[0] * 3, [10] * 3], cell=[20] * 3)]
    found = SevenNetPotential("sevennet-0").forces(far)
    assert list(found.failures) == [None] * 3
    assert found.total[0] == pytest.approx(found.total[1], abs=1e-6)
    assert np.all(found.stress == 0)
    assert all(np.all(force == 0) for force in found.forces)


def test_unknown_elements_and_names_say_what_is_known(atoms):
    alien = atoms[0].copy()
    alien.numbers[:] = 118
    found = pickle.loads(pickle.dumps(SevenNetPotential("sevennet-0"))).energies([alien, atoms[1]])
    assert "118" in found.failures[0]
    assert found.failures[1] is None
    for wrong, message in (
        ({"model": "7net-omni"}, "model"),
        ({"max_edges": 0}, "max"),
        ({"graph_workers": -1}, "gra"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            SevenNetPotential(**wrong)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"model_state_dict": Code()}, tmp_path / "code.pth")
    with pytest.raises(pickle.UnpicklingError):
        _check_weights(str(tmp_path / "code.pth"))
