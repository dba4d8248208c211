"""Marginals of samples against those of known crystals."""

import numpy as np
import pytest

from benchmarks.baselines.marginal_sampler import TokenMarginals
from benchmarks.baselines.search import grammar_of
from benchmarks.tasks import find_task


def test_marginals_of_samples_are_those_of_known_crystals(known):
    sampler = TokenMarginals(known, grammar_of(find_task("validity")), smoothing=0.0)
    crystals = sampler.sample(np.full(4000, 221), 0)
    rows = known.rows_of(221)
    for column in (known.crystals.W[rows][:, 0], known.crystals.n_sites()[rows] == 1):
        same = crystals.W[:, 0] if column.dtype != bool else crystals.n_sites() == 1
        for value in np.unique(column):
            assert (same == value).mean() == pytest.approx((column == value).mean(), abs=0.04)
    A, known_A = crystals.A[crystals.A > 0], known.crystals.A[rows][known.crystals.A[rows] > 0]
    assert (A == 8).mean() == pytest.approx((known_A == 8).mean(), abs=0.04)
    ratio = crystals.volume_per_atom().mean() / known.crystals.volume_per_atom()[rows].mean()
    assert 0.7 < ratio < 1.4
