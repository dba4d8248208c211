"""Random legal actions are legal and uniform."""

import numpy as np
import pytest
from scipy.stats import chisquare

from crystal_env import sample_masked


@pytest.mark.parametrize("width", [1, 7, 64, 65, 194, 1106])
@pytest.mark.parametrize("dtype", [bool, np.int8])
def test_only_allowed_ids_are_sampled_and_all_of_them(width, dtype):
    rng = np.random.default_rng(0)
    masks = rng.random((200, width)) < 0.1
    masks[np.arange(200), rng.integers(0, width, 200)] = True
    seen = np.zeros_like(masks)
    for _ in range(3000 if width < 100 else 50):
        sampled = sample_masked(masks.astype(dtype), rng)
        assert masks[np.arange(200), sampled].all()
        seen[np.arange(200), sampled] = True
    assert width > 100 or (seen == masks).all()


def test_every_allowed_id_has_the_same_probability():
    rng = np.random.default_rng(1)
    mask = np.zeros(1106, bool)
    mask[[0, 3, 63, 64, 65, 127, 128, 500, 1105]] = True
    sampled = sample_masked(np.tile(mask, (90_000, 1)), rng)
    assert chisquare(np.bincount(sampled, minlength=1106)[mask]).pvalue > 1e-4


def test_same_generator_gives_the_same_actions_and_no_rows_none():
    masks = np.ones((5, 30), bool)
    sampled = [sample_masked(masks, np.random.default_rng(3)) for _ in range(2)]
    assert np.array_equal(*sampled)
    assert sample_masked(masks[:0], np.random.default_rng(3)).shape == (0,)


def test_rows_without_an_allowed_id_are_refused():
    masks = np.ones((3, 4), bool)
    masks[1] = False
    with pytest.raises(ValueError, match="row 1 allows none"):
        sample_masked(masks, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"shape \(N, V\), got \(4,\)"):
        sample_masked(masks[0], np.random.default_rng(0))
