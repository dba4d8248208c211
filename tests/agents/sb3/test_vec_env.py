"""The stable-baselines3 adapter shows exactly the native environment, and stock agents learn through it."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents import CrystalVecEnv, TokenFeatures
from crystal_env import Crystal, sample_masked
from crystal_env.wrappers import VectorMaskInObservation
from rewards import VectorCrystalReward


def fraction_of_oxygen(crystals):
    counts = crystals.composition()
    return counts[:, 8] / counts.sum(1)


def make(num_envs=8, id_="CrystalGen-Coarse-v0", **kwargs):
    return gym.make_vec(id_, num_envs=num_envs, **{"reward": fraction_of_oxygen, **kwargs})


def test_steps_and_ends_are_those_of_the_native_environment():
    adapter, native = CrystalVecEnv(make(render_mode="rgb_array")), make(autoreset_mode=AutoresetMode.SAME_STEP)
    rng = np.random.default_rng(0)
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


def test_options_may_differ_from_copy_to_copy():
    adapter = CrystalVecEnv(make(3))
    adapter.set_options([{"space_group": 225}, {"space_group": 194}, {"space_group": 62}])
    assert adapter.reset()[:, 0].tolist() == [225, 194, 62]
    adapter.set_options({"space_group": 14})
    assert adapter.reset()[:, 0].tolist() == [14, 14, 14]


MODES = list(AutoresetMode)


def played(adapter, steps=120):
    """Return all that a random agent of a seed sees."""
    rng, seen = np.random.default_rng(1), []
    adapter.seed(4)
    observations = adapter.reset()
    for _ in range(steps):
        masks = np.stack(adapter.env_method("action_masks"))
        actions = sample_masked(masks, rng)
        actions[rng.random(len(actions)) < 0.02] = 0
        seen.append((observations.tolist(), masks.tolist()))
        observations, rewards, done, infos = adapter.step(actions)
        ends = [
            {
                name: np.asarray(value).tolist() if name == "terminal_observation" else str(value)
                for name, value in info.items()
            }
            for info in infos
        ]
        seen.append((rewards.tolist(), done.tolist(), ends))
    return seen


def test_all_autoreset_modes_give_the_same_episodes():
    expected = played(CrystalVecEnv(make(autoreset_mode=AutoresetMode.SAME_STEP)))
    for mode in MODES:
        assert played(CrystalVecEnv(make(autoreset_mode=mode))) == expected
    assert sum(sum(step[1]) for step in expected[1::2]) > 30


def test_environments_come_as_gymnasium_makes_them():
    expected = played(CrystalVecEnv(gym.make_vec("CrystalGen-Coarse-v0", num_envs=1)))
    assert played(CrystalVecEnv(gym.make("CrystalGen-Coarse-v0"))) == expected
    sync = gym.make_vec("CrystalGen-Coarse-v0", num_envs=1, vectorization_mode="sync")
    assert played(CrystalVecEnv(sync)) == expected


@pytest.mark.parametrize("mode", MODES)
def test_statistics_of_gymnasium_count_in_every_mode(mode):
    adapter = CrystalVecEnv(gym.wrappers.vector.RecordEpisodeStatistics(make(autoreset_mode=mode)))
    adapter.reset()
    rng, returns, lengths, ends = np.random.default_rng(0), np.zeros(8), np.zeros(8, int), 0
    for _ in range(80):
        _, rewards, done, infos = adapter.step(sample_masked(np.stack(adapter.env_method("action_masks")), rng))
        returns, lengths = returns + rewards, lengths + 1
        for row in np.flatnonzero(done):
            assert infos[row]["episode"]["r"] == pytest.approx(returns[row])
            assert infos[row]["episode"]["l"] == lengths[row]
            returns[row], lengths[row], ends = 0, 0, ends + 1
    assert ends > 20


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_observation_wrappers_that_refuse_same_step_work(mode):
    adapter = CrystalVecEnv(VectorMaskInObservation(make(autoreset_mode=mode)))
    observations, rng, ends = adapter.reset(), np.random.default_rng(0), 0
    for _ in range(60):
        masks = np.stack(adapter.env_method("action_masks"))
        assert np.array_equal(observations["action_mask"], masks)
        observations, _, done, infos = adapter.step(sample_masked(masks, rng))
        for row in np.flatnonzero(done):
            last = infos[row]["terminal_observation"]["observation"]
            assert last[1] == 12  # finished
            assert observations["observation"][row][1] == 1  # the first letter of the next
            ends += 1
    assert ends > 10


def test_other_objects_are_refused():
    with pytest.raises(ValueError, match=r"env must be a gymnasium.Env or .*, got DummyVecEnv"):
        CrystalVecEnv(DummyVecEnv([lambda: gym.make("CrystalGen-v0")]))


def test_attributes_are_those_of_a_copy():
    adapter = CrystalVecEnv(make(3))
    adapter.seed(7)
    adapter.reset()
    assert adapter.get_attr("np_random_seed") == [7, 8, 9]
    assert adapter.get_attr("np_random_seed", [2]) == [9]
    assert adapter.get_attr("action_space") == [adapter.action_space] * 3
    assert len({id(generator) for generator in adapter.get_attr("np_random")}) == 3


def test_copies_of_gymnasium_have_attributes_of_their_own():
    made = [partial(gym.make, "CrystalGen-Coarse-v0", reward=fraction_of_oxygen, max_sites=n) for n in (1, 2)]
    adapter = CrystalVecEnv(gym.vector.SyncVectorEnv(made))
    assert [task.grammar.constraints.max_sites for task in adapter.get_attr("crystal_task")] == [1, 2]
    adapter.set_attr("mask_in_info", False, [1])
    assert adapter.get_attr("mask_in_info") == [True, False]
    assert adapter.env_is_wrapped(gym.wrappers.OrderEnforcing) == [True, True]


def test_the_task_is_that_of_the_outermost_reward():
    adapter = CrystalVecEnv(VectorCrystalReward(make(2), np.ones))
    assert [task.scorer.reward for task in adapter.get_attr("crystal_task")] == [np.ones] * 2


def test_wrappers_are_seen_and_attributes_shared():
    adapter = CrystalVecEnv(VectorCrystalReward(make(4), fraction_of_oxygen))
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
