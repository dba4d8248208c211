"""The diversity filter against the rule that it follows, applied to one crystal after the other."""

import copy
import json
import pickle

import numpy as np
import pytest

from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import RewardResult
from rewards.combinators.diversity import Diversity
from rewards.density import Density

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
ONE, TWO, THREE = SALT.format("Na", "Cl", 5.6), SALT.format("Na", "Cl", 5.7), SALT.format("Cl", "Na", 5.6)
OTHER, CESIUM = SALT.format("K", "Br", 6.6), "221-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3.4-3.4-3.4-90-90-90"


def ones(crystals):
    return np.ones(len(crystals))


def batch(*texts):
    return CrystalBatch.from_crystals(Crystal.from_string(text) for text in texts)


def rule(seen, free=3, full=6):
    """The weight of a crystal of whose kind so many were seen: memory/ltm.py of MatInvent."""
    if seen <= free:
        return 1.0
    return (full - seen) / (full - free) if seen < full else 0.0


@pytest.mark.parametrize(("free", "full"), [(3, 6), (0, 1), (1, 10)])
def test_one_by_one_the_weights_are_those_of_the_rule(free, full):
    reward = Diversity(ones, free=free, full=full)
    found = [float(reward(batch(ONE)).total[0]) for _ in range(12)]
    assert found == pytest.approx([rule(seen, free, full) for seen in range(12)])
    assert reward(batch(OTHER)).total.tolist() == [1.0]


def test_the_sum_of_the_weights_does_not_depend_on_the_batches():
    rng = np.random.default_rng(0)
    crystals = batch(*rng.choice([ONE, TWO, OTHER, CESIUM], 40))
    whole = Diversity(ones)(crystals)
    for _ in range(5):
        reward, cuts = Diversity(ones), np.sort(rng.integers(41, size=5))
        parts = [reward(part) for part in map(crystals.__getitem__, map(slice, [0, *cuts], [*cuts, 40]))]
        assert sum(part.total.sum() for part in parts) == pytest.approx(whole.total.sum())
    assert whole.total.sum() == pytest.approx(2 * sum(rule(seen) for seen in range(6)))


def test_crystals_of_one_kind_get_the_same_in_any_order():
    crystals = batch(*[ONE, TWO, OTHER, THREE] * 3)
    expected = Diversity(ones)(crystals).total
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_array_equal(Diversity(ones)(crystals[order]).total, expected[order])
    assert len(set(expected[[0, 1, 3]])) == 1
    assert expected[0] == pytest.approx(np.mean([rule(seen) for seen in range(9)]))
    assert expected[2] == 1


@pytest.mark.parametrize(
    ("bucket", "kinds"),
    [
        ("formula", [[ONE, TWO, THREE, CESIUM], [OTHER]]),
        ("template", [[ONE, TWO, THREE, OTHER], [CESIUM]]),
        ("structure", [[ONE, TWO, THREE], [OTHER], [CESIUM]]),
    ],
)
def test_buckets_hold_what_is_of_one_kind(bucket, kinds):
    for kind in kinds:
        for first in kind:
            for second in (text for kind in kinds for text in kind):
                reward = Diversity(ones, bucket, free=0, full=1)
                assert reward(batch(first)).total[0] == 1
                assert reward(batch(second)).total[0] == (0 if second in kind else 1)


def test_what_is_paid_falls_to_the_floor_and_never_rises():
    def axis(crystals):
        return crystals.L[:, 0] - 6.0

    crystals = batch(ONE, SALT.format("Na", "Cl", 9.0))
    reward = Diversity(axis, free=0, full=1, floor=-0.1)
    reward(crystals)
    np.testing.assert_allclose(reward(crystals).total, [-0.4, -0.1])


def test_terms_show_the_reward_and_its_weight():
    reward = Diversity(Density(), free=0, full=2, floor=-10.0)
    crystals = batch(ONE, OTHER)
    reward(crystals)
    result, plain = reward(crystals), Density()(crystals)
    np.testing.assert_array_equal(result.terms["diversity"], [0.5, 0.5])
    np.testing.assert_array_equal(result.terms["diversity/reward"], plain.total)
    np.testing.assert_array_equal(result.terms["density"], plain.terms["density"])
    np.testing.assert_allclose(result.total, -10 + 0.5 * (plain.total + 10))


def test_what_cannot_be_scored_is_not_remembered():
    def failing(crystals):
        return RewardResult(np.zeros(len(crystals)), {}, np.full(len(crystals), "broken", object))

    reward = Diversity(failing)
    for _ in range(10):
        assert reward(batch(ONE)).failures.tolist() == ["broken"]
    assert reward.state_dict()["seen"] == {}


def test_memory_is_bounded_and_the_oldest_is_forgotten_first():
    reward = Diversity(ones, free=0, full=1, size=2)
    texts = [SALT.format(symbol, "Cl", 6.0) for symbol in ("Li", "Na", "K")]
    for text in (texts[0], texts[1], texts[0], texts[2]):
        reward(batch(text))
    assert list(reward.state_dict()["seen"].values()) == [2, 1]
    assert reward(batch(texts[1])).total[0] == 1
    assert reward(batch(texts[2])).total[0] == 0


@pytest.mark.parametrize("bucket", ["formula", "template", "structure"])
def test_a_restored_memory_resumes_where_it_was_saved(bucket):
    reward = Diversity(ones, bucket)
    reward(batch(*[ONE] * 4, OTHER))
    restored = Diversity(ones, bucket)
    restored.load_state_dict(json.loads(json.dumps(reward.state_dict())))
    copies = [restored, pickle.loads(pickle.dumps(reward)), copy.deepcopy(reward)]
    expected = reward(batch(ONE, CESIUM, OTHER)).total
    assert expected.min() < 1
    for other in copies:
        np.testing.assert_array_equal(other(batch(ONE, CESIUM, OTHER)).total, expected)


def test_a_state_of_other_buckets_is_refused():
    with pytest.raises(ValueError, match="state must be that of buckets 'formula', got 'template'"):
        Diversity(ones).load_state_dict(Diversity(ones, "template").state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bucket": "colour"}, "bucket must be one of .* got 'colour'"),
        ({"free": 6}, "free must be below full = 6, got 6"),
        ({"free": -1}, "free must be an integer of at least 0, got -1"),
        ({"size": 0}, "size must be an integer of at least 1, got 0"),
        ({"floor": np.inf}, "floor must be a finite number, got inf"),
        ({"reward": "nothing"}, "reward must be a callable"),
    ],
)
def test_wrong_arguments_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Diversity(**{"reward": ones, **arguments})
