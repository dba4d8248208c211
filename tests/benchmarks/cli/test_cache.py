"""The cache's commands: what it holds, and that nothing else is ever removed."""

import pytest

from benchmarks.cli.cli import main
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.dataset import load_crystals
from rewards.hull.energies import crystal_energies
from rewards.potentials import load_potential

GOLD = "225-a-Au-0-0-0-X-4.08-4.08-4.08-90-90-90"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with the energy of gold, a file of structures, and files of the user."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(folder))
    gold = Crystal.from_string(GOLD)
    crystal_energies(CrystalBatch.from_crystals([gold]), load_potential("ase:ase.calculators.emt:EMT"))
    (tmp_path / "gold.cif").write_text(gold.to_structure().to(fmt="cif"))
    load_crystals(tmp_path / "gold.cif", n_jobs=1, progress=False)
    for name in ("notes.txt", "tokens/mine.npz", "data/mp20.csv", "energies/EMT/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of the user")
    return folder


def of_the_user(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == b"of the user"}


def test_it_tells_what_is_there(cache, capsys):
    main(["cache", "info"])
    shown = capsys.readouterr().out
    assert str(cache) in shown
    assert "tokens: 1 files" in shown
    assert "energies: 2 files" in shown
    assert "EMT-" in shown
    assert "ase" in shown


def test_it_is_cleared_and_files_of_the_user_stay(cache, capsys):
    before = of_the_user(cache)
    main(["cache", "clear", "energies"])
    assert "energies: 2 files" in capsys.readouterr().out
    assert {path.name for path in cache.rglob("*.npz")} > {"mine.npz"}
    main(["cache", "clear"])
    assert {path for path in cache.rglob("*") if path.is_file()} == before == of_the_user(cache)
    assert not list((cache / "energies").glob("EMT-*"))
    main(["cache", "clear"])
    assert "tokens: 0 files" in capsys.readouterr().out


def test_an_empty_cache_is_no_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path / "nothing"))
    main(["cache", "info"])
    main(["cache", "clear"])
    assert "energies: 0 files" in capsys.readouterr().out
