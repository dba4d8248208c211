"""Structures outside the representation have the properties of the crystals that they are supercells of."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks import evaluate
from benchmarks.metrics.properties import properties, sample_energies
from benchmarks.metrics.sample import evaluate_sample
from benchmarks.metrics.structures import energies_above_hull, space_group, structurally_valid, text_of
from benchmarks.samples.samples import Outside, Samples
from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import RewardResult
from rewards import EnergyAboveHull, Validity

TEXTS = [
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90",
    "221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.9-3.9-3.9-90-90-90",
    "225-a-Na-0-0-0-b-O-1/2-1/2-1/2-X-4.8-4.8-4.8-90-90-90",  # its charges do not add up
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-0.9-0.9-0.9-90-90-90",  # atoms are too close
    "221-a-Po-0-0-0-X-0.47-0.47-0.47-90-90-90",  # an atom is too close to its own image
]
CRYSTALS = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])


@pytest.fixture(scope="module")
def supercells():
    structures = CRYSTALS.to_structures()
    for structure in structures:
        structure.make_supercell([2, 1, 1])
    return structures


def outside(structures):
    return Samples.from_items([Outside(structure, "too many sites") for structure in structures])


def test_properties_are_those_of_the_crystals(supercells):
    energy, samples = EnergyAboveHull(), outside(supercells)
    terms = Validity()(CRYSTALS).terms
    found = properties(samples, energy)
    assert found.structurally_valid.tolist() == (terms["structural"] > 0).tolist()
    assert found.compositionally_valid.tolist() == (terms["compositional"] > 0).tolist()
    assert found.detected_group.tolist()[:3] == [225, 221, 225]
    scores, energies = energy(CRYSTALS), found.e_above_hull
    assert np.isfinite(energies).tolist() == scores.scored.tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(energies[:3], scores.terms["e_above_hull"][:3], atol=1e-4)


def test_atoms_stay_where_they_are():
    """The primitive cell of a distorted supercell, within a tolerance, would be a better crystal than this one."""
    distorted = CRYSTALS[0].to_structure()
    distorted.make_supercell([2, 2, 1])
    distorted.perturb(0.1)
    energy = EnergyAboveHull()
    expected = energy.potential.energies([distorted.to_ase_atoms(msonable=False)]).total[0] / len(distorted)
    perfect = energy(CRYSTALS[:1]).terms
    known = perfect["energy_per_atom"][0] - perfect["e_above_hull"][0]
    assert energies_above_hull([distorted], energy)[0] == pytest.approx(expected - known, abs=1e-4)
    assert expected > perfect["energy_per_atom"][0] + 1e-3


def test_an_energy_too_deep_to_accept_is_none(supercells):
    deepest = EnergyAboveHull(max_depth=1e-6)
    energies = energies_above_hull(supercells[:2], EnergyAboveHull())
    expected = np.where(energies < -1e-6, np.nan, energies)
    np.testing.assert_array_equal(energies_above_hull(supercells[:2], deepest), expected)


def test_without_a_potential_there_is_no_energy(supercells):
    assert np.isnan(sample_energies(outside(supercells[:1]), lambda crystals: np.zeros(len(crystals)))).all()
    assert np.isnan(sample_energies(outside(supercells[:1]), None)).all()
    assert [values.shape for values in properties(outside([]), None)] == [(0,)] * 4


def test_hopeless_cells_are_refused_at_once():
    flat = Structure(Lattice.from_parameters(60, 60, 60, 0.06, 0.06, 0.06), ["Fe"], [[0, 0, 0]])
    assert not structurally_valid(flat)
    assert space_group(flat) == 0


def test_the_text_depends_on_numbers_only(supercells):
    again = Structure(supercells[0].lattice, supercells[0].species, supercells[0].frac_coords)
    assert text_of(again) == text_of(supercells[0])
    assert len({text_of(structure) for structure in supercells}) == len(supercells)


def test_a_structure_outside_is_a_duplicate_of_its_crystal(supercells):
    def energy(crystals):
        energies = np.arange(len(crystals), dtype=float)
        return RewardResult(-energies, {"e_above_hull": energies}, np.full(len(crystals), None, object))

    mixed = Samples.from_items([Outside(supercells[0], ""), CRYSTALS[0], Outside(supercells[1], ""), CRYSTALS[1]])
    metrics = evaluate_sample(mixed, CRYSTALS[1:2], energy)
    assert metrics.label.tolist() == [1, 1, 3, 3]
    assert metrics.novel.tolist() == [True, True, False, False]
    assert metrics.space_group.tolist() == [225, 225, 221, 221]


def test_a_generator_is_not_blamed_for_the_representation():
    many = CRYSTALS[0].to_structure()
    many.make_supercell([2, 2, 1])
    many.perturb(0.02)
    summary = evaluate([many, CRYSTALS[0]], reference=CRYSTALS[1:2], n_jobs=1).summary
    counts = {name: entry["count"] for name, entry in summary["rates"].items()}
    assert counts["valid"] == counts["stable_0.1"] == counts["novel"] == 2
    assert counts["sun_0.1"] == 1
    assert list(summary["outside_representation"]) == ["row 0"]
    assert not summary["failures"]
