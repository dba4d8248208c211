"""Samples evaluated by a second potential, and how far it agrees with the first.

Which structures are the same and which are novel does not depend on the potential: only energies are computed again.
Agreement is at 0.1 eV/atom above either potential's own hull.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.metrics.intervals import rate
from benchmarks.metrics.properties import sample_energies
from benchmarks.metrics.sample import SampleMetrics
from benchmarks.metrics.summary import summarise
from crystal_env.reward import Reward

_OF_ENERGIES = (
    "scored",
    "stable_0.1",
    "stable_0.0",
    "unique_stable_0.1",
    "sun_0.1",
    "sun_0.0",
    "sun_0.1_without_outliers",
)


def evaluate_again(metrics: SampleMetrics, energy: Reward) -> SampleMetrics:
    """Return the metrics of samples with energies of another potential.

    Args:
        metrics: B samples and their metrics by the first potential.
        energy: reward of the other potential, with the term ``e_above_hull``.
    """
    return replace(metrics, e_above_hull=sample_energies(metrics.samples, energy))


def cross_check_summary(first: SampleMetrics, second: SampleMetrics) -> dict[str, Any]:
    """Return rates and energies by the second potential, and its agreement with the first, JSON-plain.

    Of the further rates, ``confirmed_stable_0.1`` and ``confirmed_sun_0.1`` are fractions of what is stable or S.U.N.
    by the first potential, ``agreement_0.1`` is one of the samples with both energies, and ``stable_by_both_0.1`` and
    ``sun_by_both_0.1`` are of all attempts.

    Args:
        first: metrics of B samples.
        second: the same samples with the energies of another potential, from `evaluate_again`.
    """
    numbers, total = summarise(second), first.samples.n_attempts
    stable, confirmed, sun = first.stable(), second.stable(), first.sun()
    gap = second.e_above_hull - first.e_above_hull
    both = np.isfinite(gap)
    rates = {name: numbers["rates"][name] for name in _OF_ENERGIES} | {
        "confirmed_stable_0.1": rate((stable & confirmed).sum(), stable.sum()),
        "confirmed_sun_0.1": rate((sun & confirmed).sum(), sun.sum()),
        "agreement_0.1": rate((stable == confirmed)[both].sum(), both.sum()),
        "stable_by_both_0.1": rate((stable & confirmed).sum(), total),
        "sun_by_both_0.1": rate((sun & confirmed).sum(), total),
    }
    return {
        "rates": rates,
        "e_above_hull_mean_unscored_10": numbers["e_above_hull_mean_unscored_10"],
        "e_above_hull_median": numbers["e_above_hull_median"],
        "e_above_hull_difference_median": float(np.median(np.abs(gap[both]))) if both.any() else None,
    }
