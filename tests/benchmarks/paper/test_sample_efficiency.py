"""The table of methods: its numbers, its intervals, and samples that are evaluated once."""

import json

import pytest

from benchmarks.metrics.intervals import over_seeds
from benchmarks.paper.sample_efficiency import Args, chemistry, main, table
from crystal_env import Crystal, CrystalBatch

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"


def batch(*strings):
    return CrystalBatch.from_crystals([Crystal.from_string(string) for string in strings])


def test_chemistry_by_hand():
    crystals = batch(
        SALT.format("Na", "Cl", 5.64), SALT.format("Mg", "O", 4.2), SALT.format("Ce", "O", 5.0),
        "221-a-Cs-0-0-0-b-Cl-1/2-1/2-1/2-X-4.1-4.1-4.1-90-90-90",
    )  # fmt: skip
    assert chemistry(crystals) == {"elements": 6, "prototypes": 2, "formulas": 4, "oxygen": 50, "f_block": 25}
    assert chemistry(CrystalBatch.empty())["oxygen"] == 0


def test_few_seeds_have_ranges_and_five_have_intervals():
    rows = {
        "three": {"sun": over_seeds([50.0, 52.0, 57.0]), "crystals": [1000] * 3},
        "one": {"sun": over_seeds([20.0]), "crystals": [400]},
        "five": {"sun": over_seeds([10.0, 11.0, 12.0, 13.0, 14.0]), "crystals": [1000] * 5},
    }
    lines = table(rows).splitlines()
    assert lines[0] == "|  | seeds × crystals | S.U.N., % |"
    assert lines[1] == "| --- | --- | --- |"
    assert lines[2:4] == ["| three | 3 × 1000 | 53.0 (50.0 to 57.0) |", "| one | 1 × 400 | 20.0 |"]
    assert lines[4] == "| five | 5 × 1000 | 12.0 [10.0, 14.0] |"


def test_samples_are_evaluated_once(tmp_path, data_folder):
    batch(SALT.format("Na", "Cl", 5.64), SALT.format("Na", "Cl", 2.0)).save(tmp_path / "salt.npz")
    args = Args((f"salt={tmp_path / 'salt.npz'}",), tmp_path / "out", n_jobs=1)
    main(args)
    row = json.loads((args.out / "results.json").read_text())["rows"]["salt"]
    assert (row["stable"]["value"], row["sun"]["value"], row["novel"]["value"]) == (50, 0, 0)
    (known,) = (args.out / "samples").iterdir()
    known.write_text(known.read_text().replace('"stable": 50.0', '"stable": 49.0'))
    main(args)
    assert json.loads((args.out / "results.json").read_text())["rows"]["salt"]["stable"]["value"] == 49


def test_a_row_without_a_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rows must be"):
        main(Args(("salt",), tmp_path))
