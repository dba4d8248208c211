"""Episodes of scored crystals are those of the environment, step by step."""

import gymnasium as gym
import numpy as np
import pytest

import crystal_env  # noqa: F401  registers the environment
from agents import CrystalFormer
from agents.training.replay_buffer import ReplayBuffer
from agents.training.transitions import Transitions
from crystal_env import Crystal
from crystal_env.reward import RewardResult


def buffer_of(crystals):
    buffer = ReplayBuffer(1000)
    n = len(crystals)
    result = RewardResult(np.arange(n) / 7, {}, np.full(n, None, object))
    likelihoods = np.zeros((2, n, 4))
    buffer.add(Transitions(crystals, result.total, result, *likelihoods, np.zeros(n, int), np.zeros(n, bool)))
    return buffer


@pytest.mark.parametrize("bins", [960, 96, 0])
def test_replaying_the_actions_in_the_environment_gives_the_crystal(bins):
    crystals = CrystalFormer.from_pretrained("mp20").sample("mp20", 300, seed=0, bins=bins)
    buffer = buffer_of(crystals)
    rewards = {str(crystal): reward for crystal, reward in zip(crystals, buffer.data.rewards, strict=True)}
    mode = {"bins": bins} if bins else {"action_mode": "continuous"}
    env = gym.make("CrystalGen-v0", reward=None, invalid_action="raise", **mode)
    episodes = list(buffer.episodes(bins))
    assert len(episodes) == 300
    for row in [*range(40), 255, 256, 299]:
        crystal, (observations, actions, steps) = crystals[row], episodes[row]
        seen = [env.reset(options={"space_group": crystal.G})[0]]
        for action, step in zip(actions, steps, strict=True):
            observation, _, terminated, _, info = env.step(action)
            seen.append(observation)
            assert terminated == (len(seen) == len(actions) + 1)
            assert step == (rewards[str(crystal)] if terminated else 0)
        np.testing.assert_array_equal(observations, np.stack(seen))
        assert observations.dtype == env.observation_space.dtype
        if bins:
            assert info["crystal"] == crystal
        else:
            for name in ("W", "A"):
                np.testing.assert_array_equal(getattr(info["crystal"], name), getattr(crystal, name))
            apart = info["crystal"].XYZ - crystal.XYZ
            np.testing.assert_allclose(apart - np.rint(apart), 0, atol=1e-6)
            np.testing.assert_allclose(info["crystal"].L, crystal.L, rtol=1e-5)


def test_there_are_no_episodes_of_no_crystals():
    assert list(ReplayBuffer(3).episodes()) == []


@pytest.mark.parametrize("bins", [960, 0])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("221-a-Cs-0-0-0-X-400-400-400-90-90-90", "a = 400, allowed is"),
        ("1-a-H-0-0-0-X-5-5-5-100-130-129.9", "too flat"),
    ],
)
def test_a_crystal_that_the_environment_cannot_build_is_refused(bins, text, words):
    with pytest.raises(ValueError, match=words):
        list(buffer_of(Crystal.from_string(text).to_batch()).episodes(bins))
