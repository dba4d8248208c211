import bz2
import gzip
import json
import subprocess
import sys

import pytest
from pymatgen.core.entries import ComputedEntry

from rewards.cli import main, run
from rewards.hull.convex_hull import ConvexHull
from rewards.hull.file_format import DFT, Provenance


@pytest.fixture
def csv(mp20_rows, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.csv"
    mp20_rows.head(4).to_csv(path, index=False)
    return path


def test_hull_is_built_described_and_checked(csv, tmp_path, capsys):
    out = tmp_path / "hull.npz"
    main(["build", str(csv), "--out", str(out), "--date", "2026-01-01", "--n-jobs", "1"])
    assert "4 formulas" in capsys.readouterr().out
    hull = ConvexHull.load(out)
    assert hull.provenance.reference_set == "rows.csv"
    assert hull.provenance.date == "2026-01-01"
    assert (hull.provenance.energy_model, hull.provenance.scale) == ("chgnet-0.3.0", "MP2020")
    main(["info", str(out)])
    printed = capsys.readouterr().out
    assert "n_structures: 4" in printed
    assert "scale: MP2020" in printed


def test_check_of_the_shipped_hull_prints_errors_and_agreement(csv, capsys):
    main(["check", str(csv), "--n-jobs", "1"])
    printed = capsys.readouterr().out
    assert "with a label and an energy: 4 of 4" in printed
    assert "agreement at 0.1 eV/atom: 100.00%" in printed


def test_shipped_hull_is_described_by_name(capsys):
    main(["info", "mp20-chgnet"])
    printed = capsys.readouterr().out
    assert "energy_model: chgnet-0.3.0" in printed
    assert "elements: 88" in printed


def test_file_without_labels_cannot_be_checked(csv, mp20_rows):
    mp20_rows[["cif"]].head(2).to_csv(csv, index=False)
    with pytest.raises(ValueError, match="needs a column 'e_above_hull'"):
        main(["check", str(csv), "--n-jobs", "1"])


def test_folder_without_structures_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match="holds no"):
        main(["build", str(tmp_path), "--out", str(tmp_path / "hull.npz")])


@pytest.fixture
def entries(tmp_path):
    """Entries of seven elements far above all compounds, in a file as Alexandria's."""
    made = [ComputedEntry(symbol, 0.0, correction=0.5) for symbol in ("Na", "Cl", "O", "Mg", "Si", "K", "F")]
    path = tmp_path / "convex_hull.json.bz2"
    path.write_bytes(bz2.compress(json.dumps({"entries": [entry.as_dict() for entry in made]}).encode()))
    return path


def test_hull_of_entries_is_built_on_the_scale_that_is_said(entries, tmp_path, capsys):
    out = tmp_path / "hull.npz"
    main(["build", str(entries), "--out", str(out), "--scale", "MP2020", "--date", "2026-01-01"])
    assert "7 formulas, 7 elements, DFT" in capsys.readouterr().out
    about = ConvexHull.load(out).provenance
    assert (about.energy_model, about.corrections, about.scale) == ("DFT", "as given", "MP2020")
    assert (about.reference_set, about.n_structures, about.date) == (entries.name, 7, "2026-01-01")
    assert ConvexHull.load(out).hull_energy(["NaCl"]) == pytest.approx([0.5])
    main(["build", str(entries), "--out", str(out), "--corrections", "none"])
    assert ConvexHull.load(out).provenance.scale == "PBE"
    assert ConvexHull.load(out).hull_energy(["NaCl"]) == pytest.approx([0.0])


def test_hull_of_formation_energies_is_on_the_corrected_scale(entries, tmp_path):
    table, out = tmp_path / "table.csv", tmp_path / "hull.npz"
    table.write_text("formula,formation_energy_per_atom\nNaCl,-2\n")
    main(["build", str(table), "--out", str(out), "--elements", str(entries)])
    assert ConvexHull.load(out).provenance.scale == "MP2020"
    assert ConvexHull.load(out).hull_energy(["NaCl"]) == pytest.approx([-1.5])
    with pytest.raises(ValueError, match="elements must name the file"):
        main(["build", str(table), "--out", str(out)])
    with pytest.raises(ValueError, match="they get no corrections, got 'MP2020'"):
        main(["build", str(table), "--out", str(out), "--elements", str(entries), "--corrections", "MP2020"])


def test_potential_on_the_scale_of_a_dft_hull_can_be_checked(mp20_rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path / "cache"))
    csv, out = tmp_path / "rows.csv", tmp_path / "hull.npz"
    mp20_rows.head(4).to_csv(csv, index=False)
    own = ConvexHull.load("mp20-chgnet")
    dft = Provenance(DFT, scale="MP2020")
    ConvexHull(own.compositions, own.energies * own.compositions.sum(1), dft).save(out)
    main(["check", str(csv), "--hull", str(out), "--n-jobs", "1"])
    assert "with a label and an energy: 4 of 4" in capsys.readouterr().out
    ConvexHull(own.compositions, own.energies, Provenance(DFT, scale="PBE")).save(out)
    with pytest.raises(ValueError, match=r"on the scale 'PBE', the potential 'chgnet-0\.3\.0' has the scale 'MP2020'"):
        main(["check", str(csv), "--hull", str(out), "--n-jobs", "1"])


def test_arguments_that_do_not_fit_are_value_errors(entries, csv, tmp_path):
    out = ["--out", str(tmp_path / "hull.npz")]
    with pytest.raises(ValueError, match="scale must be given for entries"):
        main(["build", str(entries), *out])
    with pytest.raises(ValueError, match=r"one kind, got \['entries', 'structures'\]"):
        main(["build", str(entries), str(csv), *out])
    with pytest.raises(ValueError, match=r"'chgnet' does not take \{'weights': 'file'\}"):
        main(["build", str(csv), *out, "--weights", "file"])
    with pytest.raises(ValueError, match="potential must be"):
        main(["build", str(csv), *out, "--potential", "lennard-jones"])
    with pytest.raises(ValueError, match="no such file of entries"):
        main(["build", str(tmp_path / "no.json"), *out, "--scale", "PBE"])


DAMAGED = {
    "hull": ("hull.npz", "info {} "),
    "table": ("rows.csv.gz", "check {} --n-jobs 1"),
    "structures": ("rows.csv.gz", "build {} --out out.npz --source structures"),
    "unknown content": ("rows.csv.gz", "build {} --out out.npz"),
    "entries": ("entries.json.bz2", "build {} --out out.npz --scale PBE"),
    "formation energies": ("table.csv.gz", "build {} --out out.npz --source formation-energies --elements {elements}"),
}


@pytest.fixture
def files(tmp_path, monkeypatch, csv, entries, mp20_rows):
    """Sound files of every kind."""
    monkeypatch.chdir(tmp_path)
    ConvexHull.load("mp20-chgnet").save("hull.npz")
    mp20_rows.head(20).to_csv("rows.csv.gz", index=False)
    (tmp_path / "entries.json.bz2").write_bytes(entries.read_bytes())
    rows = "".join(f"NaCl,-{number / 7}\n" for number in range(2000))
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(f"formula,formation_energy_per_atom\n{rows}".encode()))
    return tmp_path


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_cut_file_is_one_line(kind, files, entries):
    name, command = DAMAGED[kind]
    content = (files / name).read_bytes()
    for size in (0, 7, len(content) // 2):
        (files / name).write_bytes(content[:size])
        with pytest.raises(SystemExit, match=rf"^hull: {name} [^\n]*$"):
            run(command.format(name, elements=entries).split())


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_missing_file_is_one_line(kind, files, entries):
    name, command = DAMAGED[kind]
    (files / name).unlink()
    with pytest.raises(SystemExit, match=rf"^hull: [^\n]*{name}[^\n]*$"):
        run(command.format(name, elements=entries).split())


def test_a_missing_folder_is_named_before_the_work(csv):
    with pytest.raises(SystemExit, match="out must be a file in an existing folder, got nowhere"):
        run(["build", str(csv), "--out", "nowhere/hull.npz"])


def test_the_command_itself_ends_with_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rewards.cli", "info", str(tmp_path / "no.npz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("hull: hull must be a file or one of")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("fault", [ValueError("ours"), OSError("ours"), KeyError("ours"), TypeError("ours")])
def test_a_fault_of_the_project_keeps_its_traceback(fault, monkeypatch):
    def broken(hull):
        raise fault

    monkeypatch.setattr(ConvexHull, "elements", broken)
    with pytest.raises(type(fault), match="ours") as caught:
        run(["info", "mp20-chgnet"])
    assert caught.traceback[-1].name == "broken"
