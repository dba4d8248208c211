"""Novelty against the plain double loop of pymatgen's matcher, without buckets."""

import pickle

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystal_env import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents
from rewards.novelty import Novelty

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
OTHERS = (
    SALT.format("Na", "Cl", 5.64),
    SALT.format("K", "Cl", 6.29),
    "123-a-Na-0-0-0-b-Cl-0-0-1/2-c-Cl-1/2-1/2-0-d-Na-1/2-1/2-1/2-X-3.988-3.988-5.64-90-90-90",
    "221-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3.4-3.4-3.4-90-90-90",
    "1-a-Na-0.1-0-0-a-Cl-0.6-0.5-0.5-X-3.4-3.45-3.5-90-91-90",
    "216-a-Zn-0-0-0-c-O-1/4-1/4-1/4-X-4.6-4.6-4.6-90-90-90",
    "225-a-Zn-0-0-0-b-O-1/2-1/2-1/2-X-4.3-4.3-4.3-90-90-90",
)


@pytest.fixture
def candidates(crystals) -> CrystalBatch:
    others = CrystalBatch.from_crystals(Crystal.from_string(text) for text in OTHERS)
    return CrystalBatch.concatenate([others, equivalents(crystals, np.random.default_rng(0)), crystals])


def test_novel_is_what_the_matcher_finds_nowhere_in_the_reference(candidates, crystals):
    reference = crystals[[0, 2, 4]]
    known = reference.to_structures()
    expected = [
        not any(StructureMatcher().fit(structure, other) for other in known) for structure in candidates.to_structures()
    ]
    result = Novelty(reference)(candidates)
    assert 4 < sum(expected) < len(expected) - 4
    np.testing.assert_array_equal(result.total, np.array(expected, float))
    np.testing.assert_array_equal(result.success(), expected)
    assert set(result.failures) == {None}


def test_a_structure_is_known_in_any_space_group_and_cell():
    salt = Crystal.from_string(OTHERS[0])
    doubled, in_p1 = Crystal.from_string(OTHERS[2]), Crystal.from_string(OTHERS[4])
    assert (doubled.G, in_p1.G) == (123, 1)
    assert Novelty(salt.to_batch())([doubled]).total.tolist() == [0]
    assert Novelty(in_p1.to_batch())([Crystal.from_string(OTHERS[3])]).total.tolist() == [0]


def test_nonsense_is_not_novel(crystals):
    overlapping = Crystal.from_string("1-a-Au-0-0-0-a-Au-0.01-0-0-X-4-4-4-90-90-90")
    result = Novelty(crystals)([overlapping])
    assert result.total.tolist() == [0]
    assert result.failures[0] == "two atoms are 0.04 Å apart, at least 0.5 is needed"
    assert not result.success()[0]


def test_files_of_all_kinds_are_the_same_reference(tmp_path, monkeypatch, crystals, candidates):
    crystals[:3].save(tmp_path / "some.npz")
    cif = [crystal.to_structure().to(fmt="cif") for crystal in crystals]
    pd.DataFrame({"cif": cif[:3]}).to_csv(tmp_path / "some.csv", index=False)
    pd.DataFrame({"cif": cif[:1]}).to_csv(tmp_path / "mp20_train.csv.gz", index=False)
    pd.DataFrame({"cif": cif[1:3]}).to_csv(tmp_path / "mp20_val.csv.gz", index=False)
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path))
    expected = Novelty(crystals[:3])(candidates).total
    assert 0 < expected.sum() < len(expected)
    for reference in (tmp_path / "some.npz", str(tmp_path / "some.csv"), "mp20"):
        np.testing.assert_array_equal(Novelty(reference)(candidates).total, expected)


def test_a_file_is_read_with_the_first_score_and_once_per_process(tmp_path, crystals):
    path = tmp_path / "reference.npz"
    path.write_bytes(b"not yet")
    reward = Novelty(path)
    crystals.save(path)
    assert reward(crystals).total.tolist() == [0] * 5
    path.unlink()
    copied = pickle.loads(pickle.dumps(reward))
    assert copied(crystals).total.tolist() == [0] * 5
    assert len(pickle.dumps(reward)) < 1000


def test_several_processes_find_the_same(candidates, crystals):
    one, two = (Novelty(crystals, n_jobs=n)(candidates).total for n in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": "nowhere.npz"}, "reference must be crystals, .* there is no 'nowhere.npz'"),
        ({"reference": CrystalBatch.empty(), "n_jobs": 0}, "n_jobs must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Novelty(**arguments)
