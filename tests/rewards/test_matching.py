"""Structures against the plain double loop over pymatgen's matcher, and known answers."""

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from crystal_env import Crystal, CrystalBatch
from rewards import matching
from rewards.matching import Reference, is_novel, reduced_cell, rows_by_formula, same, same_reduced, structure_labels

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
CESIUM_CHLORIDE = "221-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3.4-3.4-3.4-90-90-90"
FLAT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-0.0000001-0.0000001-0.0000001-90-90-90"
THIN = "123-a-Na-0-0-0-b-Cl-0-0-1/2-X-5-5-0.09-90-90-90"


def batch(*texts):
    return CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])


def plain(one, other):
    try:
        return bool(StructureMatcher().fit(one, other))
    except (ValueError, ArithmeticError, IndexError):
        return False


def plain_labels(structures, order):
    labels, representatives = np.arange(len(structures)), []
    for row in order:
        match = [one for one in representatives if plain(structures[row], structures[one])]
        labels[row] = match[0] if match else row
        if not match:
            representatives.append(row)
    return labels


@pytest.fixture(scope="module")
def natural(data_folder):
    """Crystals of MP-20 that share formulas, some of them twice, in any order."""
    table = pd.read_csv(data_folder / "mp20_val.csv.gz", keep_default_na=False)
    groups = [rows["cif"].tolist() for _, rows in table.groupby("formula") if 1 < len(rows) < 8]
    rng = np.random.default_rng(0)
    cifs = [cif for i in rng.permutation(len(groups))[:30] for cif in groups[i]]
    crystals = CrystalBatch.from_structures(cifs)
    return crystals[rng.permutation(np.concatenate([np.arange(len(crystals)), np.arange(20)]))]


def test_matches_are_those_of_the_matcher(natural):
    structures = natural.to_structures(primitive=True)
    cells = [reduced_cell(structure) for structure in structures]
    matches = []
    for rows in rows_by_formula(natural).values():
        pairs = [(i, j) for i in rows for j in rows if i != j]
        assert [same_reduced(cells[i], cells[j]) for i, j in pairs] == [
            plain(structures[i], structures[j]) for i, j in pairs
        ]
        matches += [same(structures[i], structures[j]) for i, j in pairs]
    assert 0 < sum(matches) < len(matches)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_labels_and_novelty_are_those_of_the_double_loop(natural, n_jobs, monkeypatch):
    monkeypatch.setattr(matching, "_MIN_PARALLEL", 0)  # processes even for a few
    crystals, known = natural[:60], natural[50:]
    order = np.random.default_rng(1).permutation(60)
    structures = crystals.to_structures(primitive=True)
    labels = structure_labels(crystals, order=order, n_jobs=n_jobs)
    novel = is_novel(crystals, known, n_jobs=n_jobs)
    if n_jobs == 1:
        np.testing.assert_array_equal(labels, plain_labels(structures, order))
        others = known.to_structures(primitive=True)
        assert novel.tolist() == [not any(plain(one, other) for other in others) for one in structures]
    assert structure_labels(structures, order=order, n_jobs=n_jobs).tolist() == labels.tolist()
    assert (~Reference(known).contains(structures, n_jobs=n_jobs)).tolist() == novel.tolist()
    formulas = {structure.composition.reduced_formula for structure in known.to_structures()}
    shared = [structure.composition.reduced_formula in formulas for structure in structures]
    assert Reference(known).has_formula(crystals).tolist() == shared
    assert 0 < sum(shared) < 60
    assert 0 < novel.sum() < 60
    assert len(np.unique(labels)) < 60


def test_rock_salt_in_any_setting_is_one_structure_cscl_another():
    salt = Crystal.from_string(SALT.format("Na", "Cl", 5.64)).to_structure()
    shifted, doubled = salt.copy(), salt.copy()
    shifted.translate_sites(range(len(salt)), [0.13, 0.4, 0.77])
    doubled.make_supercell([2, 1, 1])
    permuted = Structure.from_sites([salt[i] for i in np.random.default_rng(0).permutation(len(salt))])
    stretched = salt.copy()
    stretched.scale_lattice(1.3 * salt.volume)
    other = Crystal.from_string(CESIUM_CHLORIDE).to_structure()
    structures = [salt, shifted, other, doubled, permuted, stretched]
    assert structure_labels(structures).tolist() == [0, 0, 2, 0, 0, 0]
    written_down = CrystalBatch.from_structures(structures)
    assert structure_labels(written_down).tolist() == [0, 0, 2, 0, 0, 0]


def test_replayed_training_data_is_not_novel(natural):
    assert not is_novel(natural, natural[::-1]).any()


def test_the_first_in_order_stands_for_the_others():
    crystals = batch(*(SALT.format("Na", "Cl", a) for a in (5.6, 5.6, 5.7)), SALT.format("K", "Cl", 6.3))
    assert structure_labels(crystals).tolist() == [0, 0, 0, 3]
    assert structure_labels(crystals, order=np.array([3, 2, 1, 0])).tolist() == [2, 2, 2, 3]


def test_cells_without_thickness_are_like_nothing_and_cost_nothing():
    crystals = batch(FLAT, FLAT, THIN, SALT.format("Na", "Cl", 5.6))
    assert structure_labels(crystals).tolist() == [0, 1, 2, 3]
    assert is_novel(crystals, crystals).tolist() == [True, True, True, False]


def test_no_crystals_are_no_trouble():
    none = CrystalBatch.empty()
    assert structure_labels(none).tolist() == structure_labels([]).tolist() == []
    assert is_novel(none, none).tolist() == is_novel([], none).tolist() == []
    assert is_novel(batch(CESIUM_CHLORIDE), none).tolist() == [True]
