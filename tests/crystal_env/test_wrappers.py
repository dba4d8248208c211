"""Observation wrappers, single and vector."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from crystal_env import (
    Crystal,
    CrystalDictObservation,
    MaskInObservation,
    VectorCrystalDictObservation,
    VectorMaskInObservation,
    sample_masked,
)

PEROVSKITE = Crystal.from_string("221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.905-3.905-3.905-90-90-90")


@pytest.mark.parametrize(
    "wrap",
    [CrystalDictObservation, MaskInObservation, lambda env: MaskInObservation(CrystalDictObservation(env))],
)
def test_wrapped_environment_passes_the_checker(wrap):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*is different from the unwrapped version")
        env = wrap(gym.make("CrystalGen-v0", reward=lambda crystals: np.zeros(len(crystals))))
        check_env(env, skip_render_check=True)
        rng = np.random.default_rng(0)
        for seed in range(3):
            observation, _ = env.reset(seed=seed)
            terminated = False
            while not terminated:
                assert env.observation_space.contains(observation)
                action = sample_masked(env.unwrapped.action_masks()[None], rng)[0]
                observation, _, terminated, _, _ = env.step(action)


def test_table_holds_the_crystal():
    env = CrystalDictObservation(gym.make("CrystalGen-v0", space_group=221))
    env.reset()
    for action in PEROVSKITE.to_actions():
        table, *_, info = env.step(action)
    assert table["space_group"] == 221
    assert table["letters"][:4].tolist() == [1, 2, 3, 0]
    assert table["elements"][:4].tolist() == [38, 22, 8, 0]
    assert table["multiplicities"][:4].tolist() == [1, 1, 3, 0]
    assert np.allclose(table["coordinates"][:3], PEROVSKITE.XYZ)
    assert np.allclose(table["lattice"], info["crystal"].L)


def test_mask_has_the_wanted_key_and_dtype():
    env = MaskInObservation(gym.make("CrystalGen-v0"), obs_key="obs", mask_key="mask", dtype=bool)
    observation, info = env.reset(seed=0)
    assert set(observation) == {"obs", "mask"}
    assert observation["mask"].dtype == bool
    assert np.array_equal(observation["mask"], info["action_mask"])
    assert env.spec.additional_wrappers[-1].kwargs == {"obs_key": "obs", "mask_key": "mask", "dtype": "bool"}
    assert "MaskInObservation" in env.spec.to_json()


@pytest.mark.parametrize(
    ("vector", "single"),
    [(VectorCrystalDictObservation, CrystalDictObservation), (VectorMaskInObservation, MaskInObservation)],
)
def test_vector_wrappers_see_what_the_single_ones_see(vector, single):
    native = vector(gym.make_vec("CrystalGen-Coarse-v0", num_envs=3, reward=None))
    alone = [single(gym.make("CrystalGen-Coarse-v0", reward=None)) for _ in range(3)]
    rng = np.random.default_rng(0)
    batch, _ = native.reset(seed=5)
    rows = [env.reset(seed=5 + i)[0] for i, env in enumerate(alone)]
    for _ in range(12):
        assert native.observation_space.contains(batch)
        for key in batch:
            assert np.array_equal(batch[key], np.stack([row[key] for row in rows]))
        actions = sample_masked(native.unwrapped.action_masks(), rng)
        batch, _, terminated, _, _ = native.step(actions)
        rows = [env.step(action)[0] for env, action in zip(alone, actions, strict=True)]
        if terminated.any():
            break
