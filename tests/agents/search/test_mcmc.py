"""Chains end up distributed as p_base exp(r / tau), whatever they start from, and say how long that took."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from tiny_grammar import BINS, CONSTRAINTS, GROUPS, base_model, every_crystal, optimum, probabilities, reward

from agents.crystalformer.temperature import Temperatures
from agents.search.mcmc import mcmc
from agents.search.mcmc_config import MCMCConfig
from crystal_env import CrystalBatch
from crystal_env.reward import RewardResult

TINY = MCMCConfig(chains=1500, steps=60, tau=0.4, space_group=GROUPS, constraints=CONSTRAINTS, bins=BINS, thin=20)


def kinds(crystals, with_lattice=False):
    """Return what tells crystals apart: group, letters and elements, and perhaps the length."""
    columns = [crystals.G[:, None], crystals.W[:, :2], crystals.A[:, :2]]
    columns += [np.rint(1e4 * crystals.L[:, :1]).astype(int)] if with_lattice else []
    return [tuple(row) for row in np.concatenate(columns, axis=1).tolist()]


def agreement(crystals, expected, with_lattice=False):
    """Return the p-value of frequencies against probabilities of all crystals, the rare ones as one cell."""
    cells: dict = {}
    for kind, p in zip(kinds(every_crystal(), with_lattice), expected, strict=True):
        cells[kind] = cells.get(kind, 0.0) + p
    seen = dict.fromkeys(cells, 0)
    for kind in kinds(crystals, with_lattice):
        seen[kind] += 1
    size = len(crystals)
    common = [kind for kind in cells if cells[kind] * size > 8]
    counts, wanted = [seen[kind] for kind in common], [cells[kind] * size for kind in common]
    if size - sum(wanted) > 8:
        counts, wanted = [*counts, size - sum(counts)], [*wanted, size - sum(wanted)]
    return chisquare(counts, np.array(wanted) * sum(counts) / sum(wanted)).pvalue


@pytest.mark.parametrize("temperature", [1.0, {"letters": 0.5, "elements": 2.0}, {"lattice": 0.3}], ids=str)
def test_whole_crystals_reach_the_optimal_distribution(temperature):
    base = probabilities(base_model(), temperature)
    best, _ = optimum(base, reward(every_crystal()), TINY.tau)
    plain, _ = optimum(probabilities(base_model()), reward(every_crystal()), TINY.tau)
    config = replace(TINY, base_temperature=temperature)
    result = mcmc(base_model(), reward, config, progress=False)
    for with_lattice in (False, True):
        assert agreement(result.crystals, best, with_lattice) > 1e-4
        assert agreement(result.crystals, base, with_lattice) < 1e-12  # the comparison can tell
    assert (agreement(result.crystals, plain, with_lattice=True) > 1e-4) == (temperature == 1)


def test_the_base_has_temperature_one_or_what_its_model_recommends():
    model, config = base_model(), replace(TINY, chains=30, steps=5)
    model.temperature = Temperatures.of({"elements": 0.2})
    runs = [
        mcmc(each, reward, replace(config, base_temperature=temperature), progress=False).crystals.A.tolist()
        for each, temperature in ((model, None), (base_model(), {"elements": 0.2}), (model, 1), (base_model(), None))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert runs[2] == runs[3] == mcmc(model, reward, config, progress=False).crystals.A.tolist()


def test_templates_keep_their_letters_and_reach_the_optimum():
    base = probabilities(base_model())
    start = base_model().sample([221] * 1000, seed=0, bins=BINS, wyckoff_letters="ab", elements=[3])
    constraints = {"elements": CONSTRAINTS["elements"], "wyckoff_letters": "ab"}
    config = replace(TINY, moves="template", steps=100, constraints=constraints)
    result = mcmc(base_model(), reward, config, initial=start, progress=False)
    assert (result.crystals.W == start.W).all()
    assert "new crystal" not in result.acceptance
    crystals = every_crystal()
    inside = (crystals.G == 221) & (crystals.W[:, :2] == [1, 2]).all(1)
    best = np.where(inside, base * np.exp(reward(crystals) / TINY.tau), 0)
    assert agreement(result.crystals, best / best.sum()) > 1e-4
    assert agreement(result.crystals, best / best.sum(), with_lattice=True) > 1e-4


@pytest.mark.parametrize("temperature", [1.0, {"letters": 0.7, "coordinates": 0.5, "lattice": 0.4}], ids=str)
@pytest.mark.parametrize("moves", ["template", "crystal"])
def test_without_a_reward_chains_stay_in_the_base_distribution(moves, temperature):
    """Continuous numbers too: coordinates and lattices keep theirs under their own moves."""
    model, options = base_model(), {"max_sites": 2, "temperature": temperature}
    config = MCMCConfig(
        chains=700, steps=25, moves=moves, p_independent=0.0, space_group=(12, 216), constraints={"max_sites": 2},
        coordinate_scale=0.1, lattice_scale=0.1, base_temperature=temperature,
    )  # fmt: skip
    result = mcmc(model, lambda crystals: np.zeros(len(crystals)), config, progress=False)
    sampled = model.sample([12, 216], 700, seed=9, **options)
    for G in (12, 216):
        chains, fresh = (crystals[crystals.G == G] for crystals in (result.crystals, sampled))
        for parameter in range(6):
            assert ks_2samp(chains.L[:, parameter], fresh.L[:, parameter]).pvalue > 1e-5
        for axis in range(3):
            assert ks_2samp(chains.XYZ[:, 0, axis], fresh.XYZ[:, 0, axis]).pvalue > 1e-5
    with torch.no_grad():
        scores = [model.log_prob(crystals, **options).total.numpy() for crystals in (result.crystals, sampled)]
    assert ks_2samp(*scores).pvalue > 1e-5
    assert all(0.05 < fraction < 1 for fraction in result.acceptance.values())
    np.testing.assert_allclose(result.log_prob, scores[0])


def test_samples_trace_and_best_fit_together():
    result = mcmc(base_model(), reward, replace(TINY, chains=40, burn_in=20), progress=False)
    assert result.rewards.shape == (2, 40)
    np.testing.assert_allclose(reward(result.samples).reshape(2, 40), result.rewards)
    np.testing.assert_allclose(reward(result.crystals), result.result.total)
    np.testing.assert_allclose(reward(result.best), result.best_rewards)
    assert result.best_rewards[0] == result.best_rewards.max() >= result.rewards.max()
    assert result.trace.shape == (60, 3)
    assert result.trace[-1, 1] == pytest.approx(result.result.total.mean())
    assert result.effective_size == pytest.approx(40 * 40 / result.autocorrelation)
    assert 0 < result.calls < 41 * 61
    assert not result.interrupted


def test_annealing_finds_the_best_crystal():
    config = replace(TINY, chains=60, tau=0.005, tau_start=1.0, anneal_steps=50)
    assert config.temperature(0) == 1.0
    assert config.temperature(25) == pytest.approx((1.0 * 0.005) ** 0.5)
    result = mcmc(base_model(), reward, config, progress=False)
    likely = probabilities(base_model()) > 1e-4
    best = max(reward(every_crystal())[likely & (every_crystal().G == G)].max() for G in GROUPS)
    assert result.result.total.max() >= best - 1e-9
    assert result.trace[-1, 1] > result.trace[0, 1] + 0.2


def test_same_seed_same_chains():
    config = replace(TINY, chains=20, steps=10)
    one, other, third = (mcmc(base_model(), reward, replace(config, seed=seed), progress=False) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.crystals.L, other.crystals.L)
    assert not np.array_equal(one.crystals.L, third.crystals.L)


@pytest.mark.filterwarnings("ignore:the reward failed")
def test_a_reward_that_breaks_is_a_low_one():
    def fickle(crystals):
        if (crystals.A[:, 0] == 3).any():
            raise ArithmeticError("no lithium")
        return RewardResult(reward(crystals), {"success": np.ones(len(crystals))}, np.full(len(crystals), None, object))

    result = mcmc(base_model(), fickle, replace(TINY, chains=60, tau=0.05), progress=False)
    assert np.isfinite(result.result.total).all()
    assert (result.crystals.A[:, 0] == 3).mean() < 0.1
    assert (result.result.success() == (result.crystals.A[:, 0] != 3)).all()


def test_a_reward_may_use_gradients():
    def slope(crystals):
        x = torch.tensor(crystals.L[:, 0], requires_grad=True)
        (x**2).sum().backward()
        return RewardResult(x.grad.numpy(), {}, np.full(len(crystals), None))

    config = replace(TINY, chains=5, steps=2)
    result = mcmc(base_model(), slope, config, progress=False)
    assert list(result.result.failures) == [None] * 5
    np.testing.assert_allclose(result.result.total, 2 * result.crystals.L[:, 0])


def test_an_interrupt_ends_after_the_current_step_with_what_there_is():
    steps = []

    def impatient(crystals):
        steps.append(len(crystals))
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return reward(crystals)

    result = mcmc(base_model(), impatient, replace(TINY, chains=10), progress=False)
    assert result.interrupted
    assert len(result.trace) == len(steps) - 1 == 4


def test_a_start_that_cannot_be_sampled_is_refused():
    stray = base_model().sample([225], seed=0, elements=["O"])
    with pytest.raises(ValueError, match="initial must be crystals that the model can sample, crystal 0"):
        mcmc(base_model(), reward, replace(TINY, bins=0), initial=CrystalBatch.from_crystals(stray), progress=False)


@pytest.mark.parametrize("bins", [0, BINS])
def test_a_chain_depends_on_the_seed_and_its_index_alone(bins):
    config = replace(TINY, steps=12, bins=bins, seed=3)
    many, few = (mcmc(base_model(), reward, replace(config, chains=n), progress=False) for n in (40, 7))
    np.testing.assert_array_equal(few.crystals.A, many.crystals.A[:7])
    np.testing.assert_allclose(few.crystals.L, many.crystals.L[:7])
    np.testing.assert_allclose(few.result.total, many.result.total[:7])


@pytest.mark.parametrize("moves", ["template", "crystal"])
def test_no_call_is_spent_on_where_a_chain_is_already(moves):
    scored = []

    def recording(crystals):
        scored.append(crystals)
        return score(crystals)

    def score(crystals):
        return np.sin(1e3 * (crystals.L[:, 0] + crystals.A @ np.arange(1, 22)))  # no two are equal

    config = replace(TINY, chains=1, steps=300, moves=moves, tau=1e-9)  # the better one of two always wins
    result = mcmc(base_model(), recording, config, progress=False)
    at = scored[0]
    for proposal in scored[1:]:
        assert len(proposal) == 1
        assert not (np.array_equal(proposal.A, at.A) and np.array_equal(proposal.L, at.L))
        at = proposal if score(proposal)[0] > score(at)[0] else at
    assert result.calls == len(scored) <= 301
    assert "coordinates" not in result.acceptance  # no site of this grammar has a free one


@pytest.mark.parametrize("bins", [0, BINS])
def test_constrained_chains_stay_in_the_base_distribution(bins):
    rules = {"site_elements": [["Fe"], ["Fe", "Si"], ["Fe", "O"]], "tied_sites": [[1, 2]], "wyckoff_letters": "aab"}
    model, size = base_model(), 600
    config = MCMCConfig(
        chains=size, steps=40, moves="template", space_group=198, constraints=rules, bins=bins, coordinate_scale=0.1,
    )  # fmt: skip
    result = mcmc(model, lambda crystals: np.zeros(len(crystals)), config, progress=False)
    fresh = model.sample(198, size, seed=99, bins=bins, **rules)
    assert (result.crystals.A[:, 1] == result.crystals.A[:, 2]).all()
    for name in ("XYZ", "A", "L"):
        chains, new = (getattr(crystals, name).reshape(size, -1) for crystals in (result.crystals, fresh))
        for column in range(chains.shape[1]):
            if np.ptp(new[:, column]):
                assert ks_2samp(chains[:, column], new[:, column]).pvalue > 1e-5
    assert all(0.02 < rate < 1 for rate in result.acceptance.values())
