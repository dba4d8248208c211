import numpy as np
import pytest

from crystal_env.crystal import Crystal, CrystalBatch
from rewards.hull.convex_hull import ConvexHull
from rewards.hull.energies import crystal_energies


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path))


@pytest.fixture
def gold():
    return Crystal.from_string("225-a-Au-0-0-0-X-4.08-4.08-4.08-90-90-90")


def test_energies_are_those_of_the_potential_in_order(crystals, pair_potential, monkeypatch):
    monkeypatch.setattr("rewards.hull.energies._CHUNK", 2)
    energies = crystal_energies(crystals, pair_potential)
    np.testing.assert_array_equal(energies.total, pair_potential.energies(crystals.to_atoms()).total)
    assert list(energies.failures) == [None] * 5


def test_finished_chunks_are_not_computed_again(crystals, pair_potential, gold, monkeypatch):
    monkeypatch.setattr("rewards.hull.energies._CHUNK", 2)
    crystal_energies(crystals[:4], pair_potential)
    assert pair_potential.seen == [2, 2]
    again = crystal_energies(CrystalBatch.from_crystals([*crystals, gold]), pair_potential)
    assert pair_potential.seen == [2, 2, 2]
    assert again.failures[5] == "no gold"
    repeated = crystal_energies(CrystalBatch.from_crystals([*crystals, gold]), pair_potential)
    assert pair_potential.seen == [2, 2, 2]
    np.testing.assert_array_equal(repeated.total, again.total)
    assert list(repeated.failures) == list(again.failures)


def test_other_potential_has_its_own_energies(crystals, pair_potential):
    crystal_energies(crystals, pair_potential)
    pair_potential.name = "other"
    crystal_energies(crystals, pair_potential)
    assert pair_potential.seen == [5, 5]


def test_interruption_loses_the_current_chunk_only(crystals, pair_potential, monkeypatch):
    monkeypatch.setattr("rewards.hull.energies._CHUNK", 1)
    energies, calls = pair_potential.energies, []

    def interrupted(atoms):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return energies(atoms)

    pair_potential.energies = interrupted
    with pytest.raises(KeyboardInterrupt):
        crystal_energies(crystals, pair_potential)
    crystal_energies(crystals, pair_potential)
    assert len(calls) == 4 + 2


def test_crystals_the_potential_fails_on_are_left_out_with_a_warning(crystals, pair_potential, gold):
    with pytest.warns(UserWarning, match="left out crystal 5: no gold"):
        hull = ConvexHull.from_structures(
            CrystalBatch.from_crystals([*crystals, gold]), pair_potential, date="2026-01-01"
        )
    assert hull.provenance.n_structures == 5
    assert hull.provenance.date == "2026-01-01"
    assert set(hull.provenance.versions) >= {"crystalgen", "torch"}
    assert len(hull) == 5


def test_no_crystals_have_no_energies(pair_potential):
    assert crystal_energies(CrystalBatch.empty(), pair_potential).total.shape == (0,)
