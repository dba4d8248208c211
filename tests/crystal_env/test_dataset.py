import gzip

import numpy as np
import pandas as pd
import pytest
from ase.io import write

from crystal_env import dataset
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import cache_folder, data_folder, load_crystals, read_structures


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def csv(batch, tmp_path):
    cifs = [s.to(fmt="cif") for s in batch.to_structures()]
    path = tmp_path / "crystals.csv"
    pd.DataFrame({"formula": ["NaCl", "NaN", "ZnO", "broken"], "cif": [*cifs, "data_nothing\n"]}).to_csv(path)
    return path


def load(path, **kwargs):
    return load_crystals(path, n_jobs=1, progress=False, **kwargs)


def equal(first: CrystalBatch, second: CrystalBatch) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("G", "W", "A", "XYZ", "L"))


def test_good_structures_are_kept_in_order_and_bad_ones_reported(csv, own_cache):
    tokens = load(csv)
    crystals, index, skipped = tokens.crystals, tokens.index, tokens.skipped
    assert [c.formula for c in crystals] == ["NaCl", "SrTiO3", "ZnO"]
    assert index.tolist() == [0, 1, 2]
    assert list(skipped) == [3]
    assert "cannot be read as a structure" in skipped[3]


def test_the_second_load_computes_nothing(csv, own_cache, monkeypatch):
    first = load(csv)
    monkeypatch.setattr(dataset, "_tokenise", lambda *args: pytest.fail("tokenised again"))
    second = load(csv)
    assert equal(first.crystals, second.crystals)
    assert first.index.tolist() == second.index.tolist()
    assert first.skipped == second.skipped
    assert [f.suffix for f in (own_cache / "tokens").iterdir()] == [".npz"]


def test_a_file_is_known_by_its_content_not_by_its_name(csv, own_cache, monkeypatch, tmp_path):
    load(csv)
    copy = tmp_path / "renamed.csv"
    copy.write_bytes(csv.read_bytes())
    calls = []
    tokenise = dataset._tokenise
    monkeypatch.setattr(dataset, "_tokenise", lambda *args: calls.append(args) or tokenise(*args))
    assert len(load(copy).crystals) == 3
    assert not calls
    table = pd.read_csv(csv, keep_default_na=False)
    table.iloc[:1].to_csv(csv)
    assert len(load(csv).crystals) == 1
    assert len(calls) == 1
    load(csv, symprec=0.1)
    assert len(calls) == 2


def test_without_the_cache_nothing_is_written(csv, own_cache):
    load(csv, cache=False)
    assert not own_cache.exists()


def test_compressed_tables_and_folders_are_read(csv, own_cache, batch, tmp_path):
    compressed = tmp_path / "crystals.csv.gz"
    compressed.write_bytes(gzip.compress(csv.read_bytes()))
    assert len(load(compressed).crystals) == 3
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name, structure in zip("cab", batch.to_structures(), strict=True):
        structure.to(filename=str(folder / f"{name}.cif"))
    assert [c.formula for c in load(folder).crystals] == ["SrTiO3", "ZnO", "NaCl"]
    assert [c.formula for c in load(folder / "a.cif").crystals] == ["SrTiO3"]


def test_files_of_ase_are_read(batch, own_cache, tmp_path):
    path = tmp_path / "crystals.extxyz"
    write(path, batch.to_atoms())
    assert [c.key() for c in load(path).crystals] == [c.key() for c in batch]


def test_processes_give_the_same_as_one(csv, own_cache):
    one = load(csv, cache=False)
    two = load_crystals(csv, n_jobs=2, progress=False, cache=False)
    assert equal(one.crystals, two.crystals)
    assert one.skipped == two.skipped


def test_formula_nan_does_not_become_a_missing_value(csv):
    assert all(isinstance(text, str) for text in read_structures(csv))


def test_a_table_without_a_column_of_cifs_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"needs a column 'cif', it has \['a', 'b'\]"):
        list(read_structures(path))


def test_missing_files_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file of structures"):
        load(tmp_path / "missing.csv")
    with pytest.raises(ValueError, match=r"holds no \.cif files"):
        load(tmp_path)


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path / "own"))
    assert data_folder() == tmp_path / "data"
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("CRYSTALGEN_DATA")
    monkeypatch.delenv("CRYSTALGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data_folder() == tmp_path / "xdg" / "crystalgen" / "data"
    assert cache_folder() == tmp_path / "xdg" / "crystalgen"
