"""KLPPO reaches the optimum of the paper's objective where it can be written down, and goes on as if never stopped."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.vec_env import VecMonitor
from tiny_grammar import (
    BINS,
    CONSTRAINTS,
    GROUPS,
    base_model,
    divergence,
    environment,
    every_crystal,
    optimum,
    probabilities,
    reward,
)  # fmt: skip

from agents import KLPPO, CrystalVecEnv
from agents.crystalformer.likelihood import LogProb
from agents.klppo.env_adapter import n_decisions
from agents.klppo.rollout import Rollout

SEVERAL = 2**31  # decisions that no test reaches


class Stop(BaseCallback):
    """Ends learning after some iterations; keeps what was drawn."""

    def __init__(self, iterations):
        super().__init__()
        self.iterations, self.rollouts = iterations, []

    def _on_step(self):
        self.rollouts.append(self.locals["rollout"])
        return len(self.rollouts) <= self.iterations


def agent(env=None, **options):
    options = {"batch_size": 64, "learning_rate": 3e-3, "seed": 0, "policy_kwargs": {"model": base_model()}, **options}
    one = KLPPO("CrystalFormerPolicy", environment() if env is None else env, **options)
    one.set_logger(Logger(None, []))
    return one


def learn(one, iterations, **options):
    stop = Stop(iterations)
    one.learn(SEVERAL, callback=stop, **options)
    return stop.rollouts


def drawn(one):
    """Let an agent draw a batch; return it."""
    return learn(one, 0)[0]


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def gradient(one, rollout, **changes):
    """Return the gradient of one step on a batch, without taking it."""
    for name, value in changes.items():
        setattr(one, name, value)
    one._pending = rollout
    one.max_grad_norm, one.n_epochs, one.learning_rate = 1e9, 1, 0.0
    one._setup_lr_schedule()
    one.train()
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in one.model.parameters()]
    )


# the optimum


def test_the_crystals_of_the_tiny_grammar_are_all_there_are():
    assert probabilities(base_model()).sum() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("tau", [0.2, 0.5, 1.0])
def test_training_reaches_the_optimal_policy_and_value(tau):
    """Eq. 2: the best policy is p_base exp(r / tau) / Z, and its value tau ln Z."""
    base, rewards = probabilities(base_model()), reward(every_crystal())
    best, value = optimum(base, rewards, tau)
    one = agent(tau=tau, batch_size=256, learning_rate=lambda left: 0.02 * max(0.0, left), baseline="group")
    one.learn(60 * 256 * 5)
    p = probabilities(one.model)
    assert divergence(p, best) < 0.08 * divergence(base, best)
    ours = (p * rewards).sum() - tau * divergence(p, base)
    start = (base * rewards).sum()
    assert value >= ours > value - 0.08 * (value - start)


def nothing(crystals):
    return np.zeros(len(crystals))


def pushed(one, size):
    """Move a policy away from its base."""
    with torch.no_grad():
        noise = torch.randn(one.model.head.weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        one.model.head.weight += size * noise
    return divergence(probabilities(one.model), probabilities(base_model()))


def test_without_a_reward_the_policy_stays_at_the_base():
    model = {"model": base_model(), "optimizer_class": torch.optim.SGD}  # Adam would blow up rounding errors
    one = agent(environment(reward=nothing), tau=1.0, policy_kwargs=model)
    learn(one, 10)
    torch.testing.assert_close(weights_of(one.model), weights_of(base_model()), rtol=0, atol=1e-12)


def test_a_policy_that_has_left_the_base_is_drawn_back():
    one = agent(
        environment(reward=nothing), baseline="group", tau=1.0, batch_size=256, learning_rate=lambda left: 0.01 * left
    )
    before = pushed(one, 0.2)
    one.learn(30 * 256 * 5)
    assert before > 0.1
    assert divergence(probabilities(one.model), probabilities(base_model())) < 0.1 * before


def test_estimates_of_the_divergence_agree_with_the_exact_one():
    one = agent(batch_size=4000)
    with torch.no_grad():
        one.model.head.weight += 0.1 * torch.randn(
            one.model.head.weight.shape, generator=torch.Generator().manual_seed(0)
        )
    rollout = drawn(one)
    exact = divergence(probabilities(one.model), probabilities(base_model()))
    d = rollout.divergence()
    assert d.mean() == pytest.approx(exact, abs=4 * d.std() / 4000**0.5)
    k3 = np.expm1(-d) + d
    assert rollout.statistics()["rollout/kl_k3"] == pytest.approx(k3.mean())
    assert k3.mean() == pytest.approx(exact, abs=4 * k3.std() / 4000**0.5)


# the gradient


def test_drawn_log_probabilities_are_those_of_teacher_forcing_so_that_first_ratios_are_1():
    one = agent()
    rollout = drawn(one)
    with torch.no_grad():
        scored = one.model.log_prob(rollout.crystals, bins=BINS, **CONSTRAINTS)
    for name in LogProb._fields:
        np.testing.assert_allclose(rollout.log_prob[name], getattr(scored, name).numpy(), atol=1e-12)
    one.train()
    assert one.logger.name_to_value["train/first_ratio_error"] < 1e-12


@pytest.mark.parametrize("ratio", ["sequence", "token"])
def test_the_first_step_is_reinforce(ratio):
    one = agent(ratio=ratio, baseline="batch", tau=0.3)
    rollout = drawn(one)
    returns = rollout.rewards - 0.3 * rollout.divergence()
    scores = one.model.log_prob(rollout.crystals, bins=BINS, **CONSTRAINTS).total
    plain = (torch.from_numpy(returns - returns.mean()) * scores).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-plain, one.model.parameters(), allow_unused=False)])
    torch.testing.assert_close(gradient(one, rollout), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"kl": "loss"}, {"ratio": "token"}, {"weights": {"lattice": 0.0}}])
def test_gradient_agrees_with_finite_differences_away_from_the_drawing_policy(options):
    one = agent(tau=0.3, baseline="batch", **options)
    rollout = drawn(one)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in one.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator, dtype=torch.double)
    direction = [torch.randn(p.shape, generator=generator, dtype=torch.double) for p in one.model.parameters()]
    slope = gradient(one, rollout) @ torch.cat([d.flatten() for d in direction])

    def shift(step):
        with torch.no_grad():
            for parameter, d in zip(one.model.parameters(), direction, strict=True):
                parameter += step * d

    losses = []
    for step in (1e-6, -2e-6):
        shift(step)
        losses.append(objective(one, rollout, options))
    assert slope.item() == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4)


@torch.no_grad()
def objective(one, rollout, options):
    """The loss in plain numpy: Eq. S1 to S3, with what the options change."""
    d, scores = rollout.divergence(), one.model.log_prob(rollout.crystals, bins=BINS, **CONSTRAINTS)
    returns = rollout.rewards - (0.0 if options.get("kl") == "loss" else one.tau * d)
    A = returns - returns.mean()
    if options.get("ratio") == "token":
        log_ratio = one._decisions(rollout.crystals) - rollout.decisions
        A = A[:, None]
    else:
        parts = [name for name in LogProb._fields[1:] if options.get("weights", {}).get(name, 1.0)]
        log_ratio = sum(getattr(scores, name).numpy() - rollout.log_prob[name] for name in parts)
    gain = np.minimum(np.exp(log_ratio) * A, np.clip(np.exp(log_ratio), 0.8, 1.2) * A)
    gain = gain.sum(1) if gain.ndim == 2 else gain
    if options.get("kl") == "loss":
        away = scores.total.numpy() - rollout.base
        gain = gain - one.tau * (np.exp(-away) - 1 + away)
    return -gain.mean()


def test_no_gradient_reaches_the_base_and_it_never_changes():
    one = agent()
    before = weights_of(one.reference)
    learn(one, 3)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in one.reference.parameters())
    assert torch.equal(weights_of(one.reference), before)
    assert not torch.equal(weights_of(one.model), before)


def test_parts_of_any_size_give_the_same_gradient():
    whole, parted = agent(), agent(max_tokens=30)
    rollout = drawn(whole)
    torch.testing.assert_close(gradient(parted, rollout), gradient(whole, rollout), rtol=1e-9, atol=1e-12)


def test_replay_adds_the_likelihood_of_the_best_so_far():
    plain, replaying = agent(batch_size=32), agent(batch_size=32, replay=0.7)
    rollout = drawn(plain)
    added = gradient(replaying, rollout) - gradient(plain, rollout)
    best = copy.deepcopy(replaying.top_k).sample(3, np.random.default_rng(0))
    assert set(replaying.top_k.rewards) <= set(rollout.rewards)
    assert replaying.top_k.rewards[0] == rollout.rewards.max()
    assert len(best) == 3
    assert added.abs().max() > 0


def test_entropy_bonus_is_a_reward_for_rare_letters_and_elements():
    one, other = agent(baseline="batch", tau=0.0, ent_coef=0.3), agent(baseline="batch", tau=0.0)
    rollout = drawn(one)
    entropy = rollout.log_prob["letters"] + rollout.log_prob["elements"]
    shaped = copy.copy(rollout)
    object.__setattr__(shaped, "rewards", rollout.rewards - 0.3 * entropy)
    torch.testing.assert_close(gradient(one, rollout), gradient(other, shaped))


def test_rewards_are_cut_to_their_range():
    rollout = drawn(agent(reward_range=(0.25, 0.75)))
    assert rollout.rewards.min() == 0.25
    assert rollout.rewards.max() == 0.75
    assert rollout.result.total.max() > 0.75


def test_tau_follows_the_target_divergence():
    above, below = agent(target_kl=1e-9, tau=1.0), agent(target_kl=1e9, tau=1.0)
    for one in (above, below):
        learn(one, 4)
    assert above.tau > 1.0 > below.tau == pytest.approx(0.98**4)


# what breaks


def test_a_reward_that_is_not_finite_or_raises_harms_no_other_crystal():
    def fickle(crystals):
        values = reward(crystals)
        values[::3] = [np.nan, np.inf, -np.inf][len(values) % 3]
        return values

    one = agent(environment(reward=fickle, invalid_reward=-1))
    rollouts = learn(one, 3)
    assert all(np.isfinite(rollout.rewards).all() for rollout in rollouts)
    assert sum(rollouts[0].failures().values()) > 5
    assert torch.isfinite(weights_of(one.model)).all()
    assert one.iteration == 3


def test_what_is_not_finite_is_left_out_and_counted():
    one = agent()
    rollout = drawn(one)
    rollout.base[5], rollout.rewards[7] = -np.inf, np.nan
    kept = np.setdiff1d(np.arange(64), [5, 7])
    assert (rollout.usable() == kept).all()
    fewer = Rollout(
        rollout.crystals[kept], rollout.result.take(kept), rollout.rewards[kept],
        {name: values[kept] for name, values in rollout.log_prob.items()}, rollout.base[kept],
    )  # fmt: skip
    torch.testing.assert_close(gradient(one, rollout), gradient(agent(), fewer))
    assert one.logger.name_to_value["rollout/skipped"] == 2


def test_a_gradient_that_is_not_finite_is_skipped_and_counted():
    one = agent(n_epochs=2)
    rollout = drawn(one)
    before = weights_of(one.model)
    one.model.head.register_full_backward_hook(lambda module, into, out: (into[0] * np.nan,))
    one.train()
    assert torch.equal(weights_of(one.model), before)
    assert one.logger.name_to_value["train/skipped_steps"] == 2
    assert one._pending is None
    assert len(rollout.rewards) == 64


def test_a_batch_without_a_single_usable_crystal_changes_nothing():
    one = agent()
    drawn(one).rewards[:] = np.nan
    before = weights_of(one.model)
    one.train()
    assert torch.equal(weights_of(one.model), before)


# stable-baselines3


@pytest.mark.parametrize("options", [{}, {"ratio": "token", "replay": 0.1, "target_kl": 0.5}, {"baseline": "ema"}])
def test_saved_and_loaded_it_goes_on_as_if_never_stopped(tmp_path, options):
    options["policy_kwargs"] = {"model": base_model().float()}
    straight, stopped = agent(**options), agent(**options)
    learn(straight, 4)
    learn(stopped, 2)  # ends with a batch that is drawn and not yet learned from
    stopped.save(tmp_path / "agent.zip")
    loaded = KLPPO.load(tmp_path / "agent.zip", env=environment())
    learn(loaded, 1, reset_num_timesteps=False)
    assert torch.equal(weights_of(loaded.model), weights_of(straight.model))
    assert torch.equal(weights_of(loaded.reference), weights_of(base_model().float()))
    assert loaded.average == straight.average
    assert (loaded.tau, loaded.iteration, loaded.num_timesteps) == (straight.tau, 4, straight.num_timesteps)
    assert loaded.rng.bit_generator.state == straight.rng.bit_generator.state
    np.testing.assert_array_equal(loaded.top_k.rewards, straight.top_k.rewards)


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


def test_a_loaded_agent_needs_no_environment_to_play_and_keeps_its_reference(tmp_path):
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
def test_what_is_learned_is_what_playing_the_environment_is_worth(mode):
    """Whole crystals are drawn as the policy plays step by step: mean rewards agree."""
    env = CrystalVecEnv(environment(num_envs=64, action_mode=mode))
    one = agent(env, batch_size=2000)
    expected = drawn(one).rewards
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
    rollout = drawn(one := agent())
    played = rollout.crystals.to_actions(environment().unwrapped.vocabulary)
    assert one.num_timesteps == n_decisions(rollout.crystals).sum() == played.lengths.sum()


def test_a_single_environment_will_do():
    options = {"bins": BINS, "space_group": list(GROUPS), "reward": reward, **CONSTRAINTS}
    for env in (gym.make("CrystalGen-v0", **options), make_vec_env("CrystalGen-v0", 2, env_kwargs=options)):
        one = agent(env)
        learn(one, 1)
        assert one.iteration == 1


def test_equal_crystals_are_scored_once():
    asked = []

    def counting(crystals):
        asked.append(len(crystals))
        return reward(crystals)

    rollout = drawn(agent(environment(reward=counting), batch_size=500))
    first, _ = rollout.crystals.distinct()
    assert asked == [len(first)]
    assert len(first) < 500
    np.testing.assert_allclose(rollout.rewards, reward(rollout.crystals))


def test_another_environment_brings_another_reward():
    one = agent()
    drawn(one)
    one.set_env(environment(reward=lambda crystals: np.full(len(crystals), 7.0)))
    assert one._pending is None
    assert set(drawn(one).rewards) == {7.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": -1}, "tau"), ({"batch_size": 0}, "batch_size"), ({"n_epochs": 1.5}, "n_epochs"), ({"ema": 1}, "ema"),
        ({"clip_range": 0}, "clip_range"), ({"ratio": "word"}, "ratio"), ({"baseline": "x"}, "baseline"),
        ({"kl": "k2"}, "kl"), ({"reward_range": (1, 0)}, "reward_range"), ({"weights": {"x": 1}}, "weights"),
        ({"weights": {"lattice": -1}}, "weights"), ({"paper_update": True}, "continuous"),
        ({"paper_update": True, "ratio": "token"}, "paper_update"), ({"target_kl": 0}, "target_kl"),
    ],
)  # fmt: skip
def test_arguments_are_checked(options, words):
    with pytest.raises(ValueError, match=words):
        agent(**options)


def test_published_update_differentiates_the_divergence_and_keeps_it_out_of_the_baseline():
    env = environment(action_mode="continuous")
    one = agent(env, paper_update=True, tau=0.3, batch_size=16)
    rollout = drawn(one)
    scores = one.model.log_prob(rollout.crystals, "paper").total
    np.testing.assert_allclose(rollout.log_prob["total"], scores.detach().numpy())
    advantages = torch.from_numpy(rollout.rewards - rollout.rewards.mean())
    ratio = (scores - scores.detach()).exp()
    inner = advantages - 0.3 * (scores - torch.from_numpy(rollout.base))
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-(ratio * inner).mean(), one.model.parameters())])
    torch.testing.assert_close(gradient(one, rollout), expected, rtol=1e-6, atol=1e-9)
    assert one.average == pytest.approx(rollout.rewards.mean())
