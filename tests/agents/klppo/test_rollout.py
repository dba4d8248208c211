"""What is logged of a batch."""

import numpy as np
import pytest

from agents.klppo.rollout import Rollout, variety
from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import RewardResult

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
CSCL = "221-a-Cs-0-0-0-b-Cl-1/2-1/2-1/2-X-4.1-4.1-4.1-90-90-90"


def batch(*strings):
    return CrystalBatch.from_crystals([Crystal.from_string(string) for string in strings])


CRYSTALS = batch(
    SALT.format("Na", "Cl", 5.6), SALT.format("Cl", "Na", 5.7), SALT.format("K", "Br", 6.6), CSCL,
    SALT.format("H", "H", 0.8),
)  # fmt: skip


def rollout():
    failures = np.array([None, None, None, None, "two atoms are 0.4 Å apart, at least 0.5 is needed"], object)
    rewards = np.array([0.0, -0.1, -1.0, np.nan, -10.0])
    terms = {"e": np.array([0.0, 0.1, 1.0, 2.0, 10.0]), "success": np.array([1.0, 1.0, 0.0, 0.0, 0.0])}
    parts = dict.fromkeys(("letters", "elements", "coordinates", "lattice"), np.full(5, -0.5))
    log_prob = {"total": np.full(5, -2.0), **parts}
    base = {"total": np.array([-2.0, -3.0, -2.5, -2.0, -2.0]), **parts}
    return Rollout(CRYSTALS, RewardResult(rewards, terms, failures), rewards, log_prob, base)


def test_numbers_of_a_batch_by_hand():
    logged = rollout().statistics()
    assert logged["rollout/skipped"] == 1
    assert logged["rollout/reward_mean"] == pytest.approx((0 - 0.1 - 1 - 10) / 4)
    assert logged["rollout/kl"] == pytest.approx((0 + 1 + 0.5 + 0) / 4)
    assert logged["rollout/kl_k3"] == pytest.approx((np.exp(-1) + np.exp(-0.5) - 0.5) / 4)
    assert logged["entropy/letters"] == 0.5
    assert logged["terms/e"] == pytest.approx(13.1 / 5)
    assert logged["terms_of_scored/e"] == pytest.approx(3.1 / 4)
    assert logged["rollout/failure_rate"] == 0.2


def test_variety_counts_equivalent_descriptions_once():
    seen = variety(CRYSTALS, np.array([True, True, False, True, False]))
    assert seen["rollout/unique_rate"] == 4 / 5  # both descriptions of rock salt are one
    assert seen["rollout/unique_success_rate"] == 2 / 5
    assert seen["rollout/valid_rate"] == 1.0 - 1 / 5 * (CRYSTALS.min_distance(0.5)[4] < 0.5)
    assert seen["rollout/success_rate"] == 3 / 5
    assert seen["variety/formulas"] == 4
    assert seen["variety/templates"] == 2
    assert seen["variety/prototypes"] == 3
    assert seen["variety/largest_formula_fraction"] == 2 / 5
    assert seen["variety/elements"] == 6
    assert seen["variety/space_groups"] == 2


def test_failures_of_one_kind_are_counted_together():
    assert rollout().failures() == {"two atoms are Å apart, at least is needed": 1}
