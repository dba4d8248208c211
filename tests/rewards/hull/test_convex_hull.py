import copy
import itertools
import pickle

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

import rewards.hull.convex_hull
from benchmarks.speed.hull import as_pymatgen, published_e_above_hull, random_crystals, synthetic_entries
from crystal_env.elements import ATOMIC_NUMBER
from rewards.hull.convex_hull import ConvexHull, Provenance

SYSTEM = ("Li", "Fe", "Mn", "P", "O", "F")


@pytest.fixture(scope="module")
def entries():
    """Random compounds of six elements, several of a formula and some above the hull."""
    rng = np.random.default_rng(0)
    made = [PDEntry(Composition(symbol), float(rng.normal(-4, 1))) for symbol in SYSTEM]
    for _ in range(150):
        chosen = rng.choice(len(SYSTEM), rng.integers(1, 5), replace=False)
        composition = Composition({SYSTEM[i]: int(rng.integers(1, 5)) for i in chosen})
        made.append(PDEntry(composition, float(composition.num_atoms * rng.normal(-4.5, 0.8))))
    return made


@pytest.fixture(scope="module")
def hull(entries):
    return ConvexHull.from_entries(entries)


@pytest.fixture(scope="module")
def queries():
    """Fifty random compositions of one to six elements with energies."""
    rng = np.random.default_rng(1)
    made = []
    for k in range(50):
        chosen = rng.choice(len(SYSTEM), 1 + k % 6, replace=False)
        composition = Composition({SYSTEM[i]: int(rng.integers(1, 9)) for i in chosen})
        made.append(PDEntry(composition, float(composition.num_atoms * rng.normal(-4.5, 0.8))))
    return made


def pymatgen_energies(entries, queries):
    diagram = PhaseDiagram(entries)
    return [diagram.get_e_above_hull(query, allow_negative=True) for query in queries]


def test_energies_above_the_hull_are_pymatgens(entries, hull, queries):
    energies = hull.e_above_hull([q.composition for q in queries], [q.energy for q in queries])
    np.testing.assert_allclose(energies, pymatgen_energies(entries, queries), atol=1e-8)


def test_energies_above_a_large_hull_are_pymatgens():
    known = synthetic_entries(3000, n_systems=200, n_elements=12, seed=1)
    queries = random_crystals(known, 300, seed=1)
    objects = as_pymatgen(known)
    expected = [published_e_above_hull(objects, query) for query in as_pymatgen(queries)]
    assert min(expected) < 0 < max(expected)
    np.testing.assert_allclose(ConvexHull(*known).e_above_hull(*queries), expected, atol=1e-6)


def test_energies_do_not_depend_on_the_size_of_chunks(hull, queries, monkeypatch):
    compositions = [q.composition for q in queries]
    expected = hull.hull_energy(compositions)
    monkeypatch.setattr(rewards.hull.convex_hull, "_CHUNK", 1)
    np.testing.assert_allclose(hull.hull_energy(compositions), expected, atol=1e-12)


def test_systems_of_many_elements_find_the_same_compounds(hull, queries, monkeypatch):
    compositions = [q.composition for q in queries]
    expected = hull.hull_energy(compositions)
    monkeypatch.setattr(rewards.hull.convex_hull, "_MAX_SUBSET_ELEMENTS", 0)
    np.testing.assert_allclose(hull.hull_energy(compositions), expected, atol=1e-9)


def test_shipped_hull_agrees_with_pymatgen_in_a_real_chemical_system():
    hull = ConvexHull.load("mp20-chgnet")
    allowed = [ATOMIC_NUMBER[symbol] for symbol in SYSTEM]
    inside = np.delete(hull.compositions, allowed, axis=1).sum(1) == 0
    entries = [
        PDEntry(Composition({symbol: int(row[ATOMIC_NUMBER[symbol]]) for symbol in SYSTEM}), energy * row.sum())
        for row, energy in zip(hull.compositions[inside], hull.energies[inside], strict=True)
    ]
    rng = np.random.default_rng(2)
    queries = []
    for k in range(1, 7):
        for chosen in list(itertools.combinations(SYSTEM, k))[:8]:
            composition = Composition({symbol: int(rng.integers(1, 6)) for symbol in chosen})
            queries.append(PDEntry(composition, composition.num_atoms * -5.0))
    energies = hull.e_above_hull([q.composition for q in queries], [q.energy for q in queries])
    np.testing.assert_allclose(energies, pymatgen_energies(entries, queries), atol=1e-6)


def test_energies_of_hull_phases_are_zero_and_below_negative():
    hull = ConvexHull.from_entries([("Na", 0.0), ("Cl", 0.0), ("NaCl", -2.0), ("Na3Cl3", -3.0), ("NaCl3", -0.4)])
    energies = hull.e_above_hull(["Na2Cl2", "Na", "NaCl", "NaCl3", "Na3Cl"], [-4.0, 0.0, -2.4, -0.4, 0.0])
    np.testing.assert_allclose(energies, [0, 0, -0.2, 0.4, 0.5], atol=1e-12)


def test_energies_scale_with_atoms_in_any_order(hull, queries):
    compositions, energies = [q.composition for q in queries], np.array([q.energy for q in queries])
    expected = hull.e_above_hull(compositions, energies)
    doubled = hull.e_above_hull([c * 2 for c in compositions], energies * 2)
    np.testing.assert_allclose(doubled, expected, atol=1e-9)
    order = np.random.default_rng(0).permutation(len(queries))
    shuffled = hull.e_above_hull([compositions[i] for i in order], energies[order])
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-9)


def test_lowest_entry_of_a_formula_counts():
    hull = ConvexHull.from_entries([("Fe2", -16.0), ("Fe", -8.5), ("Fe4", -30.0)])
    assert len(hull) == 1
    assert hull.hull_energy(["Fe3"]).tolist() == [-8.5]


def test_unknown_elements_give_nan_and_are_named():
    hull = ConvexHull.from_entries([("Na", 0.0), ("Cl", 0.0), ("KCl", -2.0)])
    assert np.isnan(hull.e_above_hull(["KCl", "Na", "XeF2"], [-2.0, 0.0, 0.0])).tolist() == [True, False, True]
    assert hull.missing_elements(["KCl", "Na", "XeF2"]) == [["K"], [], ["F", "Xe"]]
    assert hull.elements() == [11, 17]


def test_nan_energy_stays_nan():
    hull = ConvexHull.from_entries([("Na", 0.0)])
    assert np.isnan(hull.e_above_hull(["Na"], [np.nan]))


def test_no_compositions_give_no_energies(hull):
    assert hull.e_above_hull([], []).shape == (0,)
    assert hull.missing_elements([]) == []


def test_saved_hull_is_loaded_with_its_provenance(hull, queries, tmp_path):
    provenance = Provenance("model", "none", "random", 156, "2026-01-01", {})
    original = ConvexHull(hull.compositions, hull.energies * hull.compositions.sum(1), provenance)
    original.save(tmp_path / "hull.npz")
    loaded = ConvexHull.load(tmp_path / "hull.npz")
    assert loaded.provenance == provenance
    assert loaded.formulas() == original.formulas()
    compositions = [q.composition for q in queries]
    np.testing.assert_allclose(loaded.hull_energy(compositions), hull.hull_energy(compositions), atol=2e-6)


def test_copies_and_pickles_give_the_same_energies(hull, queries):
    compositions = [q.composition for q in queries]
    for other in (copy.deepcopy(hull), pickle.loads(pickle.dumps(hull))):
        np.testing.assert_array_equal(other.hull_energy(compositions), hull.hull_energy(compositions))


def test_hull_of_structures_holds_the_energies_of_the_potential(crystals, pair_potential, monkeypatch, tmp_path):
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path))
    pair_potential.scale = "pairs"
    hull = ConvexHull.from_structures(crystals.to_structures(), pair_potential, reference_set="five", date="today")
    assert (hull.provenance.energy_model, hull.provenance.scale) == ("pair", "pairs")
    assert hull.provenance.n_structures == 5
    expected = 0.01 * crystals.volume_per_atom() - 1
    fe = hull.hull_energy(["Fe"])
    assert fe == pytest.approx(expected[4])
    assert sorted(hull.energies) == pytest.approx(sorted(expected))
    hull.check_scale(pair_potential)


def hull_of(energy_model, scale):
    return ConvexHull.from_entries([("Na", 0.0)], Provenance(energy_model, scale=scale))


@pytest.mark.parametrize(
    ("energy_model", "hull_scale", "name", "scale"),
    [
        ("chgnet-0.3.0", "MP2020", "chgnet-0.3.0", "MP2020"),
        ("orb-v2", "PBE", "orb-v2", "PBE"),
        ("own", "", "own", "own"),
        ("DFT", "MP2020", "chgnet-0.3.0", "MP2020"),
        ("DFT", "MP2020", "orb-v2+MP2020", "MP2020"),
        ("DFT", "PBE", "orb-v2", "PBE"),
        ("DFT", "r2SCAN", "other", "r2SCAN"),
    ],
)
def test_hulls_of_own_energies_or_the_same_scale_are_accepted(energy_model, hull_scale, name, scale, pair_potential):
    pair_potential.name, pair_potential.scale = name, scale
    hull_of(energy_model, hull_scale).check_scale(pair_potential)


@pytest.mark.parametrize(
    ("energy_model", "hull_scale", "name", "scale", "message"),
    [
        ("DFT", "MP2020", "orb-v2", "PBE", r"'DFT' on the scale 'MP2020'.*'orb-v2' has.*'PBE'; use .*'orb-v2\+MP2020'"),
        ("DFT", "PBE", "chgnet-0.3.0", "MP2020", "hull of its own energies"),
        ("DFT", "", "nameless", "", "hull of its own energies"),
        ("chgnet-0.3.0", "MP2020", "orb-v2+MP2020", "MP2020", "holds energies of 'chgnet-0.3.0'"),
        ("orb-v2", "PBE", "orb-v2+MP2020", "MP2020", "hull of its own energies"),
        ("", "", "orb-v2", "PBE", "holds energies of ''"),
    ],
)
def test_every_other_pair_of_hull_and_potential_is_a_value_error(
    energy_model, hull_scale, name, scale, message, pair_potential
):
    pair_potential.name, pair_potential.scale = name, scale
    with pytest.raises(ValueError, match=message):
        hull_of(energy_model, hull_scale).check_scale(pair_potential)


def test_dicts_are_compositions_too():
    hull = ConvexHull.from_entries([({"Na": 2.0}, 0.0), ({"Cl": 1}, 0.0), ({"Na": 1, "Cl": 1}, -2.0)])
    assert hull.hull_energy([{"Na": 1, "Cl": 1}]) == pytest.approx([-1.0])


@pytest.mark.parametrize(
    ("compositions", "energies", "message"),
    [
        (np.ones((2, 4)), np.zeros(2), r"shape \(N, 119\)"),
        (np.ones((2, 119)), np.zeros(3), r"energies \(N,\)"),
        (np.full((1, 119), 0.5), np.zeros(1), "whole numbers"),
        (np.zeros((1, 119)), np.zeros(1), "at least one"),
        (np.ones((1, 119)), np.array([np.inf]), "finite, got inf"),
    ],
)
def test_wrong_entries_are_value_errors(compositions, energies, message):
    with pytest.raises(ValueError, match=message):
        ConvexHull(compositions, energies)


def test_wrong_number_of_energies_is_a_value_error(hull):
    with pytest.raises(ValueError, match=r"shape \(1,\), got \(2,\)"):
        hull.e_above_hull(["LiF"], [0.0, 1.0])
