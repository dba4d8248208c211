"""Crystals that were sampled and scored, on disk as in memory."""

import numpy as np
import pytest

from agents.training.scored_samples import ScoredSamples
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.reward import RewardResult, Scorer

CRYSTALS = CrystalBatch.from_crystals(
    Crystal.from_string(f"229-a-{element}-0-0-0-X-{a}-{a}-{a}-90-90-90") for element in ("Fe", "W") for a in (2.9, 3.1)
)


class Volume:
    """A reward with a term for some; it fails on tungsten, and keeps what it has seen."""

    def __init__(self):
        self.seen = []

    def __call__(self, crystals):
        self.seen += [str(crystal) for crystal in crystals]
        total = crystals.volume_per_atom()
        failures = np.array(["heavy" if A == 74 else None for A in crystals.A[:, 0]], object)
        terms = {"success": np.ones(len(total)), "a": crystals.L[:, 0]} if (crystals.A[:, 0] == 26).all() else {}
        return RewardResult(total, terms, failures)


def test_samples_grow_in_order():
    reward, rng = Volume(), np.random.default_rng(0)
    scorer, samples, rows = Scorer(reward, -1.0), ScoredSamples(), np.zeros(0, int)
    for size in (3, 0, 5, 7, 1):
        new = rng.integers(0, 4, size)
        samples, rows = samples.extended(CRYSTALS[new], scorer), np.append(rows, new)
    assert len(samples) == len(rows) == 16
    assert reward.seen == [str(crystal) for crystal in CRYSTALS[rows]]
    assert np.array_equal(samples.sampled.L, CRYSTALS.L[rows])
    assert np.array_equal(samples.result.total, CRYSTALS.volume_per_atom()[rows])
    assert [f is None for f in samples.result.failures] == (CRYSTALS.A[rows, 0] == 26).tolist()


def test_a_file_holds_all_of_it(tmp_path):
    def relax(crystals):
        return CRYSTALS[np.arange(len(crystals))[::-1]], np.array([None, "", "no ø", None], object)

    samples = ScoredSamples().extended(CRYSTALS, Scorer(Volume(), -1.0), relax)
    samples.save(tmp_path / "samples.npz")
    loaded = ScoredSamples.load(tmp_path / "samples.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["samples.npz"]
    for name in ("G", "W", "A", "XYZ", "L"):
        assert np.array_equal(getattr(loaded.sampled, name), getattr(CRYSTALS, name))
        assert np.array_equal(getattr(loaded.crystals, name), getattr(CRYSTALS[::-1], name))
    assert np.array_equal(loaded.result.total, samples.result.total)
    assert list(loaded.result.failures) == ["heavy", "not relaxed: ", "not relaxed: no ø", None]
    assert loaded.result.terms.keys() == samples.result.terms.keys()


def test_no_crystals_can_be_saved(tmp_path):
    ScoredSamples().save(tmp_path / "samples.npz")
    assert len(ScoredSamples.load(tmp_path / "samples.npz")) == 0


def test_a_relaxation_that_loses_crystals_is_an_error():
    with pytest.raises(ValueError, match="relax must return 4 crystals and reasons, got 3, 4"):
        ScoredSamples().extended(CRYSTALS, Scorer(Volume(), 0.0), lambda c: (c[:3], np.full(4, None)))
