import sys

import numpy as np
import pytest

from crystal_env.build import wyckoff_table
from crystal_env.wyckoff import TABLE_FILE

pytest.importorskip("pyxtal", reason="needs pyxtal, the source of the table")


def test_shipped_table_equals_the_source(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["wyckoff_table", "--check"])
    before = TABLE_FILE.read_bytes()
    assert wyckoff_table.main() == 0
    assert "1731 positions, 14433 operations; equal" in capsys.readouterr().out
    assert TABLE_FILE.read_bytes() == before


def test_check_reports_a_table_that_differs(monkeypatch, capsys, tmp_path):
    with np.load(TABLE_FILE) as file:
        arrays = {name: file[name].copy() for name in file.files}
    changed = {**arrays, "translation": (arrays["translation"] + 1).astype(np.int8)}
    np.savez(tmp_path / "table.npz", **changed)
    monkeypatch.setattr(wyckoff_table, "TABLE_FILE", tmp_path / "table.npz")
    monkeypatch.setattr(wyckoff_table, "positions_from_pyxtal", lambda: arrays)
    monkeypatch.setattr(sys, "argv", ["wyckoff_table", "--check"])
    assert wyckoff_table.main() == 1
    assert "differing: ['translation']" in capsys.readouterr().out


def test_positions_that_are_no_projections_are_refused():
    operation = np.eye(4)[None].copy()
    operation[0, 0, 1] = 1.0  # x depends on y
    with pytest.raises(ValueError, match="group 1, position 0: the first operation is not an ordered projection"):
        wyckoff_table._check_position(1, 0, operation, np.zeros((1, 3)))


def test_positions_that_are_not_grouped_by_centring_are_refused():
    operations = np.tile(np.eye(4), (4, 1, 1))
    operations[1, :3, 3] = [0.5, 0.5, 0.0]  # the centring vector comes before the second operation
    operations[2, :3, :3] *= -1
    operations[3, :3, :3] *= -1
    operations[3, :3, 3] = [0.5, 0.5, 0.0]
    with pytest.raises(ValueError, match="not in blocks of centring vectors"):
        wyckoff_table._check_position(12, 0, operations, np.array([[0, 0, 0], [0.5, 0.5, 0]]))
