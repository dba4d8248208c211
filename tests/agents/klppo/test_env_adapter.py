"""What is read off an environment is what stepping through it would give, and what cannot be read off is refused."""

import threading
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformReward
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)
from tiny_grammar import BINS, CONSTRAINTS, GROUPS, environment, every_crystal, reward

from agents import CrystalVecEnv
from agents.klppo.env_adapter import EnvAdapter, n_decisions
from crystal_env import CrystalBatch, CrystalGenEnv, sample_masked
from crystal_env.wrappers import CrystalDictObservation, MaskInObservation, VectorCrystalDictObservation
from rewards import CrystalReward, VectorCrystalReward


def doubled(crystals):
    return 2 * reward(crystals) + 1


def single(**options):
    options = {"bins": BINS, "space_group": list(GROUPS), "reward": reward, **CONSTRAINTS, **options}
    return gym.make("CrystalGen-v0", **options)


def half(value):
    return value / 2


def negative(rewards):
    return -3 * rewards


def native(*wrappers, **options):
    """Return the vector environment in wrappers, the first one innermost."""
    env = environment(**options)
    for wrap in wrappers:
        env = wrap(env)
    return CrystalVecEnv(env)


def copies(*wrappers, number=1, kind=DummyVecEnv, **options):
    """Return single environments in wrappers, together."""

    def make():
        env = single(**options)
        for wrap in wrappers:
            env = wrap(env)
        return env

    made = kind([make] * number)
    return made if isinstance(made, DummyVecEnv) else CrystalVecEnv(made)


VectorReward, VectorTransform = VectorCrystalReward, gym.wrappers.vector.TransformReward
HONOURED = {
    "bare": (native, reward),
    "same step": (partial(native, autoreset_mode=AutoresetMode.SAME_STEP), reward),
    "disabled": (partial(native, autoreset_mode=AutoresetMode.DISABLED), reward),
    "monitor": (lambda: VecMonitor(native()), reward),
    "nan check": (lambda: VecCheckNan(native()), reward),
    "statistics": (partial(native, gym.wrappers.vector.RecordEpisodeStatistics), reward),
    "reward": (partial(native, partial(VectorReward, reward=doubled)), doubled),
    "reward over a transform": (
        partial(native, partial(VectorTransform, func=negative), partial(VectorReward, reward=doubled)), doubled,
    ),
    "transform over a reward": (
        partial(native, partial(VectorReward, reward=doubled), partial(VectorTransform, func=np.square)),
        lambda crystals: doubled(crystals) ** 2,
    ),
    "clip": (
        partial(native, partial(VectorReward, reward=doubled), lambda e: gym.wrappers.vector.ClipReward(e, 0, 1.5)),
        lambda crystals: np.minimum(doubled(crystals), 1.5),
    ),
    "transform each": (
        partial(native, lambda e: gym.wrappers.vector.VectorizeTransformReward(e, TransformReward, func=half)),
        lambda crystals: reward(crystals) / 2,
    ),
    "single": (partial(copies, Monitor), reward),
    "several": (partial(copies, Monitor, number=3), reward),
    "made by Gymnasium": (partial(copies, number=2, kind=SyncVectorEnv), reward),
    "single statistics": (partial(copies, gym.wrappers.RecordEpisodeStatistics), reward),
    "single order and check": (partial(copies, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker), reward),
    "long time limit": (partial(copies, partial(gym.wrappers.TimeLimit, max_episode_steps=17)), reward),
    "single reward": (partial(copies, partial(CrystalReward, reward=doubled)), doubled),
    "single transform": (
        partial(copies, partial(TransformReward, func=half), number=2), lambda crystals: reward(crystals) / 2,
    ),
    "single clip": (
        partial(copies, lambda e: gym.wrappers.ClipReward(e, 0, 0.5), number=2), lambda c: np.minimum(reward(c), 0.5),
    ),
    "reward around Gymnasium's": (
        lambda: CrystalVecEnv(VectorReward(SyncVectorEnv([single] * 2), doubled)), doubled,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), HONOURED.values(), ids=HONOURED)
def test_rewards_are_those_that_stepping_ends_with(make, expected):
    env = make()
    task = EnvAdapter(env)
    crystals = every_crystal()
    np.testing.assert_allclose(task.score(crystals).total, expected(crystals))
    env.seed(0)
    observations, rng, finished = env.reset(), np.random.default_rng(0), 0
    while finished < 20:
        masks = np.stack(env.env_method("action_masks"))
        assert (task.masks(observations) == masks).all()
        observations, rewards, done, infos = env.step(sample_masked(masks, rng))
        for row in np.flatnonzero(done):
            crystal = CrystalBatch.from_crystals([infos[row]["crystal"]])
            assert rewards[row] == pytest.approx(task.score(crystal).total[0], rel=1e-6)
            finished += 1
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


def test_masks_are_none_or_open_where_nothing_is_constrained():
    assert (
        EnvAdapter(CrystalVecEnv(environment(elements=None, max_sites=20, max_atoms=None))).masks(np.zeros((1, 9)))
        is None
    )
    wide = environment(elements=[3, 9, 17, 35])
    narrow = EnvAdapter(CrystalVecEnv(environment()))
    observations, _ = wide.reset(seed=0)
    for action in (1, 27 + 35):
        observations = wide.step(np.full(4, action))[0]
    assert narrow.masks(observations).all()


class Doubling(gym.Wrapper):
    def step(self, action):
        observation, value, *rest = self.env.step(action)
        return observation, 2 * value, *rest


class OneGroup(gym.Wrapper):
    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed, options={"space_group": 221})


class DoublingStatistics(gym.wrappers.RecordEpisodeStatistics):
    def step(self, action):
        observation, value, *rest = super().step(action)
        return observation, 2 * value, *rest


class DoublingReward(CrystalReward):
    def step(self, action):
        observation, value, *rest = super().step(action)
        return observation, 2 * value, *rest


class DoublingEnv(CrystalGenEnv):
    def step(self, action):
        observation, value, *rest = super().step(action)
        return observation, 2 * value, *rest


class DoublingVecEnv(DummyVecEnv):
    def step_wait(self):
        observations, values, *rest = super().step_wait()
        return observations, 2 * values, *rest


class Ranks(gym.vector.VectorRewardWrapper):
    def rewards(self, rewards):
        return np.where(rewards > 0, rewards / np.maximum(rewards.max(), 1e-9), rewards)


def replaced():
    env = single()
    env.step = lambda action: env.env.step(action)
    return env


def plus_one(rewards):
    return rewards + 1


REFUSED = {
    "must have a reward": partial(native, reward=None),
    "'agent'": partial(native, space_group="agent"),
    "VecNormalize": lambda: VecNormalize(native()),
    "VecFrameStack": lambda: VecFrameStack(native(), 2),
    "TransformReward changes it": partial(native, partial(VectorTransform, func=plus_one)),
    "TransformReward changes": partial(
        copies, partial(TransformReward, func=plus_one), partial(CrystalReward, reward=doubled)
    ),
    "Ranks mixes": partial(native, Ranks),
    "NormalizeReward": partial(native, gym.wrappers.vector.NormalizeReward),
    "layer NormalizeReward, whose step": partial(copies, gym.wrappers.NormalizeReward),
    "layer NormalizeObservation": partial(copies, gym.wrappers.NormalizeObservation),
    "NormalizeObservation": partial(native, gym.wrappers.vector.NormalizeObservation),
    "VectorCrystalDictObservation": partial(native, VectorCrystalDictObservation),
    "CrystalDictObservation": partial(copies, CrystalDictObservation),
    "MaskInObservation": partial(copies, MaskInObservation),
    "StickyAction": partial(copies, partial(gym.wrappers.StickyAction, repeat_action_probability=0.5)),
    "RepeatAction": partial(copies, partial(gym.wrappers.RepeatAction, num_repeats=2)),
    "Autoreset": partial(copies, gym.wrappers.Autoreset),
    "ClipAction": partial(copies, gym.wrappers.ClipAction, action_mode="continuous"),
    "max_episode_steps of TimeLimit must be at least 17": partial(
        copies, partial(gym.wrappers.TimeLimit, max_episode_steps=16)
    ),
    "layer Doubling, whose step": partial(copies, Doubling),
    "layer OneGroup, whose reset": partial(copies, OneGroup),
    "layer DoublingStatistics, whose step": partial(copies, DoublingStatistics),
    "layer DoublingReward, whose step": partial(copies, partial(DoublingReward, reward=reward)),
    "layer DoublingEnv, whose step": lambda: DummyVecEnv([DoublingEnv]),
    "layer DoublingVecEnv, whose step_wait": partial(copies, kind=DoublingVecEnv),
    "OrderEnforcing, whose step": lambda: DummyVecEnv([replaced]),
    "got CartPoleEnv": lambda: DummyVecEnv([lambda: gym.make("CartPole-v1")]),
    "got AsyncVectorEnv": lambda: CrystalVecEnv(AsyncVectorEnv([single])),
    "got SubprocVecEnv": lambda: SubprocVecEnv([single]),
}


@pytest.mark.parametrize(("message", "make"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(make, message):
    env = make()
    with pytest.raises(ValueError, match=message):
        EnvAdapter(env)
    env.close()


@pytest.mark.parametrize(
    ("message", "make", "other"),
    [
        ("same constraints", single, partial(single, max_sites=1)),
        ("same constraints", single, partial(single, space_group=[221])),
        ("same bins", single, partial(single, bins=48)),
        ("same reward", single, partial(single, reward=doubled)),
        ("same reward", single, partial(single, invalid_reward=-7)),
        ("same reward", lambda: CrystalReward(single(), reward), lambda: CrystalReward(single(), doubled)),
        ("same reward", lambda: TransformReward(single(), half), lambda: TransformReward(single(), negative)),
        ("same wrappers", single, lambda: TransformReward(single(), half)),
    ],
)
def test_copies_that_differ_are_refused_by_name(message, make, other):
    with pytest.raises(ValueError, match=f"all copies of env must have the {message}"):
        EnvAdapter(DummyVecEnv([make, other]))


def test_copies_of_gymnasium_are_compared_too():
    with pytest.raises(ValueError, match="copy 0 and copy 1 differ"):
        EnvAdapter(CrystalVecEnv(SyncVectorEnv([single, partial(single, reward=doubled)])))


def test_the_last_copy_counts_as_the_first_does():
    with pytest.raises(ValueError, match="copy 0 and copy 2 differ"):
        EnvAdapter(DummyVecEnv([single, single, partial(single, reward=doubled)]))


class Scaled:
    """A reward with a number in it."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, crystals):
        return self.factor * reward(crystals)


def adapter(**options):
    return EnvAdapter(native(**options))


def test_the_digest_tells_tasks_apart():
    same = [adapter(reward=Scaled(2.0)), adapter(reward=Scaled(2.0))]
    assert same[0].digest == same[1].digest
    assert same[0].has_task_of(None, same[1].digest)
    others = [
        adapter(reward=Scaled(3.0)), adapter(reward=reward), adapter(reward=Scaled(2.0), invalid_reward=-5),
        adapter(reward=Scaled(2.0), max_sites=1), adapter(reward=Scaled(2.0), bins=48),
        EnvAdapter(native(partial(VectorTransform, func=half), reward=Scaled(2.0))),
        EnvAdapter(native(partial(VectorTransform, func=negative), reward=Scaled(2.0))),
    ]  # fmt: skip
    assert len({same[0].digest, *(other.digest for other in others)}) == 1 + len(others)
    assert not any(same[0].has_task_of(None, other.digest) for other in others)


def test_a_reward_that_cannot_be_pickled_is_the_same_only_as_itself():
    class Locked:
        def __init__(self):
            self.lock = threading.Lock()

        def __call__(self, crystals):
            return reward(crystals)

    one = Locked()
    first, again, other = adapter(reward=one), adapter(reward=one), adapter(reward=Locked())
    assert first.digest is None
    assert again.has_task_of(first, first.digest)
    assert not other.has_task_of(first, first.digest)
