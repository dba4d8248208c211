"""The command that compares samples, from files to files."""

import csv
import json

import numpy as np
import pytest
from pymatgen.io.cif import CifWriter

from benchmarks.cli import cli
from benchmarks.evaluation.cli import _names
from crystal_env import Crystal, CrystalBatch

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
TEXTS = [
    SALT.format("Na", "Cl", 5.64),
    SALT.format("K", "Br", 6.7),
    SALT.format("Na", "Cl", 5.6),
    SALT.format("Li", "F", 4.1),
]


@pytest.fixture
def files(tmp_path):
    """Return a folder of CIF files, one of them broken, a batch of the same crystals, and a reference."""
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])
    folder = tmp_path / "generated"
    folder.mkdir()
    for row, crystal in enumerate(crystals):
        CifWriter(crystal.to_structure()).write_file(str(folder / f"{row}.cif"))
    (folder / "9.cif").write_text("no crystal at all")
    crystals.save(tmp_path / "batch.npz")
    crystals[3:].save(tmp_path / "reference.npz")
    return folder, tmp_path / "batch.npz", tmp_path / "reference.npz"


def test_folders_and_batches_are_compared(files, tmp_path, capsys):
    folder, batch, reference = files
    out = tmp_path / "out"
    command = ["evaluate", str(folder), str(batch), "--reference", str(reference), "--out", str(out), "--n-jobs", "1"]
    cli.main(command)
    shown = capsys.readouterr().out
    assert shown.startswith("|  | generated | batch |")
    summary = json.loads((out / "summary.json").read_text())
    for name, total in (("generated", 5), ("batch", 4)):
        rates = summary[name]["rates"]
        counts = {name: entry["count"] for name, entry in rates.items()}
        assert all(entry["total"] == total for entry in rates.values())
        assert counts["stable_0.1"] == 4
        assert counts["unique_stable_0.1"] == 3
        assert counts["sun_0.1"] == 2
    with (out / "batch.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["NaCl", "KBr", "NaCl", "LiF"]
    assert [int(row["novel"]) for row in rows] == [1, 1, 1, 0]
    assert all(abs(float(row["e_above_hull"])) < 0.1 for row in rows)
    assert (out / "table.md").read_text() == shown
    assert "Novel against reference.npz (1 crystals)." in shown
    assert (out / "plot.png").stat().st_size > 10_000


def test_a_cross_check_has_rows_of_its_own(files, tmp_path, capsys):
    out, second = tmp_path / "out", ["--cross-check", "chgnet", "--cross-check-hull", "mp20-chgnet"]
    cli.main(["evaluate", str(files[1]), "--reference", str(files[2]), "--out", str(out), "--n-jobs", "1", *second])
    shown = capsys.readouterr().out.splitlines()
    lines = [line.removeprefix("| ") for line in shown]
    (first,) = (line for line in lines if line.startswith("S.U.N. (≤ 0.1 eV/atom),"))
    (again,) = (line for line in lines if line.startswith("cross-check: S.U.N. (≤ 0.1 eV/atom),"))
    assert again == f"cross-check: {first}"
    assert any(line.startswith("cross-check: stable by both potentials or by neither, % | 100.0") for line in lines)
    with (out / "batch.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert all(abs(float(r["cross_check_e_above_hull"]) - float(r["e_above_hull"])) < 1e-4 for r in table)


def test_files_of_one_name_are_distinguished_by_their_folders(tmp_path):
    paths = (tmp_path / "a" / "crystals.npz", tmp_path / "b" / "crystals.npz")
    assert _names(paths) == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "paths"), (["nothing.npz"], "nothing.npz"), (["batch", "--hull", "no-hull"], "no-hull")],
)
def test_mistakes_are_one_line(files, monkeypatch, words, message):
    batch, reference = files[1:]
    words = [str(batch) if word == "batch" else word for word in words]
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", *words, "--reference", str(reference)])
    assert message in str(end.value.code) or end.value.code == 2


def test_a_missing_reference_says_how_to_name_one(files, monkeypatch, tmp_path):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="reference must name files"):
        cli.main(["evaluate", str(files[1])])


def test_no_crystal_is_no_reason_to_fail(files, tmp_path):
    CrystalBatch.empty().save(tmp_path / "empty.npz")
    cli.main(["evaluate", str(tmp_path / "empty.npz"), "--reference", str(files[2]), "--n-jobs", "1"])
    assert len(np.load(tmp_path / "empty.npz")["G"]) == 0


def test_the_table_has_a_row_for_every_attempt(tmp_path, files, capsys):
    out, path = tmp_path / "out", tmp_path / "made.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["crystal", "requested_space_group"], [TEXTS[0], 225], ["nonsense", 225], [TEXTS[3], 216]])
    cli.main(["evaluate", str(path), "--reference", str(files[2]), "--relax", "3", "--out", str(out), "--n-jobs", "1"])
    shown = capsys.readouterr().err
    assert f"{path}, row 1: text form must be" in shown
    assert f"{path}: 1 of 3 attempts are failures" in shown
    numbers = json.loads((out / "summary.json").read_text())["made"]
    requested = numbers["space_groups"]["requested_group_detected_0.01"]
    assert (requested["count"], requested["total"]) == (1, 3)
    assert {group: entry["attempts"] for group, entry in numbers["by_space_group"].items()} == {"216": 1, "225": 2}
    assert sum(numbers["energies"]["counts"]) == 2
    with (out / "made.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["failure"].startswith("text form must be")
    assert [row["relaxed_space_group_kept"] for row in rows] == ["1", "", "1"]
    assert all(Crystal.from_string(row["crystal"]).formula == row["formula"] for row in (rows[0], rows[2]))
