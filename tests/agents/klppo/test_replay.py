"""Off-policy learning reaches the optimum of the paper's objective, whatever the crystals come from."""

import numpy as np
import pytest
import torch
from tiny_agent import agent, learn, weights_of
from tiny_grammar import (
    BINS,
    CONSTRAINTS,
    GROUPS,
    base_model,
    divergence,
    environment,
    every_crystal,
    every_symbol,
    optimum,
    probabilities,
    reward,
    symbol_probabilities,
)  # fmt: skip

from agents import KLPPO
from agents.klppo.replay import ReplayLosses
from agents.training.transitions import PARTS
from crystal_env.elements import MIN_CONTACT
from crystal_env.reward import RewardResult

ALL_PARTS = {"log_ratio_weights": dict.fromkeys(PARTS, 1.0), "likelihood_coef": 0.0}
SYMBOLS_ONLY = {"likelihood_coef": 0.0}
TEMPERED = {"letters": 0.7, "elements": 1.4, "lattice": 0.5}
TAU = 0.3


def learner(env=None, **options):
    """Return an agent that learns fast."""
    options = {
        "tau": TAU, "batch_size": 128, "minibatch_size": 128, "learning_rate": lambda left: 0.02 * max(0.0, left),
        **options,
    }  # fmt: skip
    return agent(env, **options)


def on_foreign_crystals(steps, crystals, env=None, **options):
    """Return an agent that has learned from crystals that it was given, and from hardly any other."""
    iterations = 20
    one = learner(env, batch_size=1, replay_ratio=128 * steps / iterations, **options)
    assert one.add_to_buffer(crystals) == len(crystals)
    one.learn(n_iterations=iterations)
    return one


def losses_of(one, seed=0, max_tokens=10_000):
    """Return the losses of an agent's buffer, which change nothing in the agent."""
    distribution = one.adapter.distribution(one.config.temperature)
    rest = (one.buffer, one.offsets.copy(), np.random.default_rng(seed), max_tokens)
    return ReplayLosses(one.model, one.reference, distribution, one.config, *rest)


def drawn(one):
    """Return the rows of the minibatch that `losses_of` draws."""
    n = len(one.buffer)
    return np.random.default_rng(0).choice(n, one.minibatch_size, p=np.full(n, 1 / n))


def gradient(one, losses):
    one.model.zero_grad()
    for loss in losses():
        loss.backward()
    return torch.cat([p.grad.flatten() for p in one.model.parameters()])


def moved(model, size, seed=0):
    """Add noise to the parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=torch.double)


def scores(one, crystals):
    """Return the log-likelihoods by part (B, 4) by the policy, with gradient."""
    options = {"bins": one.adapter.bins, "temperature": one.config.temperature, **CONSTRAINTS}
    return torch.stack(one.model.log_prob(crystals, **options)[1:], dim=1)


# the optimum


@pytest.mark.parametrize("loss", ["balance", "topr"])
def test_replay_of_own_crystals_reaches_the_optimum(loss):
    one = learner(loss=loss, **ALL_PARTS).learn(n_iterations=40)
    base, rewards = probabilities(base_model()), reward(every_crystal())
    best, value = optimum(base, rewards, TAU)
    p = probabilities(one.model)
    assert divergence(p, best) < 0.08 * divergence(base, best)
    start = (base * rewards).sum()
    assert value >= (p * rewards).sum() - TAU * divergence(p, base) > value - 0.08 * (value - start)


@pytest.mark.parametrize(
    ("loss", "temperature", "steps"), [("balance", 1.0, 60), ("balance", TEMPERED, 60), ("topr", TEMPERED, 100)]
)
def test_foreign_crystals_lead_to_the_optimum_of_the_tempered_reference(loss, temperature, steps):
    """The crystals are all those, in equal numbers, that the reference is not as good as certain never to sample."""
    base = probabilities(base_model(), temperature)
    one = on_foreign_crystals(steps, every_crystal()[base > 1e-5], loss=loss, temperature=temperature, **ALL_PARTS)
    best, _ = optimum(base, reward(every_crystal()), TAU)
    assert divergence(probabilities(one.model, temperature), best) < 0.08 * divergence(base, best)


def test_filtered_crystals_lead_to_the_optimum_of_the_lowest_reward_for_them():
    crystals = every_crystal()
    is_close = crystals.min_contact(MIN_CONTACT) < MIN_CONTACT
    one = learner(loss="balance", filters=("contact",), oversampling=1.5, replay_ratio=4.0, **ALL_PARTS)
    one.learn(n_iterations=40)
    base, p = probabilities(base_model()), probabilities(one.model)
    best, _ = optimum(base, np.where(is_close, -1, reward(crystals)), TAU)
    assert 0.02 < base[is_close].sum() < 0.98
    assert divergence(p, best) < 0.08 * divergence(base, best)


def lattice_reward(crystals):
    """The reward of group, letters and elements, and a part that depends on the length of the cell."""
    return reward(crystals) + 0.1 * np.sin(50 * crystals.L[:, 0])


def test_letters_and_elements_have_the_optimum_of_their_mean_reward():
    """Without a gradient through the lattice, the reward of letters and elements is the mean over the lattices."""
    one = on_foreign_crystals(60, every_crystal(), environment(reward=lattice_reward), loss="balance", **SYMBOLS_ONLY)
    base = symbol_probabilities(base_model())
    best, _ = optimum(base, lattice_reward(every_crystal()).reshape(-1, BINS).mean(1), TAU, every_symbol())
    assert divergence(symbol_probabilities(one.model), best) < 0.08 * divergence(base, best)


@pytest.mark.parametrize("loss", ["balance", "topr"])
def test_letters_and_elements_reach_the_optimum_on_the_continuous_environment(loss):
    one = learner(environment(action_mode="continuous"), loss=loss, temperature={"lattice": 0.3}, **SYMBOLS_ONLY)
    one.learn(n_iterations=40)
    base = symbol_probabilities(base_model())
    best, _ = optimum(base, reward(every_symbol()), TAU, every_symbol())
    assert divergence(symbol_probabilities(one.model), best) < 0.08 * divergence(base, best)


@pytest.mark.parametrize("loss", ["balance", "topr"])
@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_a_reward_that_tells_nothing_apart_moves_nothing(loss, constant):
    def same(crystals):
        return np.full(len(crystals), constant)

    model = {"model": base_model(), "optimizer_class": torch.optim.SGD}  # Adam would blow up rounding errors
    one = agent(
        environment(reward=same), loss=loss, tau=1.0, policy_kwargs=model, draw="recent", augmentation=1.0, **ALL_PARTS
    )
    one.likelihood_coef = 1.0
    learn(one, 5)
    assert one._n_updates > 5
    torch.testing.assert_close(weights_of(one.model), weights_of(base_model()), rtol=0, atol=1e-12)


# the gradient


def advantages(one, rows):
    """Return the advantages (n,) of rows of the buffer, by hand."""
    data, config = one.buffer.data, one.config
    means = np.empty(len(data))
    for G in GROUPS:
        of_group = data.rewards[data.crystals.G == G]
        means[data.crystals.G == G] = (of_group.sum() + 5 * data.rewards.mean()) / (len(of_group) + 5)
    gains = data.rewards - means
    used = [name for name in PARTS if config.weights()[name]]
    ours = scores(one, data.crystals).detach().numpy() - data.reference_log_prob
    kl = ours[:, [PARTS.index(name) for name in used]].sum(1)
    returns = gains - one.offsets[data.crystals.G] - config.tau * kl
    return np.clip(returns / np.sqrt(np.mean(gains**2)), -5, 5)[rows], gains[rows]


def on_policy(**options):
    """Return an agent away from its reference, whose buffer holds fresh crystals of its own, and no others."""
    one = agent(loss="topr", tau=0.2, learning_rate=0.0, minibatch_size=50, **options)
    moved(one.model, 0.01)
    learn(one, 1)
    assert len(one.buffer) == 64
    return one


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
@pytest.mark.parametrize("options", [ALL_PARTS, {"likelihood_coef": 0.5}])
def test_tapered_gradient_on_policy_is_that_of_reinforce(mode, options):
    one = on_policy(env=environment(action_mode=mode), **options)
    rows = drawn(one)
    A, gains = advantages(one, rows)
    parts = scores(one, one.buffer.data.crystals[rows])
    weights = torch.tensor([one.config.weights()[name] for name in PARTS], dtype=torch.double)
    gain = torch.from_numpy(A) * (parts @ weights)
    gain = gain + one.likelihood_coef * torch.from_numpy(gains > 0) * parts[:, 2:].sum(1)
    expected = torch.autograd.grad(-gain.mean(), one.model.parameters())
    expected = torch.cat([g.flatten() for g in expected])
    torch.testing.assert_close(gradient(one, losses_of(one)), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient(one, losses_of(one, max_tokens=30)), expected, rtol=1e-6, atol=1e-9)


def test_without_negatives_only_better_crystals_count():
    one = on_policy(negatives=0.0, **ALL_PARTS)
    rows = drawn(one)
    A = torch.from_numpy(np.maximum(advantages(one, rows)[0], 0))
    assert 0 < (A == 0).sum() < 50
    gain = (A * scores(one, one.buffer.data.crystals[rows]).sum(1)).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-gain, one.model.parameters())])
    torch.testing.assert_close(gradient(one, losses_of(one)), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", ["balance", "topr"])
@pytest.mark.parametrize("options", [ALL_PARTS, {"likelihood_coef": 0.5, "temperature": TEMPERED}])
def test_gradients_agree_with_finite_differences_off_policy(loss, options):
    one = agent(loss=loss, tau=TAU, minibatch_size=50, **options)
    learn(one, 2)
    moved(one.model, 0.02)
    slope = gradient(one, losses_of(one))
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(slope.shape, generator=generator, dtype=torch.double)
    rows = drawn(one)
    objective = balance_objective if loss == "balance" else tapered_objective
    value = objective(one, rows)
    start, step, values = weights_of(one.model), 1e-6, []
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(start + sign * step * direction, one.model.parameters())
        values.append(value())
    assert (slope @ direction).item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def likelihood_of_good(one, rows, gains):
    now = scores(one, one.buffer.data.crystals[rows]).detach().numpy()
    return now, one.likelihood_coef * (now[:, 2:].sum(1) * (gains > 0))


def balance_objective(one, rows):
    """The Huber loss of the residuals, in numpy."""
    scale = np.sqrt(np.mean(losses_of(one).gains ** 2))

    def value():
        x, gains = advantages(one, rows)
        assert (np.abs(x) < 5).all()
        huber = np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)
        return (scale / one.tau * huber - likelihood_of_good(one, rows, gains)[1]).mean()

    return value


def tapered_objective(one, rows):
    """The tapered surrogate in numpy, its weights and advantages held where they are."""
    A, gains = advantages(one, rows)
    weights = np.array([one.config.weights()[name] for name in PARTS])
    ratio = np.exp((likelihood_of_good(one, rows, gains)[0] - one.buffer.data.log_prob[rows]) @ weights)
    w = np.where(A > 0, np.clip(ratio, 1, 1.2), np.minimum(ratio, 1))
    assert len(np.unique(w)) > 3

    def value():
        now, likelihood = likelihood_of_good(one, rows, gains)
        return -(w * A * (now @ weights) + likelihood).mean()

    return value


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_estimates_from_the_buffer_agree_with_those_on_policy(mode):
    """Importance weights p / p_old with the buffer's log-likelihoods: rewards, and their gradient in a direction."""
    one = agent(environment(action_mode=mode), loss="topr", tau=TAU, batch_size=500, likelihood_coef=0.0)
    learn(one, 3)
    assert len(one.buffer) == 1500
    old, data, fresh = one.buffer.data.log_prob.sum(1), one.buffer.data, one._pending
    p = symbol_probabilities(one.model)
    assert np.abs(p - symbol_probabilities(base_model())).sum() > 0.05
    exact = [(p * reward(every_symbol())).sum()]
    start, h = weights_of(one.model), 1e-5
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    off, on, shifted = [], [], []
    with torch.no_grad():
        weight = np.exp(scores(one, data.crystals).sum(1).numpy() - old)
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(start + sign * h * direction, one.model.parameters())
            shifted.append((symbol_probabilities(one.model) * reward(every_symbol())).sum())
            off.append(scores(one, data.crystals).sum(1).numpy())
            on.append(scores(one, fresh.crystals).sum(1).numpy())
    exact.append((shifted[0] - shifted[1]) / (2 * h))
    slopes_off, slopes_on = ((up - down) / (2 * h) for up, down in (off, on))
    assert weight.std() > 0.02
    estimates_off = [weight * data.rewards, weight * data.rewards * slopes_off]
    estimates_on = [fresh.rewards, fresh.rewards * slopes_on]
    for truth, by_replay, by_policy in zip(exact, estimates_off, estimates_on, strict=True):
        errors = [values.std() / len(values) ** 0.5 for values in (by_replay, by_policy)]
        assert by_replay.mean() == pytest.approx(truth, abs=4 * errors[0])
        assert by_replay.mean() == pytest.approx(by_policy.mean(), abs=4 * np.hypot(*errors))


# the buffer of an agent


@pytest.mark.parametrize("loss", ["balance", "topr"])
@pytest.mark.parametrize("copies", [0, 40])
def test_a_buffer_of_one_crystal_or_of_copies_harms_nothing(loss, copies):
    one = agent(loss=loss, batch_size=1, replay_ratio=128.0 * 5, minibatch_size=128, draw="rank")
    assert one.add_to_buffer(every_crystal()[np.full(copies, 100)]) == copies
    learn(one, 1, log_interval=0)
    assert one._n_updates == 5
    assert len(one.buffer) == copies + 1
    assert torch.isfinite(weights_of(one.model)).all()
    assert np.isfinite(list(one.logger.name_to_value.values())).all()


def test_crystals_that_cannot_be_learned_from_are_left_out():
    one = agent(loss="balance")
    rewards = np.array([0.5, np.nan, np.inf, 0.5, 0.5, -1.0])
    crystals = every_crystal()[np.arange(6) * 100]
    crystals.A[3, 0] = 8  # not allowed: its log-likelihood is -inf
    crystals.L[4, :3] = 500  # out of bounds
    failed = np.array([None] * 5 + ["no energy"], object)
    assert one.add_to_buffer(crystals, RewardResult(rewards, {}, failed)) == 2
    assert one.buffer.data.result.failures.tolist() == [None, "no energy"]
    assert np.isfinite(one.buffer.data.log_prob).all()
    assert not one.buffer.data.is_sampled.any()
    learn(one, 1)
    assert torch.isfinite(weights_of(one.model)).all()


def test_rewards_of_foreign_crystals_are_asked_for_and_clipped():
    one = agent(loss="topr", reward_range=(0.4, 0.6))
    one.add_to_buffer(every_symbol())
    np.testing.assert_array_equal(one.buffer.data.rewards, np.clip(reward(every_symbol()), 0.4, 0.6))
    np.testing.assert_array_equal(one.buffer.data.result.total, reward(every_symbol()))
    expected = scores(one, every_symbol()).detach().numpy()
    np.testing.assert_allclose(one.buffer.data.log_prob, expected, rtol=1e-12)
    np.testing.assert_allclose(one.buffer.data.reference_log_prob, expected, rtol=1e-12)


def test_foreign_crystals_are_checked():
    with pytest.raises(ValueError, match="loss is 'ppo'"):
        agent().add_to_buffer(every_symbol())
    with pytest.raises(ValueError, match="result must be of 33 crystals, got 2"):
        agent(loss="topr").add_to_buffer(every_symbol(), RewardResult(np.ones(2), {}, np.full(2, None)))


def failing(crystals):
    rewards = reward(crystals)
    failed = (crystals.G == 225) & (crystals.A[:, 0] == 9)
    reasons = np.array([("no energy" if f else None) for f in failed] + [None], object)[:-1]
    return RewardResult(np.where(failed, -1.0, rewards), {"success": (rewards > 0.5).astype(float)}, reasons)


def test_failures_are_learned_from_and_never_imitated():
    one = agent(environment(reward=failing, invalid_reward=-1), loss="topr", batch_size=256, likelihood_coef=1.0)
    learn(one, 1, log_interval=0)
    data = one.buffer.data
    is_failed = np.array([failure is not None for failure in data.result.failures])
    assert is_failed.sum() > 20
    assert (data.rewards[is_failed] == -1).all()
    assert one.logger.name_to_value["replay/imitated"] <= data.result.success().mean() + 0.2
    data.rewards[:] = np.where(is_failed, 2.0, 0.0)  # even if they were better than all others
    losses = losses_of(one)
    gradient(one, losses)
    assert losses.statistics["imitated"] == 0


def test_settings_that_change_score_the_buffer_again(tmp_path):
    one = agent(loss="topr", policy_kwargs={"model": base_model().float()})
    learn(one, 1)
    one.save(tmp_path / "agent.zip")
    loaded = KLPPO.load(tmp_path / "agent.zip", env=environment(), temperature=TEMPERED, reward_range=(0.4, 0.6))
    loaded.learn(n_iterations=2, reset_num_timesteps=False)
    data = loaded.buffer.data
    assert len(data) == 128
    with torch.no_grad():
        options = {"bins": BINS, "temperature": TEMPERED, **CONSTRAINTS}
        expected = torch.stack(loaded.reference.log_prob(data.crystals, **options)[1:], dim=1).numpy()
    np.testing.assert_allclose(data.reference_log_prob, expected, atol=1e-4)
    assert data.rewards.min() >= 0.4
    assert data.is_sampled.tolist() == [False] * 64 + [True] * 64
    assert data.iteration.tolist() == [0] * 64 + [1] * 64


def test_crystals_of_an_earlier_call_of_learn_are_older():
    one = agent(loss="topr", draw="recent")
    one.learn(n_iterations=2)
    one.learn(n_iterations=1)
    assert one.buffer.data.iteration.tolist() == [-2] * 64 + [-1] * 64 + [0] * 64
    weights = one.buffer.weights("recent", 0.5)
    assert weights[-1] == pytest.approx(2 * weights[64]) == pytest.approx(4 * weights[0])


# augmentation


class Counting:
    """The reward, and how many crystals it was asked for."""

    def __init__(self):
        self.calls = 0

    def __call__(self, crystals):
        self.calls += len(crystals)
        return reward(crystals)


def test_replayed_crystals_are_equivalent_and_cost_no_call():
    counting = Counting()
    one = agent(environment(reward=counting), loss="topr", augmentation=1.0)
    learn(one, 3, log_interval=0)
    assert counting.calls == 4 * 64
    assert one.logger.name_to_value["replay/moved"] > 0
    data, losses = one.buffer.data, losses_of(one)
    every = np.arange(len(data))
    new = losses._in_equivalent_settings(data, every)
    assert [crystal.key() for crystal in new.crystals] == [crystal.key() for crystal in data.crystals]
    changed = (new.crystals.W != data.crystals.W).any(1)
    assert 0 < changed.sum() < len(data)
    np.testing.assert_array_equal(new.rewards, data.rewards)
    with torch.no_grad():
        expected = torch.stack(one.reference.log_prob(new.crystals, bins=BINS, **CONSTRAINTS)[1:], dim=1)
    np.testing.assert_allclose(new.reference_log_prob, expected.numpy(), rtol=1e-10)
    assert np.isnan(new.log_prob).all()


def test_a_setting_that_the_constraints_forbid_is_not_taken():
    one = agent(environment(space_group=[225], wyckoff_letters="a"), loss="topr", augmentation=1.0)
    learn(one, 1)
    data = one.buffer.data
    new = losses_of(one)._in_equivalent_settings(data, np.arange(len(data)))
    assert (new.crystals.W[:, 0] == 1).all()
    stayed = np.isfinite(new.log_prob).all(1)
    assert 0 < stayed.sum() < len(data)  # letter a became b, or stayed by chance
    np.testing.assert_array_equal(new.log_prob[stayed], data.log_prob[stayed])
    np.testing.assert_array_equal(new.reference_log_prob[stayed], data.reference_log_prob[stayed])
