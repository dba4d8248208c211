"""KLPPO reaches the optimum of the paper's objective where it can be computed."""

import numpy as np
import pytest
import torch
from tiny_agent import agent, learn, sampled, weights_of
from tiny_grammar import (
    BINS,
    CONSTRAINTS,
    base_model,
    divergence,
    environment,
    every_crystal,
    optimum,
    probabilities,
    reward,
)  # fmt: skip

from agents.crystalformer.likelihood import LogProb
from agents.klppo.rollout import Rollout


def gradient(one, rollout, **changes):
    """Return the gradient of one step on a batch, without taking it."""
    for name, value in changes.items():
        setattr(one, name, value)
    one._pending = rollout
    one.max_grad_norm, one.n_epochs, one.learning_rate = 1e9, 1, 0.0
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


def test_a_policy_that_has_left_the_reference_returns():
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
    rollout = sampled(one)
    exact = divergence(probabilities(one.model), probabilities(base_model()))
    d = rollout.kl_divergence()
    assert d.mean() == pytest.approx(exact, abs=4 * d.std() / 4000**0.5)
    k3 = np.expm1(-d) + d
    assert rollout.statistics()["rollout/kl_k3"] == pytest.approx(k3.mean())
    assert k3.mean() == pytest.approx(exact, abs=4 * k3.std() / 4000**0.5)


# the gradient


def test_log_probabilities_agree_so_that_first_ratios_are_1():
    one = agent()
    rollout = sampled(one)
    with torch.no_grad():
        scored = one.model.log_prob(rollout.crystals, bins=BINS, **CONSTRAINTS)
    for name in LogProb._fields:
        np.testing.assert_allclose(rollout.log_prob[name], getattr(scored, name).numpy(), atol=1e-12)
    one.train()
    assert one.logger.name_to_value["train/first_ratio_error"] < 1e-12


@pytest.mark.parametrize("ratio", ["sequence", "token"])
def test_the_first_step_is_reinforce(ratio):
    one = agent(ratio=ratio, baseline="batch", tau=0.3)
    rollout = sampled(one)
    returns = rollout.rewards - 0.3 * rollout.kl_divergence()
    scores = one.model.log_prob(rollout.crystals, bins=BINS, **CONSTRAINTS).total
    plain = (torch.from_numpy(returns - returns.mean()) * scores).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-plain, one.model.parameters(), allow_unused=False)])
    torch.testing.assert_close(gradient(one, rollout), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"ratio": "token"}, {"log_ratio_weights": {"lattice": 0.0}}])
def test_gradient_agrees_with_finite_differences_off_policy(options):
    one = agent(tau=0.3, baseline="batch", **options)
    rollout = sampled(one)
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
    d, scores = rollout.kl_divergence(), one.model.log_prob(rollout.crystals, bins=BINS, **CONSTRAINTS)
    returns = rollout.rewards - one.tau * d
    A = returns - returns.mean()
    if options.get("ratio") == "token":
        log_ratio = one._decisions(one.config, rollout.crystals) - rollout.decisions
        A = A[:, None]
    else:
        parts = [name for name in LogProb._fields[1:] if options.get("log_ratio_weights", {}).get(name, 1.0)]
        log_ratio = sum(getattr(scores, name).numpy() - rollout.log_prob[name] for name in parts)
    gain = np.minimum(np.exp(log_ratio) * A, np.clip(np.exp(log_ratio), 0.8, 1.2) * A)
    gain = gain.sum(1) if gain.ndim == 2 else gain
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
    rollout = sampled(whole)
    torch.testing.assert_close(gradient(parted, rollout), gradient(whole, rollout), rtol=1e-9, atol=1e-12)


def test_rewards_are_clipped_to_their_range():
    rollout = sampled(agent(reward_range=(0.25, 0.75)))
    assert rollout.rewards.min() == 0.25
    assert rollout.rewards.max() == 0.75
    assert rollout.result.total.max() > 0.75


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
    rollout = sampled(one)
    rollout.reference_log_prob["elements"][5], rollout.rewards[7] = -np.inf, np.nan
    kept = np.setdiff1d(np.arange(64), [5, 7])
    assert (rollout.usable() == kept).all()
    fewer = Rollout(
        rollout.crystals[kept], rollout.result.take(kept), rollout.rewards[kept],
        *({name: values[kept] for name, values in p.items()} for p in (rollout.log_prob, rollout.reference_log_prob)),
    )  # fmt: skip
    torch.testing.assert_close(gradient(one, rollout), gradient(agent(), fewer))
    assert one.logger.name_to_value["rollout/skipped"] == 2


def test_a_gradient_that_is_not_finite_is_skipped_and_counted():
    one = agent(n_epochs=2)
    rollout = sampled(one)
    before = weights_of(one.model)
    one.model.head.register_full_backward_hook(lambda module, into, out: (into[0] * np.nan,))
    one.train()
    assert torch.equal(weights_of(one.model), before)
    assert one.logger.name_to_value["train/skipped_steps"] == 2
    assert one._pending is None
    assert len(rollout.rewards) == 64


def test_a_batch_without_a_single_usable_crystal_changes_nothing():
    one = agent()
    sampled(one).rewards[:] = np.nan
    before = weights_of(one.model)
    one.train()
    assert torch.equal(weights_of(one.model), before)


def test_the_published_update_differentiates_the_kl_divergence():
    env = environment(action_mode="continuous")
    one = agent(env, paper_update=True, tau=0.3, batch_size=16)
    rollout = sampled(one)
    scores = one.model.log_prob(rollout.crystals, "paper").total
    np.testing.assert_allclose(rollout.log_prob["total"], scores.detach().numpy())
    advantages = torch.from_numpy(rollout.rewards - rollout.rewards.mean())
    ratio = (scores - scores.detach()).exp()
    inner = advantages - 0.3 * (scores - torch.from_numpy(rollout.reference_log_prob["total"]))
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-(ratio * inner).mean(), one.model.parameters())])
    torch.testing.assert_close(gradient(one, rollout), expected, rtol=1e-6, atol=1e-9)
    assert one.average == pytest.approx(rollout.rewards.mean())
