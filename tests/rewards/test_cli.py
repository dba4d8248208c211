import bz2
import json

import pytest
from pymatgen.core.entries import ComputedEntry

from rewards.cli import main
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
    with pytest.raises(ValueError, match="scale must say"):
        main(["build", str(entries), *out])
    with pytest.raises(ValueError, match=r"one kind, got \['entries', 'structures'\]"):
        main(["build", str(entries), str(csv), *out])
    with pytest.raises(ValueError, match=r"'chgnet' does not take \{'weights': 'file'\}"):
        main(["build", str(csv), *out, "--weights", "file"])
    with pytest.raises(ValueError, match="potential must be"):
        main(["build", str(csv), *out, "--potential", "lennard-jones"])
    with pytest.raises(ValueError, match="no such file of entries"):
        main(["build", str(tmp_path / "no.json"), *out, "--scale", "PBE"])
