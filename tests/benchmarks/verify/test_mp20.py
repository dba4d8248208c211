"""Crystals of MP-20 survive encoding, replay and decoding."""

import numpy as np

from benchmarks.verify.mp20 import matches, replay
from crystal_env import CrystalBatch
from crystal_env.dataset import read_structures


def test_known_crystals_replay_and_match_their_originals(data_folder):
    sources = list(read_structures(data_folder / "mp20_val.csv.gz"))[:200]
    decoded, forbidden = replay(CrystalBatch.from_structures(sources))
    assert not forbidden.any()
    assert matches(sources, list(decoded)) == ["match"] * 200


def test_a_changed_crystal_is_noticed(data_folder):
    sources = list(read_structures(data_folder / "mp20_val.csv.gz"))[:20]
    crystals = CrystalBatch.from_structures(sources)
    swapped = [crystals[int(i)] for i in np.roll(np.arange(20), 1)]
    assert "match" not in matches(sources, swapped)
