"""The agent is an algorithm of stable-baselines3, and resumes as if it had never stopped."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.vec_env import VecMonitor
from tiny_agent import agent, learn, sampled, weights_of
from tiny_grammar import BINS, CONSTRAINTS, GROUPS, base_model, environment, reward

from agents import KLPPO, CrystalVecEnv
from agents.crystalformer.temperature import Temperatures
from agents.klppo.config import PRESETS
from agents.klppo.env_adapter import n_decisions

REPLAY = {"loss": "topr", "temperature": {"letters": 0.8, "lattice": 0.5}, "draw": "recent", "augmentation": 0.5}


@pytest.mark.parametrize(
    "options", [{}, {"ratio": "token"}, {"baseline": "ema"}, REPLAY, {**REPLAY, "loss": "balance", "buffer_size": 100}]
)
def test_a_loaded_agent_resumes_as_if_never_stopped(tmp_path, options):
    options["policy_kwargs"] = {"model": base_model().float()}
    straight, stopped = agent(**options), agent(**options)
    learn(straight, 4)
    learn(stopped, 2)  # ends with a batch that is sampled and not yet learned from
    stopped.save(tmp_path / "agent.zip")
    loaded = KLPPO.load(tmp_path / "agent.zip", env=environment())
    learn(loaded, 1, reset_num_timesteps=False)
    assert torch.equal(weights_of(loaded.model), weights_of(straight.model))
    assert torch.equal(weights_of(loaded.reference), weights_of(base_model().float()))
    assert loaded.average == straight.average
    assert (loaded.iteration, loaded.num_timesteps) == (4, straight.num_timesteps)
    assert loaded.rng.bit_generator.state == straight.rng.bit_generator.state
    assert len(loaded.buffer) == len(straight.buffer) == min(loaded.buffer_size, 0 if loaded.loss == "ppo" else 256)
    ours, theirs = loaded.buffer.state_dict(), straight.buffer.state_dict()
    for name in ("failures", "settings"):
        assert ours.pop(name) == theirs.pop(name)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    np.testing.assert_array_equal(loaded.offsets, straight.offsets)


class Remembering:
    """A reward with a memory: how many crystals it has seen."""

    def __init__(self):
        self.seen = 0

    def __call__(self, crystals):
        self.seen += len(crystals)
        return reward(crystals)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


@pytest.mark.parametrize("with_environment", [True, False])
def test_what_a_reward_remembers_is_saved_and_loaded_with_the_agent(tmp_path, with_environment):
    first, second = Remembering(), Remembering()
    one = agent(environment(reward=first))
    learn(one, 1)
    one.save(tmp_path / "agent.zip")
    if with_environment:
        KLPPO.load(tmp_path / "agent.zip", env=environment(reward=second))
    else:
        KLPPO.load(tmp_path / "agent.zip").set_env(environment(num_envs=one.n_envs, reward=second))
    assert second.seen == first.seen > 0


def test_a_loaded_agent_acts_without_an_environment(tmp_path):
    one = agent()
    learn(one, 1)
    one.save(tmp_path / "agent.zip")
    loaded = KLPPO.load(tmp_path / "agent.zip")
    observations = environment().reset(seed=0)[0]
    assert loaded.predict(observations)[0].shape == (4,)
    with pytest.raises(ValueError, match="set_env"):
        loaded.learn(10)
    loaded.set_env(environment(num_envs=loaded.n_envs))
    learn(loaded, 1)
    torch.testing.assert_close(weights_of(loaded.reference), weights_of(base_model()).float())


def test_sample_batch_size_does_not_change_what_is_sampled():
    rollouts = [learn(agent(sample_batch_size=size), 1) for size in (5, 64, None)]
    for one, *others in zip(*rollouts, strict=True):
        for other in others:
            assert np.array_equal(one.crystals.A, other.crystals.A)
            np.testing.assert_allclose(one.crystals.L, other.crystals.L)


def test_same_seed_same_result_and_no_global_generator_is_touched():
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, other, third = agent(), agent(), agent(seed=1)
    for each in (one, other, third):
        learn(each, 2)
    assert torch.equal(weights_of(one.model), weights_of(other.model))
    assert not torch.equal(weights_of(one.model), weights_of(third.model))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_mean_rewards_are_those_of_stepping(mode):
    """Whole crystals have the distribution of those that the policy builds step by step: mean rewards agree."""
    env = CrystalVecEnv(environment(num_envs=64, action_mode=mode))
    one = agent(env, batch_size=2000)
    expected = sampled(one).rewards
    for evaluate in (evaluate_policy, evaluate_masked):
        mean, spread = evaluate(one, VecMonitor(env), n_eval_episodes=600, deterministic=False)
        assert float(mean) == pytest.approx(expected.mean(), abs=4 * float(spread) / 600**0.5)


def test_monitor_callbacks_and_logger_see_every_crystal(tmp_path):
    env = VecMonitor(CrystalVecEnv(environment()), str(tmp_path / "monitor"))
    one = agent(env)
    one.set_logger(configure(str(tmp_path), ["csv"]))
    learned = one.learn(500, callback=CheckpointCallback(1, str(tmp_path)), progress_bar=True)
    assert learned is one
    assert one.num_timesteps >= 500
    one.logger.close()
    env.close()
    lines = (tmp_path / "monitor.monitor.csv").read_text().splitlines()
    assert len(lines) == 2 + 64 * one.iteration
    assert len(list(tmp_path.glob("rl_model_*_steps.zip"))) == one.iteration
    assert "rollout/kl" in (tmp_path / "progress.csv").read_text()
    assert isinstance(one.logger, Logger)
    assert len(one.ep_info_buffer) == 64 * one.iteration
    assert len(one.ep_success_buffer) > 0


def test_time_steps_are_decisions_of_the_environment():
    rollout = sampled(one := agent())
    steps = rollout.crystals.to_actions(environment().unwrapped.vocabulary)
    assert one.num_timesteps == n_decisions(rollout.crystals).sum() == steps.lengths.sum()


def test_a_single_environment_will_do():
    options = {"bins": BINS, "space_group": list(GROUPS), "reward": reward, **CONSTRAINTS}
    for env in (gym.make("CrystalGen-v0", **options), make_vec_env("CrystalGen-v0", 2, env_kwargs=options)):
        one = agent(env)
        learn(one, 1)
        assert one.iteration == 1


@pytest.mark.parametrize("mode", AutoresetMode)
def test_environments_come_as_gymnasium_makes_them(mode):
    one = agent(environment(autoreset_mode=mode), batch_size=16)
    learn(one, 1)
    assert one.iteration == 1


def other_reward(crystals):
    return np.full(len(crystals), 7.0)


OTHERS = {
    "reward": {"reward": other_reward},
    "invalid reward": {"invalid_reward": -3},
    "constraints": {"max_sites": 1, "max_atoms": 1},
    "space groups": {"space_group": [225]},
}


def full(tmp_path=None):
    """Return an agent with a pending batch, an average and a buffer; saved, if there is a folder."""
    one = agent(environment(reward=Remembering()), policy_kwargs={"model": base_model().float()})
    learn(one, 1)
    one.train()
    assert one.average is not None
    one.loss = "topr"
    learn(one, 2)
    assert one._pending is not None
    assert len(one.buffer)
    assert one.offsets.any()
    if tmp_path is not None:
        one.save(tmp_path / "agent.zip")
    return one


def test_what_the_model_recommends_comes_back(tmp_path):
    one = agent()
    one.model.temperature = Temperatures.of({"lattice": 0.01})
    one.save(tmp_path / "agent.zip")
    for loaded in (KLPPO.load(tmp_path / "agent.zip"), KLPPO.load(tmp_path / "agent.zip", env=environment())):
        assert loaded.model.temperature == one.model.temperature
        loaded.model.temperature = Temperatures.of(0.5)
        loaded.save(tmp_path / "again.zip")
        assert KLPPO.load(tmp_path / "again.zip").model.temperature == Temperatures.of(0.5)


def is_dropped(one, kept):
    return (one._pending is None, one.average is None, not len(one.buffer), not one.offsets.any()) == (not kept,) * 4


@pytest.mark.parametrize("change", OTHERS)
def test_what_belongs_to_another_task_is_dropped(tmp_path, change):
    env = environment(**{"reward": Remembering(), **OTHERS[change]})
    one = full(tmp_path)
    one.set_env(env)
    loaded = KLPPO.load(tmp_path / "agent.zip", env=env)
    late = KLPPO.load(tmp_path / "agent.zip")
    late.set_env(env)
    for each in (one, loaded, late):
        assert is_dropped(each, kept=False)
        assert not each.ep_info_buffer
    if change == "reward":
        assert set(sampled(loaded).rewards) == {7.0}
    else:
        assert env.unwrapped.reward.seen == 0


def test_what_belongs_to_the_same_task_is_kept(tmp_path):
    one = full(tmp_path)
    seen = one.adapter.reward_state()
    one.set_env(environment(reward=one.env.env.unwrapped.reward))  # the same object
    loaded = KLPPO.load(tmp_path / "agent.zip", env=environment(reward=Remembering()))
    late = KLPPO.load(tmp_path / "agent.zip")
    late.save(tmp_path / "again.zip")  # without an environment
    late = KLPPO.load(tmp_path / "again.zip")
    late.set_env(environment(reward=Remembering()))
    for each in (one, loaded, late):
        assert is_dropped(each, kept=True)
        assert each.adapter.reward_state() == seen


def test_a_reward_without_a_digest_is_another_one(tmp_path):
    one = agent(environment(reward=lambda crystals, lock=open: reward(crystals)), policy_kwargs={"model": base_model()})
    sampled(one)
    one.set_env(environment(reward=lambda crystals: reward(crystals) + 1))
    assert one._pending is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": -1}, "tau must"), ({"tau": np.nan}, "tau must"), ({"reward_range": (1,)}, "reward_range must"),
        ({"batch_size": True}, "batch_size must"), ({"weights": {}}, "unknown settings"),
        ({"seed": 1}, "unknown settings"), ({"paper_update": True}, "continuous"),
        ({"paper_update": True, "ratio": "token"}, "paper_update takes"),
    ],
)  # fmt: skip
def test_arguments_of_load_are_checked_like_those_of_new_agents(tmp_path, options, words):
    agent().save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=words):
        KLPPO.load(tmp_path / "agent.zip", env=environment(), **options)
    if "seed" not in options:
        with pytest.raises(ValueError, match=words):
            agent(**options)


def test_settings_given_to_load_win(tmp_path):
    agent(buffer_size=50).save(tmp_path / "agent.zip")
    loaded = KLPPO.load(tmp_path / "agent.zip", env=environment(), tau=0.7, loss="topr", buffer_size=3, batch_size=16)
    learn(loaded, 1)
    assert (loaded.tau, len(loaded.buffer), len(sampled(loaded))) == (0.7, 3, 16)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"ratio": "token"}), ({"ratio": "token"}, {"ratio": "sequence"}), ({}, {"reward_range": (0.4, 0.6)}),
        ({"ratio": "token"}, {"log_ratio_weights": {"lattice": 0.0}}), ({}, {"log_ratio_weights": {"lattice": 0.0}}),
    ],
)  # fmt: skip
def test_settings_changed_with_a_batch_pending_hold_for_it(tmp_path, before, after):
    one = agent(policy_kwargs={"model": base_model().float()}, **before)
    sampled(one)
    one.save(tmp_path / "agent.zip")
    loaded = KLPPO.load(tmp_path / "agent.zip", env=environment(), **after)
    loaded.set_logger(Logger(None, []))
    loaded.learn(n_iterations=1, log_interval=0)
    assert loaded.logger.name_to_value["train/first_ratio_error"] < 1e-4
    if "reward_range" in after:
        assert 0.4 <= loaded.logger.name_to_value["rollout/reward_mean"] <= 0.6


@pytest.mark.parametrize(("name", "value"), [("tau", np.nan), ("batch_size", 0), ("reward_range", (0,))])
def test_attributes_set_later_are_checked_before_the_next_update(name, value):
    one = agent()
    sampled(one)
    before = weights_of(one.model)
    setattr(one, name, value)
    for act in (one.train, lambda: one.learn(1)):
        with pytest.raises(ValueError, match=f"^{name} must"):
            act()
    assert torch.equal(weights_of(one.model), before)


def test_a_preset_gives_defaults_and_arguments_win():
    one = agent(preset="best", batch_size=8)
    assert one.config.weights()["lattice"] == 0
    assert (one.batch_size, one.warmup, one.learning_rate) == (8, PRESETS["best"]["warmup"], 3e-3)


# schedules


def rates(one, **length):
    """Return the learning rates of all iterations."""
    seen = []
    dump = one.dump_logs
    one.dump_logs = lambda: (seen.append(one.policy.optimizer.param_groups[0]["lr"]), dump())
    one.learn(**length)
    return seen


def test_a_schedule_runs_over_iterations():
    options = {"learning_rate": 1e-3, "warmup": 2, "schedule": "linear", "batch_size": 4, "n_epochs": 1}
    assert rates(agent(**options), n_iterations=4) == pytest.approx([0.5e-3, 0.75e-3, 0.5e-3, 0.25e-3])
    own = agent(learning_rate=lambda remaining: 1e-3 * remaining**2, batch_size=4)
    assert rates(own, n_iterations=4) == pytest.approx([1e-3, 0.75**2 * 1e-3, 0.25e-3, 0.0625e-3])


def test_a_schedule_runs_over_time_steps():
    one = agent(learning_rate=lambda remaining: 1e-3 * remaining, batch_size=16)
    seen = rates(one, total_timesteps=400)
    assert seen[0] == 1e-3
    assert seen == sorted(seen, reverse=True)
    assert 0 < seen[-1] < 0.3e-3


def test_a_schedule_follows_the_progress_that_it_is_given():
    spent = iter([0.0, 0.1, 0.9])
    one = agent(learning_rate=1e-3, schedule="linear", batch_size=4)
    assert rates(one, n_iterations=3, progress=lambda: next(spent)) == pytest.approx([1e-3, 0.9e-3, 0.1e-3])


def test_learning_in_two_parts_is_learning_in_one(tmp_path):
    options = {"learning_rate": 1e-2, "warmup": 2, "schedule": "linear", "batch_size": 16}
    options["policy_kwargs"] = {"model": base_model().float()}
    straight, first = agent(**options), agent(**options)
    straight.learn(n_iterations=5)
    stop = iter([True, True, False])
    first.learn(n_iterations=5, callback=lambda *_: next(stop))  # with a batch sampled in iteration 3
    first.save(tmp_path / "agent.zip")
    second = KLPPO.load(tmp_path / "agent.zip", env=environment())
    second.learn(n_iterations=5, reset_num_timesteps=False)
    assert (second.iteration, second.num_timesteps) == (5, straight.num_timesteps)
    assert torch.equal(weights_of(second.model), weights_of(straight.model))


@pytest.mark.parametrize("length", [{}, {"total_timesteps": 10, "n_iterations": 1}])
def test_learning_takes_one_length(length):
    with pytest.raises(ValueError, match="total_timesteps or n_iterations"):
        agent().learn(**length)
