"""The replay buffer: what it keeps, drops and draws."""

import io

import numpy as np
import pytest
import torch
from scored_crystals import assert_same, full, transitions

from agents.training.replay_buffer import ReplayBuffer
from agents.training.transitions import REJECTED
from crystal_env.reward import RewardResult


def test_the_oldest_are_dropped():
    buffer = full(transitions(range(0, 10), 0), transitions(range(10, 17), 1), size=12)
    assert_same(buffer, full(transitions(range(5, 10), 0), transitions(range(10, 17), 1)))
    assert buffer.keys() == {crystal.key() for crystal in buffer.data.crystals}
    buffer.add(transitions(range(100, 140), 2))
    assert_same(buffer, full(transitions(range(128, 140), 2)))
    assert buffer.keys() == {crystal.key() for crystal in buffer.data.crystals}


def test_a_smaller_size_holds_from_the_next_crystals_on():
    buffer = full(transitions(range(10)))
    buffer.size = 3
    assert buffer.add(transitions([50], 1)) == 1
    assert_same(buffer, full(transitions([8, 9]), transitions([50], 1)))


@pytest.mark.parametrize("name", ["rewards", "log_prob", "reference_log_prob"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_left_out(name, value):
    new = transitions(range(6))
    getattr(new, name)[2] = value
    buffer = ReplayBuffer(10)
    assert buffer.add(new) == 5
    assert_same(buffer, full(transitions([0, 1, 3, 4, 5])))


def test_duplicates_are_kept():
    assert len(full(transitions([3, 3, 3]), transitions([3]))) == 4


def test_what_was_rejected_without_a_score_is_not_known():
    plain = transitions([10, 300, 600])
    keys = [crystal.key() for crystal in plain.crystals]
    failures = np.array([None, f"{REJECTED}contact", "no energy"], object)
    buffer = full(transitions([10, 300, 600], result=plain.result._replace(failures=failures)))
    other = ReplayBuffer(1)
    other.load_state_dict(buffer.state_dict())
    assert buffer.keys() == other.keys() == {keys[0], keys[2]}
    assert len(set(keys)) == 3


def test_which_crystals_succeeded_does_not_depend_on_what_else_is_there():
    plain = transitions([10, 11, 12])
    result = RewardResult(plain.result.total, {}, np.array([None, "no energy", None], object))
    foreign, own = transitions([10, 11, 12], result=result), transitions(range(20, 30))
    expected = [True, False, True], own.result.success().tolist()
    assert full(foreign, own).data.result.success().tolist() == expected[0] + expected[1]
    assert full(own, foreign).data.result.success().tolist() == expected[1] + expected[0]
    assert full(foreign, foreign).data.result.success().tolist() == 2 * expected[0]


# probabilities


def test_uniform_weights_are_equal():
    np.testing.assert_allclose(full(transitions(range(8))).weights("uniform", 0.9), 1 / 8)


def test_recent_weights_fall_by_the_factor_with_each_iteration():
    buffer = full(transitions([0, 1], 0), transitions([2], 1), transitions([3, 4], 3))
    powers = np.array([0.125, 0.125, 0.25, 1, 1])
    np.testing.assert_allclose(buffer.weights("recent", 0.5), powers / powers.sum())
    np.testing.assert_allclose(buffer.weights("recent", 1.0), 1 / 5)
    late = full(transitions([0], 0), transitions([1], 100_000))
    np.testing.assert_allclose(late.weights("recent", 0.9), [0, 1], atol=1e-300)


def test_rank_weights_follow_the_order_of_rewards():
    rewards = np.array([0.1, 0.9, 0.5, 0.5, -3.0])
    buffer = full(transitions(range(5), rewards=rewards))
    inverse = 1 / (0.05 + np.array([3, 0, 1, 2, 4]))
    np.testing.assert_allclose(buffer.weights("rank", 0.9), inverse / inverse.sum())


@pytest.mark.parametrize("draw", ["uniform", "recent", "rank"])
def test_one_crystal_has_all_the_weight(draw):
    assert full(transitions([4])).weights(draw, 0.9).tolist() == [1.0]


# as a state


def test_a_state_restores_the_buffer_bit_for_bit():
    buffer = full(transitions(range(9)), transitions([1, 2], 5), size=20)
    buffer.settings = {"temperature": {"letters": 0.5}, "reward_range": (0.2, 0.8)}
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    other = ReplayBuffer(1)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same(buffer, other)
    assert (other.size, other.settings, other.keys()) == (20, buffer.settings, buffer.keys())
    other.add(transitions(range(30)))
    assert len(other) == 20


def test_an_empty_state_restores_an_empty_buffer():
    other = full(transitions(range(3)))
    other.load_state_dict(ReplayBuffer(7).state_dict())
    assert (len(other), other.size, other.keys()) == (0, 7, set())
