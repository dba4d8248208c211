import copy
import json
import pickle
import time

import numpy as np
import pytest

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents
from crystal_env.reward import RewardResult, Scorer
from rewards.combinators.cache import Cached
from rewards.combinators.metered import BudgetExceeded, Metered
from rewards.validity import Validity


def sites(crystals: CrystalBatch) -> RewardResult:
    """The number of sites; it raises for gold and refuses iron."""
    if (crystals.A == 79).any():
        raise RuntimeError("gold")
    failures = np.full(len(crystals), None, object)
    failures[(crystals.A == 26).any(1)] = "iron"
    total = crystals.n_sites().astype(float)
    return RewardResult(total, {"twice": 2 * total}, failures)


@pytest.fixture
def gold() -> CrystalBatch:
    return Crystal.from_string("225-a-Au-0-0-0-X-4.08-4.08-4.08-90-90-90").to_batch()


def test_every_query_is_counted(crystals):
    meter = Metered(sites)
    result = meter(crystals)
    meter(crystals[1:3])
    assert (meter.calls, meter.batches, meter.failures, meter.distinct) == (7, 2, 1, 5)
    expected = sites(crystals)
    assert result.total.tolist() == expected.total.tolist()
    assert result.terms["twice"].tolist() == expected.terms["twice"].tolist()
    assert result.failures.tolist() == expected.failures.tolist()


def test_crystals_in_other_settings_are_not_distinct(crystals):
    meter = Metered(sites)
    for seed in range(5):
        meter(equivalents(crystals, np.random.default_rng(seed)))
    assert (meter.calls, meter.distinct) == (25, 5)


def test_distinct_crystals_are_counted_only_on_request(crystals):
    meter = Metered(sites, count_distinct=False)
    meter(crystals)
    assert meter.distinct is None


def test_batch_that_raises_counts_once_in_calls(crystals, gold):
    meter = Metered(sites, floor=-3.0)
    with pytest.warns(RuntimeWarning, match="gold"):
        result = meter(CrystalBatch.concatenate([crystals[:2], gold]))
    assert (meter.calls, meter.batches, meter.failures) == (3, 4, 1)
    assert result.total.tolist() == [2, 3, -3]


def test_seconds_are_those_spent_in_the_reward(crystals):
    def slow(crystals):
        time.sleep(0.05)
        return np.zeros(len(crystals))

    meter = Metered(slow)
    start = time.perf_counter()
    meter(crystals)
    meter(crystals)
    assert 0.1 <= meter.seconds <= time.perf_counter() - start


def test_inside_a_cache_real_runs_are_counted_and_outside_requests(crystals):
    inside = Metered(sites)
    outside = Metered(Cached(inside))
    for _ in range(3):
        outside(crystals)
    assert (inside.calls, inside.batches) == (5, 1)
    assert (outside.calls, outside.batches) == (15, 3)


def test_batch_beyond_the_budget_raises_before_it_is_scored(crystals):
    meter = Metered(sites, budget=7)
    meter(crystals)
    with pytest.raises(BudgetExceeded, match="budget of 7 crystals is exceeded: 5 were scored, 3 queried"):
        meter(crystals[:3])
    assert (meter.calls, meter.batches) == (5, 1)
    meter(crystals[:2])
    assert meter.calls == 7


def test_crystals_beyond_the_budget_get_the_floor(crystals):
    meter = Metered(sites, budget=2, on_exceeded="floor", floor=-4.0)
    result = meter(crystals)
    assert result.total.tolist() == [2, 3, -4, -4, -4]
    assert result.terms["twice"].tolist() == [4, 6, -4, -4, -4]
    assert result.failures.tolist() == [None, None, *["the budget of 2 crystals is spent"] * 3]
    assert meter(crystals[:1]).total.tolist() == [-4]
    assert (meter.calls, meter.batches) == (2, 1)


def test_scorer_gives_the_same_whether_the_budget_raises_or_not(crystals):
    raising, quiet = (Scorer(Metered(sites, budget=2, on_exceeded=how), -10.0) for how in ("raise", "floor"))
    with pytest.warns(RuntimeWarning, match="BudgetExceeded"):
        assert raising(crystals).total.tolist() == quiet(crystals).total.tolist() == [2, 3, -10, -10, -10]


def test_state_resumes_where_it_was_saved(crystals):
    meter = Metered(sites, budget=6)
    meter(crystals)
    again = Metered(sites, budget=6)
    again.load_state_dict(json.loads(json.dumps(meter.state_dict())))
    again(crystals[:1])
    assert (again.calls, again.batches, again.failures, again.distinct) == (6, 2, 1, 5)
    with pytest.raises(BudgetExceeded):
        again(crystals[:1])
    with pytest.raises(ValueError, match=r"lacks \['batches', 'failures', 'seconds', 'seen'\]"):
        again.load_state_dict({"calls": 3})


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda meter: pickle.loads(pickle.dumps(meter))])
def test_copy_counts_for_itself(crystals, duplicate):
    meter = Metered(Validity())
    meter(crystals)
    other = duplicate(meter)
    meter(crystals[:1])
    assert other(crystals).total.tolist() == Validity()(crystals).total.tolist()
    assert (meter.calls, other.calls, meter.batches, other.batches) == (6, 10, 2, 2)


def test_no_crystals_are_no_calls():
    meter = Metered("rewards:Validity", budget=0)
    assert len(meter([]).total) == 0
    assert (meter.calls, meter.batches, meter.distinct) == (0, 0, 0)


def test_wrong_arguments_are_value_errors():
    with pytest.raises(ValueError, match="budget must be an integer of at least 0, got -1"):
        Metered(sites, budget=-1)
    with pytest.raises(ValueError, match="on_exceeded must be one of"):
        Metered(sites, on_exceeded="stop")
