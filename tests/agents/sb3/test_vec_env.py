"""The stable-baselines3 adapter shows exactly the native environment, and stock agents learn through it."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from agents import CrystalVecEnv, TokenFeatures
from crystal_env import Crystal, sample_masked
from rewards import VectorCrystalReward


def share_of_oxygen(crystals):
    counts = crystals.composition()
    return counts[:, 8] / counts.sum(1)


def make(num_envs=8, id_="CrystalGen-Coarse-v0", **kwargs):
    kwargs = {"reward": share_of_oxygen, "autoreset_mode": AutoresetMode.SAME_STEP, **kwargs}
    return gym.make_vec(id_, num_envs=num_envs, **kwargs)


def test_steps_and_ends_are_those_of_the_native_environment():
    adapter, native, rng = CrystalVecEnv(make(render_mode="rgb_array")), make(), np.random.default_rng(0)
    adapter.seed(4)
    assert np.array_equal(adapter.reset(), native.reset(seed=4)[0])
    ends = 0
    for _ in range(100):
        masks = np.stack(adapter.env_method("action_masks"))
        assert np.array_equal(masks, native.action_masks())
        actions = sample_masked(masks, rng)
        actions[rng.random(8) < 0.02] = 0
        observations, rewards, done, infos = adapter.step(actions)
        expected, native_rewards, terminated, _, info = native.step(actions)
        assert np.array_equal(observations, expected)
        assert np.array_equal(rewards, native_rewards.astype(np.float32))
        assert np.array_equal(done, terminated)
        for row in range(8):
            if not done[row]:
                assert infos[row] == {}
                continue
            ends += 1
            assert np.array_equal(infos[row]["terminal_observation"], info["final_obs"][row])
            assert infos[row]["TimeLimit.truncated"] is False
            assert infos[row]["is_success"] == info["final_info"]["is_success"][row]
            assert isinstance(infos[row].get("crystal"), Crystal) != infos[row]["invalid_action"]
    assert ends > 30


def test_episode_statistics_of_gymnasium_reach_the_infos():
    adapter = CrystalVecEnv(gym.wrappers.vector.RecordEpisodeStatistics(make()))
    adapter.reset()
    rng, episodes = np.random.default_rng(0), []
    for _ in range(60):
        _, _, done, infos = adapter.step(sample_masked(np.stack(adapter.env_method("action_masks")), rng))
        episodes += [infos[row]["episode"] for row in np.flatnonzero(done)]
    assert episodes
    assert all(set(episode) >= {"r", "l"} and episode["l"] > 2 for episode in episodes)


def test_options_may_differ_from_copy_to_copy():
    adapter = CrystalVecEnv(make(3))
    adapter.set_options([{"space_group": 225}, {"space_group": 194}, {"space_group": 62}])
    assert adapter.reset()[:, 0].tolist() == [225, 194, 62]
    adapter.set_options({"space_group": 14})
    assert adapter.reset()[:, 0].tolist() == [14, 14, 14]


@pytest.mark.parametrize(
    "env", [gym.make("CrystalGen-v0"), gym.make_vec("CrystalGen-v0", num_envs=2)], ids=["single", "next step"]
)
def test_other_environments_are_refused(env):
    with pytest.raises(ValueError, match="autoreset_mode SAME_STEP"):
        CrystalVecEnv(env)


def test_wrappers_are_seen_and_attributes_shared():
    adapter = CrystalVecEnv(VectorCrystalReward(make(4), share_of_oxygen))
    assert adapter.env_is_wrapped(VectorCrystalReward) == [True] * 4
    assert adapter.env_is_wrapped(gym.wrappers.vector.ClipReward) == [False] * 4
    assert adapter.get_attr("mask_in_info") == [True] * 4
    adapter.set_attr("mask_in_info", False)
    assert adapter.get_attr("mask_in_info", [0, 2]) == [False, False]
    with pytest.raises(ValueError, match="indices must be None"):
        adapter.set_attr("mask_in_info", True, [0])


def agent(seed, **kwargs):
    env = make(16, space_group=[221, 225], elements=["Na", "Cl", "O", "Fe"], max_sites=2, mask_in_info=False, **kwargs)
    return MaskablePPO(
        "MlpPolicy",
        VecMonitor(CrystalVecEnv(env)),
        n_steps=64,
        batch_size=256,
        gamma=1.0,
        learning_rate=2e-3,
        seed=seed,
        policy_kwargs={"features_extractor_class": TokenFeatures, "features_extractor_kwargs": {"max_tokens": 17}},
    )


def test_stock_agent_learns_to_write_oxygen_only():
    model = agent(0)
    untrained, _ = evaluate_policy(model, model.get_env(), 200, deterministic=False)
    model.learn(12_000)
    trained, _ = evaluate_policy(model, model.get_env(), 200, deterministic=False)
    assert untrained < 0.5
    assert trained > 0.9


def test_same_seed_trains_the_same_network_and_saving_keeps_it(tmp_path):
    first, second = agent(3).learn(2048), agent(3).learn(2048)
    for left, right in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(left, right)
    first.save(tmp_path / "agent")
    loaded = MaskablePPO.load(tmp_path / "agent")
    observation = make(2).reset(seed=0)[0]
    masks = make(2).reset(seed=0)[1]["action_mask"].astype(bool)
    actions = [model.predict(observation, action_masks=masks, deterministic=True)[0] for model in (first, loaded)]
    assert np.array_equal(*actions)


def test_features_tell_every_token_apart_and_refuse_other_spaces():
    space = make(1).single_observation_space
    features = TokenFeatures(space, size=4)
    observation = torch.as_tensor(make(1).reset(seed=0)[0])
    changed = observation.clone()
    changed[0, 2] = 30
    assert features(observation).shape == (1, features.features_dim)
    assert not torch.equal(features(observation), features(changed))
    with pytest.raises(ValueError, match="box of integers"):
        TokenFeatures(gym.spaces.Box(0, 1, (5,)))
