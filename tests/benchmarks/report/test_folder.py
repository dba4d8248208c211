import numpy as np
import pytest

from benchmarks.report import report
from benchmarks.report.folder import read
from crystal_env.crystal import Crystal, CrystalBatch


def test_sodium_nitride_is_a_formula(folder):
    assert "NaN" in set(read(folder).table["formula"])


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"folder must have a results\.json"):
        report(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": "crystalgen-results/9"}')
    with pytest.raises(ValueError, match="must be of the schema 'crystalgen-results/2', got 'crystalgen-results/9'"):
        report(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": "crystalgen-results/1"}')
    with pytest.raises(ValueError, match=f"crystalgen benchmark migrate {tmp_path}"):
        report(tmp_path)


def test_crystals_of_the_table_are_those_that_were_written(folder, rows_of):
    texts = [row["crystal"] for seed in range(3) for row in rows_of(seed, True) if "crystal" in row]
    expected = CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])
    np.testing.assert_array_equal(read(folder).crystals.A, expected.A)
