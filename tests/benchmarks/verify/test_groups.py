"""Masked random episodes in every space group."""

import numpy as np
import pytest

from benchmarks.verify.groups import check_group, operations, roll_out


@pytest.mark.parametrize("first", range(1, 231, 23))
def test_episodes_end_legally_with_the_requested_symmetry(first):
    for group in range(first, first + 23):
        counts = check_group(group, episodes=100, detected=2)
        assert counts.sampled == 100
        assert counts.wrong == 0, f"group {group}"


def test_a_wrong_group_is_noticed():
    crystals = roll_out(216, 50, seed=0)
    object.__setattr__(crystals, "G", np.full(50, 225))
    rotations, translations = operations(225)
    from benchmarks.verify.groups import _detected

    apart = crystals.min_distance(0.5) >= 0.5
    found = [_detected(crystal, rotations, translations) for crystal in crystals[np.flatnonzero(apart)[:10]]]
    assert None in found
