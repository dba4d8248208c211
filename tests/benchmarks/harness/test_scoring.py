import numpy as np
import pytest

from benchmarks.harness.scoring import evaluate_agent, score_samples, seed_numbers
from benchmarks.samples.samples import Failure, Outside, Samples
from benchmarks.tasks import find_task
from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import RewardResult
from rewards import Validity

SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"
PAIRS = [("Na", "Cl", 5.6), ("K", "Br", 6.6), ("Li", "F", 4.1)]
CRYSTALS = CrystalBatch.from_crystals([Crystal.from_string(SALT.format(a, b, *[c] * 3)) for a, b, c in PAIRS])
TASK = find_task("density").resized(budget=10)


def evaluated(samples, totals):
    trace = RewardResult(np.array(totals, float), {}, np.full(len(totals), None, object))
    return evaluate_agent(TASK, samples, (CRYSTALS[: len(totals)], trace), CrystalBatch.empty(), 1)


def test_numbers_of_cases_are_means_and_failures_are_counted():
    samples = Samples.from_items([*CRYSTALS, Failure("nothing"), Failure("nothing")])
    one, other = evaluated(samples, [1, 0, 1]), evaluated(samples, [0, 0])
    numbers = seed_numbers([one, other])
    assert numbers["failures"] == {"nothing": 4}
    assert numbers["summary"]["rates"]["valid"]["total"] == 10
    assert numbers["summary"]["rates"]["unique"]["count"] == 6  # structures of different cases are different
    assert (numbers["calls"], numbers["budget"]) == (5, 20)
    assert numbers["efficiency"]["calls_to_1"] is None
    assert numbers["efficiency"]["mean_top_1"] == pytest.approx((1 + 0) / 2)
    assert len(numbers["curve"]["calls"]) == len(numbers["curve"]["top_10"])


def test_rewards_of_samples_stand_in_their_order():
    items = [CRYSTALS[0], Outside(CRYSTALS[1].to_structure(), "too many sites"), CRYSTALS[2]]
    result = score_samples(Validity(), Samples.from_items(items), floor=-3.0)
    assert result.total.tolist() == [1, -3, 1]
    assert result.failures.tolist() == [None, "outside the representation", None]
    assert result.success().tolist() == [True, False, True]
