import pytest

from rewards.cli import main
from rewards.hull import ConvexHull


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
    assert hull.provenance.energy_model == "chgnet-0.3.0"
    main(["info", str(out)])
    assert "n_structures: 4" in capsys.readouterr().out


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
