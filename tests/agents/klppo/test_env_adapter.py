"""What is read off an environment is what stepping through it would give, and what cannot be read off is refused."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize
from tiny_grammar import BINS, CONSTRAINTS, GROUPS, environment, every_crystal, reward

from agents import CrystalVecEnv
from agents.klppo.env_adapter import CrystalTask, n_decisions
from crystal_env import CrystalBatch, sample_masked
from rewards import CrystalReward, VectorCrystalReward


def doubled(crystals):
    return 2 * reward(crystals) + 1


def single(**options):
    return gym.make(
        "CrystalGen-v0", bins=BINS, space_group=list(GROUPS), **{"reward": reward, **CONSTRAINTS, **options}
    )


def tasks():
    """Yield environments, and the reward that each ends with."""
    yield CrystalVecEnv(environment()), reward
    yield VecMonitor(CrystalVecEnv(environment())), reward
    yield CrystalVecEnv(VectorCrystalReward(environment(), doubled)), doubled
    inside = gym.wrappers.vector.TransformReward(environment(), lambda rewards: -3 * rewards)
    yield CrystalVecEnv(VectorCrystalReward(inside, doubled)), doubled
    outside = gym.wrappers.vector.TransformReward(
        VectorCrystalReward(environment(), doubled), lambda rewards: rewards**2
    )
    yield CrystalVecEnv(outside), lambda crystals: doubled(crystals) ** 2
    yield CrystalVecEnv(gym.wrappers.vector.ClipReward(outside, 0, 3)), lambda c: np.minimum(doubled(c) ** 2, 3)
    yield DummyVecEnv([lambda: Monitor(single())]), reward
    yield DummyVecEnv([lambda: CrystalReward(single(), doubled)]), doubled
    yield (
        DummyVecEnv([lambda: gym.wrappers.TransformReward(single(), lambda value: value / 2)]),
        lambda c: reward(c) / 2,
    )


@pytest.mark.parametrize(("env", "expected"), tasks())
def test_rewards_are_those_that_playing_ends_with(env, expected):
    task = CrystalTask(env)
    crystals = every_crystal()
    np.testing.assert_allclose(task.score(crystals).total, expected(crystals))
    env.seed(0)
    observations, rng, played = env.reset(), np.random.default_rng(0), 0
    while played < 20:
        masks = np.stack(env.env_method("action_masks"))
        assert (task.masks(observations) == masks).all()
        observations, rewards, done, infos = env.step(sample_masked(masks, rng))
        for row in np.flatnonzero(done):
            crystal = CrystalBatch.from_crystals([infos[row]["crystal"]])
            assert rewards[row] == pytest.approx(task.score(crystal).total[0], rel=1e-6)
            played += 1
    env.close()


def test_lengths_of_episodes_are_counted():
    env = CrystalVecEnv(gym.make_vec("CrystalGen-v0", num_envs=32, autoreset_mode=AutoresetMode.SAME_STEP, reward=None))
    env.seed(0)
    env.reset()
    rng, lengths, checked = np.random.default_rng(0), np.zeros(32, int), 0
    while checked < 100:
        _, _, done, infos = env.step(sample_masked(np.stack(env.env_method("action_masks")), rng))
        lengths += 1
        for row in np.flatnonzero(done):
            assert n_decisions(infos[row]["crystal"].to_batch())[0] == lengths[row]
            lengths[row], checked = 0, checked + 1


def test_masks_are_left_out_where_nothing_is_constrained_and_open_where_an_observation_is_outside():
    assert (
        CrystalTask(CrystalVecEnv(environment(elements=None, max_sites=20, max_atoms=None))).masks(np.zeros((1, 9)))
        is None
    )
    wide = environment(elements=[3, 9, 17, 35])
    narrow = CrystalTask(CrystalVecEnv(environment()))
    observations, _ = wide.reset(seed=0)
    for action in (1, 27 + 35):
        observations = wide.step(np.full(4, action))[0]
    assert narrow.masks(observations).all()


def doubling_every_step():
    return gym.wrappers.vector.TransformReward(environment(), lambda rewards: rewards + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrystalVecEnv(environment(reward=None)), "must have a reward"),
        (lambda: CrystalVecEnv(environment(space_group="agent")), "'agent'"),
        (lambda: VecNormalize(CrystalVecEnv(environment())), "VecNormalize"),
        (lambda: VecFrameStack(CrystalVecEnv(environment()), 2), "VecFrameStack"),
        (lambda: CrystalVecEnv(doubling_every_step()), "unfinished"),
        (lambda: CrystalVecEnv(gym.wrappers.vector.NormalizeReward(environment())), "NormalizeReward"),
        (lambda: DummyVecEnv([lambda: gym.make("CartPole-v1")]), "CrystalGen-v0"),
    ],
)
def test_what_cannot_be_read_off_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        CrystalTask(make())
