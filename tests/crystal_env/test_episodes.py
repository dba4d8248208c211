"""Episodes in parallel: checked actions, sampled groups, one step, the task and the floor."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from crystal_env import Crystal
from crystal_env.episodes import CrystalTask, Episodes, check_actions

SALT = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")


def lengths(crystals):
    return crystals.L[:, 0]


class Deep:
    """A reward that can be as low as -10."""

    floor = -10.0

    def __call__(self, crystals):
        return np.full(len(crystals), -10.0)


def started(size, **options):
    episodes = Episodes(size, **{"reward": lengths, **options})
    generators = [np.random.default_rng(row) for row in range(size)]
    episodes.start(np.arange(size), generators, episodes.grammar)
    return episodes


def test_actions_become_an_array_with_a_row_for_each_environment():
    discrete, box = spaces.Discrete(200), spaces.Box(0, 1, (2,), np.float32)
    assert check_actions(3, discrete, None).tolist() == [3]
    assert check_actions([3, 5], discrete, 2).tolist() == [3, 5]
    assert check_actions([1, 0.5], box, None).tolist() == [[1, 0.5]]
    assert check_actions(np.ones((4, 2), int), box, 4).shape == (4, 2)


@pytest.mark.parametrize(
    ("action", "space", "size"),
    [
        (1.0, spaces.Discrete(9), None),
        ([1, 2], spaces.Discrete(9), 3),
        (True, spaces.Discrete(9), None),
        ("a", spaces.Box(0, 1, (2,)), None),
        ([0.5], spaces.Box(0, 1, (2,)), None),
    ],
)
def test_actions_of_another_kind_or_shape_are_refused(action, space, size):
    with pytest.raises(ValueError, match=r"action must be (integers|numbers) of shape .*, got .* of shape"):
        check_actions(action, space, size)


def test_each_row_samples_its_group_with_its_own_generator():
    episodes = started(50, space_group=[2, 14, 225])
    expected = [[2, 14, 225][int(np.random.default_rng(row).random() * 3)] for row in range(50)]
    assert episodes.states.G.tolist() == expected


def test_a_step_reports_who_ended_who_failed_and_the_scores():
    episodes = started(3, space_group=225)
    rows, actions = np.arange(3), SALT.to_actions()
    for action in actions[:-1]:
        result = episodes.step(rows, np.full(3, action))
        assert not result.ended.any()
        assert not result.rewards.any()
        assert result.scores is None
    result = episodes.step(rows, np.array([actions[-1], 0, actions[-1]]))
    assert result.ended.tolist() == [True, True, True]
    assert result.invalid.tolist() == [False, True, False]
    assert result.finished.tolist() == [0, 2]
    assert [crystal.formula for crystal in result.crystals] == ["NaCl", "NaCl"]
    assert np.allclose(result.rewards[[0, 2]], 5.64, rtol=2e-3)
    assert result.rewards[1] == -1
    assert result.scores.total.tolist() == result.rewards[[0, 2]].tolist()
    with pytest.raises(ResetNeeded, match=r"\[1\] have ended"):
        episodes.step(np.array([1]), np.array([1]))


def test_options_replace_constraints_of_the_same_name_only():
    episodes = Episodes(1, reward=None, space_group=225, formula="NaCl")
    grammar = episodes.grammar_for({"space_group": 221})
    assert grammar.constraints.formula == episodes.grammar.constraints.formula
    assert np.flatnonzero(grammar.probabilities).tolist() == [221]
    assert episodes.grammar_for({}) is episodes.grammar_for(None) is episodes.grammar


def test_the_floor_follows_a_reward_that_is_replaced_or_delegated():
    episodes = Episodes(1, reward=lengths)
    assert episodes.invalid_reward == -1.0
    episodes.reward = Deep()
    assert episodes.invalid_reward == episodes.scorer.floor == -10.0
    episodes.delegate_reward(-7.0)
    assert (episodes.reward, episodes.scorer, episodes.invalid_reward) == (None, None, -7.0)
    episodes.delegate_reward(3.0)
    assert episodes.invalid_reward == -1.0
    episodes.reward = lengths
    assert episodes.invalid_reward == -1.0
    explicit = Episodes(1, reward=lengths, invalid_reward=0.5)
    explicit.reward = Deep()
    assert explicit.invalid_reward == explicit.scorer.floor == 0.5
    explicit.delegate_reward(-7.0)
    assert explicit.invalid_reward == 0.5


@pytest.mark.parametrize("vector", [False, True])
def test_the_task_of_an_environment_is_one_record(vector):
    options = {"reward": lengths, "bins": 48, "formula": "NaCl", "space_group": [225, 221]}
    env = gym.make_vec("CrystalGen-v0", num_envs=2, **options) if vector else gym.make("CrystalGen-v0", **options)
    task = env.unwrapped.crystal_task
    assert isinstance(task, CrystalTask)
    assert (task.bins, task.invalid_reward) == (48, -1.0)
    assert np.flatnonzero(task.grammar.probabilities).tolist() == [221, 225]
    assert task.scorer(SALT.to_batch()).total.tolist() == [5.64]
    assert task.scorer is env.unwrapped.scorer


def test_a_task_by_name_is_resolved_and_a_continuous_one_has_no_bins():
    env = gym.make("CrystalGen-v0", action_mode="continuous", reward=f"{__name__}:Deep")
    task = env.get_wrapper_attr("crystal_task")
    assert (task.bins, task.invalid_reward, type(task.scorer.reward)) == (0, -10.0, Deep)
    assert gym.make("CrystalGen-v0", reward=None).unwrapped.crystal_task.scorer is None
