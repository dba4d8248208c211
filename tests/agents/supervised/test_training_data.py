"""Training reads what the environment could build, and tells what it leaves out and why."""

import csv

import numpy as np
import pytest

from agents import CrystalFormer, CrystalFormerConfig
from agents.supervised.training_data import impossible, load_training_data
from crystal_env import Crystal, CrystalBatch

GOOD = [
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90",
    "221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.905-3.905-3.905-90-90-90",
    "186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.382-X-3.25-3.25-5.21-90-90-120",
]
HUGE = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-99-99-99-90-90-90"


@pytest.fixture
def crystals():
    return CrystalBatch.from_crystals(map(Crystal.from_string, GOOD))


@pytest.fixture
def cifs(crystals):
    return [structure.to(fmt="cif") for structure in crystals.to_structures()]


def write_csv(path, cifs):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("name", "cif"), *((f"row {i}", cif) for i, cif in enumerate(cifs))])
    return path


def saved(crystals, path):
    crystals.save(path)
    return path


def load(path, report=None):
    return load_training_data(path, report, progress=False)


def reported(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["entry", "reason"]
    return {int(entry): reason for entry, reason in rows}


def test_unreadable_and_impossible_rows_are_left_out_and_named(tmp_path, cifs):
    huge = Crystal.from_string(HUGE).to_structure().to(fmt="cif")
    path = write_csv(tmp_path / "data.csv", [huge, cifs[0], "data_broken\n", cifs[1], "data_nothing\n", cifs[2]])
    loaded = load(path, tmp_path / "skipped.csv")
    assert [crystal.formula for crystal in loaded] == ["NaCl", "SrTiO3", "ZnO"]
    reasons = reported(tmp_path / "skipped.csv")
    assert list(reasons) == [0, 2, 4]
    assert reasons[0] == "its lattice is out of bounds"
    assert "cannot be read" in reasons[2]
    assert "cannot be read" in reasons[4]


def test_nothing_is_reported_where_all_is_well(tmp_path, cifs):
    load(write_csv(tmp_path / "data.csv", cifs), tmp_path / "skipped.csv")
    assert reported(tmp_path / "skipped.csv") == {}


def test_npz_files_and_folders_of_cifs_are_read(tmp_path, crystals, cifs):
    from_file = load(str(saved(crystals, tmp_path / "crystals.npz")))
    assert list(from_file) == list(crystals)
    for i, cif in enumerate(cifs):
        (tmp_path / f"{i}.cif").write_text(cif)
    assert [crystal.key() for crystal in load(tmp_path)] == [crystal.key() for crystal in crystals]


def damaged(crystals, **changes):
    """Return two copies of the perovskite, the second with changed entries."""
    batch = crystals[[1, 1]]
    for name, (place, value) in changes.items():
        getattr(batch, name)[(1, *place)] = value
    return batch


SITES, LATTICE = "its letters or elements are not possible", "its lattice is out of bounds"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"W": ([[0, 1, 2]], [3, 2, 1])}, SITES),
        ({"W": ([[0, 1]], [1, 1])}, SITES),  # a has no free coordinate: one site only
        ({"W": ([0], 20)}, SITES),  # the group has 14 letters
        ({"W": ([slice(None)], 0), "A": ([slice(None)], 0)}, SITES),  # no site
        ({"W": ([1], 0)}, SITES),  # a pad, then a site
        ({"A": ([1], 0)}, SITES),
        ({"A": ([7], 8)}, SITES),  # an element after the last site
        ({"L": ([0], 99.0)}, LATTICE),
        ({"L": ([0], 0.5)}, LATTICE),
    ],
    ids=str,
)
def test_crystals_that_cannot_be_built_are_left_out_with_a_reason(tmp_path, crystals, changes, reason):
    batch = damaged(crystals, **changes)
    assert list(impossible(batch)) == [1]
    loaded = load(saved(batch, tmp_path / "crystals.npz"), tmp_path / "skipped.csv")
    assert list(loaded) == [crystals[1]]
    assert reported(tmp_path / "skipped.csv")[1] == reason


def test_cells_too_flat_for_the_environment_are_left_out():
    rows = [f"1-a-Na-0-0-0-X-5-6-7-80-70-{gamma}" for gamma in (90, 149.5, 151, 15)]
    assert impossible(CrystalBatch.from_crystals(map(Crystal.from_string, rows[:1]))) == {}
    flat = CrystalBatch.from_crystals([Crystal.from_string(rows[0])] * 4)
    flat.L[:, 5] = [90, 149.5, 151, 15]
    assert dict.fromkeys([1, 2, 3], "its lattice is out of bounds") == impossible(flat)


def test_what_is_left_out_is_what_no_likelihood_can_be_computed_for():
    config = CrystalFormerConfig(n_layers=1, n_heads=1, key_size=4, model_size=8)
    model = CrystalFormer(config).eval()
    crystals = model.sample(np.arange(1, 231, 4), seed=0, max_sites=4)
    rng = np.random.default_rng(0)
    crystals.L[:, :3] *= rng.choice([0.2, 1.0, 5.0], len(crystals))[:, None]
    crystals.W[:, 0] = np.where(rng.random(len(crystals)) < 0.3, rng.integers(1, 9, len(crystals)), crystals.W[:, 0])
    certain = model.log_prob(crystals).total.isfinite().numpy()
    assert 10 < certain.sum() < len(crystals) - 10
    assert sorted(impossible(crystals)) == np.flatnonzero(~certain).tolist()


def test_numbers_that_are_in_no_table_raise(tmp_path, crystals):
    for name, value in (("G", 231), ("W", 28), ("A", 119), ("L", np.nan)):
        batch = crystals[[0, 1]]
        getattr(batch, name)[1] = value
        with pytest.raises(ValueError, match=rf"crystals\.{name}"):
            load(saved(batch, tmp_path / "crystals.npz"))


def test_nothing_left_raises_with_the_first_reason(tmp_path, crystals, cifs):
    huge = Crystal.from_string(HUGE)
    with pytest.raises(ValueError, match=r"no crystal to learn from; the first of 2 .* lattice is out of bounds"):
        load(saved(CrystalBatch.from_crystals([huge, huge]), tmp_path / "crystals.npz"))
    with pytest.raises(ValueError, match=r"no crystal to learn from; the first of 2 .* cannot be read"):
        load(write_csv(tmp_path / "data.csv", ["data_broken\n", "data_nothing\n"]))
    with pytest.raises(ValueError, match=r"no crystal to learn from; the first of 2 .* lattice is out of bounds"):
        load(write_csv(tmp_path / "mixed.csv", [huge.to_structure().to(fmt="cif"), "nothing"]))
    with pytest.raises(ValueError, match=r"no crystal to learn from$"):
        load(saved(CrystalBatch.empty(), tmp_path / "empty.npz"))


def test_files_that_are_none_raise(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path / "missing.csv")
    with pytest.raises(ValueError, match="no file of crystals"):
        load(tmp_path / "missing.npz")
