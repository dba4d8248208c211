import gzip

import numpy as np
import pytest

from benchmarks.metrics.reference import DEFAULT_FILES, load_reference, reference_text
from benchmarks.provenance import file_digest
from crystal_env import Crystal, CrystalBatch

SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-5.6-5.6-5.6-90-90-90"
CRYSTALS = CrystalBatch.from_crystals([Crystal.from_string(SALT.format(*pair)) for pair in (("Na", "Cl"), ("K", "Br"))])


def test_reference_is_named_by_files_digests_and_crystals(tmp_path):
    CRYSTALS.save(tmp_path / "one.npz")
    CRYSTALS[:1].save(tmp_path / "two.npz")
    known = load_reference([tmp_path / "one.npz", tmp_path / "two.npz"])
    np.testing.assert_array_equal(known.crystals.A, CRYSTALS[[0, 1, 0]].A)
    assert known.files == {name: file_digest(tmp_path / name) for name in ("one.npz", "two.npz")}
    assert reference_text(known.facts()) == "one.npz, two.npz (3 crystals)"


def test_default_is_training_and_validation_set_of_mp20(tmp_path, monkeypatch):
    cifs = [one.to_structure().to(fmt="cif") for one in CRYSTALS]
    for name, part in (("mp20_train.csv.gz", cifs), ("mp20_val.csv.gz", cifs[:1])):
        rows = "".join(f'"{cif}"\n' for cif in part)
        (tmp_path / name).write_bytes(gzip.compress(f"cif\n{rows}".encode()))
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path))
    known = load_reference()
    assert tuple(known.files) == DEFAULT_FILES == ("mp20_train.csv.gz", "mp20_val.csv.gz")
    assert len(known.crystals) == 3


def test_missing_default_is_an_error_only_if_it_is_required(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="reference must name files"):
        load_reference()
    assert reference_text(load_reference(required=False).facts()) == "an empty reference"
    assert reference_text({}) == "an unnamed reference"


def test_crystals_are_known_by_their_content():
    one, other = load_reference(CRYSTALS), load_reference(CRYSTALS[:1])
    assert one.files != other.files
    assert one.files == load_reference(CRYSTALS[[0, 1]]).files
