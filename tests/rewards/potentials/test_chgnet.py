import copy
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms

import rewards.potentials.chgnet
from rewards.potentials.chgnet import CHGNetPotential


@pytest.fixture
def potential():
    return CHGNetPotential()


@pytest.fixture
def exploding():
    """Two hundred atoms in one corner of a large cell."""
    positions = np.random.default_rng(0).random((200, 3)) * 3
    return Atoms("H200", positions=positions, cell=np.eye(3) * 20, pbc=True)


@pytest.fixture(scope="module")
def chgnets_own_energies():
    """A function from atoms to total energies, by CHGNet's own converter and prediction, one structure at a time."""
    from chgnet.model.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    model = CHGNet.load(use_device="cpu", verbose=False)
    model.graph_converter.set_isolated_atom_response("ignore")

    def energies(atoms):
        structures = [AseAtomsAdaptor.get_structure(a) for a in atoms]
        with warnings.catch_warnings():  # torch warns of a tensor with gradients made a number
            warnings.simplefilter("ignore", UserWarning)
            return np.array([float(model.predict_structure(s, task="e")["e"]) * len(s) for s in structures])

    return energies


def test_energies_are_those_of_chgnets_own_prediction_one_by_one(potential, mp20, chgnets_own_energies):
    atoms = mp20.to_atoms()
    energies = potential.energies(atoms)
    error = (energies.total - chgnets_own_energies(atoms)) / mp20.n_atoms(primitive=True)
    assert np.abs(error).max() < 1e-5
    assert list(energies.failures) == [None] * len(atoms)


def test_known_crystals_have_chgnets_energies(potential, crystals, chgnets_own_energies):
    atoms = crystals.to_atoms()
    np.testing.assert_allclose(potential.energies(atoms).total, chgnets_own_energies(atoms), atol=2e-4)


def test_isolated_atom_has_chgnets_energy(potential, chgnets_own_energies):
    atoms = [Atoms("Cu", cell=np.eye(3) * 20, pbc=True)]
    np.testing.assert_allclose(potential.energies(atoms).total, chgnets_own_energies(atoms), atol=1e-5)


def test_energy_does_not_depend_on_the_batch(potential, mp20):
    atoms = mp20[:15].to_atoms()
    together = potential.energies(atoms).total
    alone = np.array([potential.energies([a]).total[0] for a in atoms])
    small_batches = CHGNetPotential(max_edges=2000).energies(atoms).total
    sizes = np.array([len(a) for a in atoms])
    assert np.abs(together - alone).max() <= 1e-5 * sizes.max()
    assert (np.abs(together - small_batches) / sizes).max() <= 1e-5


def test_order_of_structures_is_kept(potential, mp20):
    atoms = mp20[:12].to_atoms()
    order = np.random.default_rng(0).permutation(12)
    shuffled = potential.energies([atoms[i] for i in order]).total
    np.testing.assert_allclose(shuffled, potential.energies(atoms).total[order], atol=1e-4)


def test_no_structures_give_no_energies(potential):
    energies = potential.energies([])
    assert energies.total.shape == energies.failures.shape == (0,)


def test_energy_is_that_of_the_given_cell(potential, crystals):
    primitive, conventional = crystals.to_atoms(primitive=True), crystals.to_atoms(primitive=False)
    for small, large in zip(primitive, conventional, strict=True):
        per_atom = [potential.energies([a]).total[0] / len(a) for a in (small, large)]
        assert per_atom[0] == pytest.approx(per_atom[1], abs=1e-4)


def test_structures_that_cannot_be_evaluated_get_a_reason(potential, crystals, exploding):
    good = crystals.to_atoms()
    flat = Atoms("Cu", cell=np.zeros((3, 3)), pbc=True)
    heavy = Atoms("Am", cell=np.eye(3) * 4, pbc=True)
    empty = Atoms(cell=np.eye(3) * 4, pbc=True)
    lost = Atoms("Cu", positions=[[np.nan, 0, 0]], cell=np.eye(3) * 4, pbc=True)
    energies = potential.energies([exploding, *good, flat, heavy, empty, lost])
    np.testing.assert_allclose(energies.total[1:6], potential.energies(good).total, atol=1e-4)
    assert list(energies.failures[1:6]) == [None] * 5
    bad = [0, 6, 7, 8, 9]
    assert np.isnan(energies.total[bad]).all()
    assert "too dense" in energies.failures[0]
    assert "LinAlgError" in energies.failures[6]
    assert "atomic number 95" in energies.failures[7]
    assert all(energies.failures[bad])


def test_model_that_raises_on_a_batch_runs_one_by_one(potential, crystals, monkeypatch):
    atoms = crystals.to_atoms()
    expected = potential.energies(atoms).total
    model = rewards.potentials.chgnet._load_model("cpu")

    class Fragile:
        def __call__(self, graphs, task):
            if any(26 in graph.atomic_number for graph in graphs):
                raise RuntimeError("out of memory")
            return model(graphs, task=task)

    monkeypatch.setattr(rewards.potentials.chgnet, "_load_model", lambda device: Fragile())
    energies = potential.energies(atoms)
    np.testing.assert_allclose(energies.total[:4], expected[:4], atol=1e-4)
    assert energies.failures[4] == "RuntimeError: out of memory"
    assert np.isnan(energies.total[4])


def test_model_that_gives_nan_is_a_failure(potential, crystals, monkeypatch):
    def broken(graphs, task):
        return {"e": torch.full((len(graphs),), torch.nan)}

    monkeypatch.setattr(rewards.potentials.chgnet, "_load_model", lambda device: broken)
    assert (
        list(potential.energies(crystals[:2].to_atoms()).failures) == ["the model gave a number that is not finite"] * 2
    )


def test_library_settings_and_random_states_are_unchanged(potential, crystals):
    atoms = crystals.to_atoms()
    rewards.potentials.chgnet._load_model.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads()  # noqa: NPY002
        energies = potential.energies(atoms).total
        assert torch.get_default_dtype() == torch.float64
        assert torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
        assert random.getstate() == states[2]
        assert torch.get_num_threads() == states[3]
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(energies, potential.energies(atoms).total, atol=1e-4)


def test_a_model_that_was_loaded_in_inference_mode_has_forces(potential, crystals):
    atoms = crystals[:2].to_atoms()
    rewards.potentials.chgnet._load_model.cache_clear()
    with torch.inference_mode():
        potential.energies(atoms)
    found = potential.forces(atoms)
    assert list(found.failures) == [None, None]
    with torch.inference_mode():
        inside = potential.forces(atoms)
    for ours, theirs in zip(inside.forces, found.forces, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_nothing_is_written_or_printed(potential, crystals, exploding, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    rewards.potentials.chgnet._load_model.cache_clear()
    potential.energies([exploding, *crystals.to_atoms()])
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_copies_and_pickles_are_small_and_equal(potential, crystals):
    atoms = crystals[:2].to_atoms()
    expected = potential.energies(atoms).total
    for other in (copy.deepcopy(potential), pickle.loads(pickle.dumps(potential))):
        np.testing.assert_array_equal(other.energies(atoms).total, expected)
    assert len(pickle.dumps(potential)) < 500


def test_forces_and_stress_are_chgnets_own(potential, crystals):
    from chgnet.model.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = crystals[:3].to_atoms()
    for seed, a in enumerate(atoms):
        a.rattle(0.05, seed=seed)
    found = potential.forces(atoms)
    model = CHGNet.load(use_device="cpu", verbose=False)
    for row, a in enumerate(atoms):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            own = model.predict_structure(AseAtomsAdaptor.get_structure(a), task="efs")
        np.testing.assert_allclose(found.forces[row], own["f"], atol=1e-4)
        np.testing.assert_allclose(found.stress[row] * 160.21766, own["s"], atol=1e-3)
    np.testing.assert_allclose(found.total, potential.energies(atoms).total, atol=1e-4)


def test_graphs_built_in_processes_give_the_same_energies(crystals, exploding):
    atoms = [exploding, *crystals.to_atoms()]
    here, there = CHGNetPotential().energies(atoms), CHGNetPotential(graph_workers=2).energies(atoms)
    np.testing.assert_allclose(there.total, here.total, atol=1e-4)
    assert list(there.failures) == list(here.failures)


def test_a_bar_is_shown_for_long_lists_on_request(crystals, capfd):
    iron = crystals[[4]].to_atoms() * 256
    CHGNetPotential(progress=True).energies(iron)
    assert "256/256" in capfd.readouterr().err
    CHGNetPotential(progress=True).energies(iron[:10])
    CHGNetPotential().energies(iron)
    assert capfd.readouterr() == ("", "")


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^max_edges must be an integer of at least 1, got 0"):
        CHGNetPotential(max_edges=0)
