"""The comparison of potentials with DFT."""

import numpy as np
import pytest

from benchmarks.verify.potentials import Reference, main, read_reference, trust
from crystal_env.elements import SYMBOLS
from rewards import ConvexHull
from rewards.hull.file_format import DFT, Provenance
from rewards.hull.formulas import as_compositions
from rewards.potentials import MP2020
from rewards.potentials.mp2020 import corrections


@pytest.fixture(scope="module")
def hull_file(tmp_path_factory):
    """A hull of the elements alone, each at -3 eV/atom."""
    elements = [(symbol, -3.0) for symbol in SYMBOLS[1:95]]
    path = tmp_path_factory.mktemp("hull") / "elements.npz"
    ConvexHull.from_entries(elements, Provenance(DFT, scale=MP2020)).save(path)
    return path


@pytest.fixture
def structures(data_folder, tmp_path):
    """The first 12 structures of Alexandria, and their file."""
    import ase.io

    atoms = ase.io.read(data_folder / "alexandria_dft_1k.xyz.gz", ":12", format="extxyz")
    ase.io.write(tmp_path / "few.extxyz", atoms)
    return atoms, tmp_path / "few.extxyz"


def test_errors_and_rates_are_those_of_a_known_case():
    hull = ConvexHull.from_entries([("Na", 0.0), ("Cl", 0.0), ("La", 0.0), ("NaCl", -2.0), ("LaCl", -2.0)])
    compositions = as_compositions(["NaCl", "NaCl", "NaCl", "LaCl", "NaCl", "NaCl"])
    truth, found = np.array([[0, 0.05, 0.2, 0.2, 0.5, 0.0], [0.3, 0.05, 0.1, 0.15, 0.1, np.nan]])
    energies = [(-1 + above) * 2 for above in (truth, found)]
    known = trust(Reference([], compositions, energies[0], hull, truth), energies[1], hull)
    assert known.n == 5
    assert known.energy == pytest.approx((0.3 + 0.0 + 0.1 + 0.05 + 0.4) / 5)
    assert known.e_above_hull == pytest.approx(known.energy)
    assert known.near == pytest.approx((0.3 + 0.0 + 0.1 + 0.05) / 4)
    assert known.near_f == pytest.approx(0.05)
    assert known.bias == pytest.approx((0.3 - 0.1 - 0.05) / 4)
    counts = [(one["count"], one["total"]) for one in (known.true_stable, known.false_stable, known.precision)]
    assert counts == [(1, 3), (2, 3), (1, 3)]


def test_energies_of_the_file_are_corrected(structures, hull_file):
    atoms, path = structures
    reference = read_reference(path, ConvexHull.load(hull_file))
    expected = [one.get_potential_energy() for one in atoms] + corrections(atoms)[0]
    np.testing.assert_allclose(reference.energies, expected)
    sizes = [len(one) for one in atoms]
    np.testing.assert_allclose(reference.e_above_hull, expected / sizes + 3.0)


def test_an_interrupted_comparison_resumes(structures, hull_file, tmp_path, capsys):
    potentials, out = ("chgnet", f"chgnet@{hull_file}"), tmp_path / "out"
    main(structures[1], potentials[:1], hull_file, out)
    first = capsys.readouterr().out
    assert first.startswith("few.extxyz: 12 structures")
    assert "| chgnet-0.3.0 | DFT | 12 |" in first
    file = out / "chgnet-0.3.0.npz"
    with np.load(file) as kept:
        total, seconds = kept["total"], kept["seconds"]
    np.savez(file, total=total[:5], seconds=seconds)
    main(structures[1], potentials, hull_file, out)
    again = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[3:-1] for line in again[-2:]] == [first.splitlines()[-1].split(" | ")[3:-1]] * 2
    with np.load(file) as kept:
        np.testing.assert_allclose(kept["total"], total, atol=1e-4)
        assert kept["seconds"] > seconds


def test_what_cannot_be_compared_is_named(structures, hull_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.xyz"):
        main(tmp_path / "nothing.xyz", hull=hull_file)
    with pytest.raises(ValueError, match=r"'sevennet-0\+MP2020'"):
        main(structures[1], ("sevennet-0",), hull_file)
    bare = structures[0][0].copy()
    bare.write(tmp_path / "bare.extxyz")
    with pytest.raises(ValueError, match="must have an energy"):
        main(tmp_path / "bare.extxyz", hull=hull_file)


def test_a_missing_hull_says_which_files_it_is_made_of(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="mp_hull_reference"):
        main(tmp_path / "any.xyz")
