"""Orb's real architecture with random weights, saved to a file and loaded back through its own loader."""

import pickle

import numpy as np
import pytest
import torch

from rewards.potentials.orb import OrbPotential, load_orb

pytest.importorskip("orb_models")
pytestmark = pytest.mark.filterwarnings("ignore")

MODELS = ("orb-v2", "orb-v3-conservative-20-mpa")


@pytest.fixture(params=MODELS)
def potential(request, orb_weights):
    return OrbPotential(request.param, weights=orb_weights / f"{request.param}.ckpt")


@pytest.fixture
def atoms(crystals):
    found = crystals[:3].to_atoms()
    for seed, one in enumerate(found):
        one.rattle(0.05, seed=seed)
    return found


def test_results_are_those_of_the_calculator_of_orb(potential, atoms):
    from orb_models.forcefield.calculator import ORBCalculator

    energies, found = potential.energies(atoms), potential.forces(atoms)
    np.testing.assert_allclose(energies.total, found.total, rtol=1e-5)
    calculator = ORBCalculator(
        load_orb(potential.model, str(potential.weights), "cpu", potential.precision), device="cpu"
    )
    for row, one in enumerate(atoms):
        one.calc = calculator
        assert found.total[row] == pytest.approx(one.get_potential_energy(), rel=1e-5)
        np.testing.assert_allclose(found.forces[row], one.get_forces(), atol=1e-4)
        np.testing.assert_allclose(found.stress[row], one.get_stress(voigt=False), atol=1e-4)


def test_loading_leaves_dtype_precision_and_random_state_as_found(orb_weights, atoms):
    load_orb.cache_clear()
    before = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    OrbPotential("orb-v2", weights=orb_weights / "orb-v2.ckpt", precision="float64").energies(atoms[:1])
    assert (torch.get_default_dtype(), torch.get_float32_matmul_precision()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_pickles_are_small_and_structures_that_fail_harm_no_other(orb_weights, atoms):
    potential = pickle.loads(pickle.dumps(OrbPotential("orb-v2", weights=orb_weights / "orb-v2.ckpt")))
    broken = atoms[0].copy()
    broken.positions[0] = np.nan
    found = potential.energies([broken, atoms[1]])
    assert np.isnan(found.total[0])
    assert "finite" in found.failures[0]
    assert found.failures[1] is None
    assert len(pickle.dumps(potential)) < 700


def test_wrong_files_and_names_say_what_they_are_not(orb_weights, atoms, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    with pytest.raises(ValueError, match=r"notes.txt does not hold the weights of orb-v2"):
        OrbPotential("orb-v2", weights=text).energies(atoms)
    with pytest.raises(ValueError, match=r"20-mpa.ckpt does not hold the weights of orb-v2"):
        OrbPotential("orb-v2", weights=orb_weights / "orb-v3-conservative-20-mpa.ckpt").energies(atoms)
    with pytest.raises(FileNotFoundError, match=r"weights: there is no file .*gone.ckpt"):
        OrbPotential("orb-v2", weights=tmp_path / "gone.ckpt").energies(atoms)
    with pytest.raises(ValueError, match=r"model must be one of .*orb-v2.*got 'orb-v9'"):
        OrbPotential("orb-v9").energies(atoms)
    for wrong, message in (({"model": "v2"}, "model"), ({"precision": "half"}, "precision"), ({"max_edges": 0}, "max")):
        with pytest.raises(ValueError, match=f"^{message}"):
            OrbPotential(**wrong)


def test_weights_that_cannot_be_fetched_name_the_url_and_the_argument(atoms, monkeypatch):
    import requests
    from orb_models.forcefield import pretrained

    def offline(url, **_):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(pretrained, "cached_path", offline)
    with pytest.raises(FileNotFoundError, match=r"orb-v2 could not be fetched from https://.*\.ckpt.*path as weights"):
        OrbPotential("orb-v2").energies(atoms)
