"""The best of n has the distribution that order statistics say, and the divergence that goes with it."""

import copy

import numpy as np
import pytest
from scipy.integrate import quad
from tiny_grammar import BINS, CONSTRAINTS, GROUPS, base_model, divergence, every_crystal, probabilities, reward

from agents.crystalformer.temperature import Temperatures
from agents.search.best_of_n import best_of_n, kl_bound

OPTIONS = {"space_groups": list(GROUPS), "bins": BINS, **CONSTRAINTS}


@pytest.fixture(scope="module")
def model():
    return base_model().float()


def best_law(p, rewards, n):
    """Return the probabilities of rewards of the best of n of one group, by group: F(r)^n - F(r-)^n."""
    law = {}
    for G in GROUPS:
        rows = every_crystal().G == G
        values, place = np.unique(rewards[rows].round(9), return_inverse=True)
        F = np.cumsum(np.bincount(place, p[rows] * len(GROUPS)))
        law[G] = values, np.diff(F**n, prepend=0)
    return law


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.6}, {"temperature": {"elements": 0.5, "lattice": 0.1}, "top_p": 0.9}],
    ids=str,
)
@pytest.mark.parametrize("n", [1, 4])
def test_the_best_have_the_distribution_of_order_statistics(model, n, settings):
    size = 3000
    best = best_of_n(model, reward, n, size, seed=1, **settings, **OPTIONS)
    assert np.array_equal(best.result.total, reward(best.crystals))
    for G, (values, law) in best_law(probabilities(model, **settings), reward(every_crystal()), n).items():
        of_group = best.result.total[best.crystals.G == G].round(9)
        assert len(of_group) == pytest.approx(size / 2, abs=4 * np.sqrt(size) / 2)  # groups do not compete
        counts = (of_group[:, None] == values).sum(0)
        assert counts.sum() == len(of_group)
        spread = np.sqrt(len(of_group) * law * (1 - law)) + 1
        assert (np.abs(counts - len(of_group) * law) < 4 * spread).all()


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_the_divergence_is_within_the_bound(model, n):
    p = probabilities(model)
    for G, (_, law) in best_law(p, reward(every_crystal()), n).items():
        base = best_law(p, reward(every_crystal()), 1)[G][1]
        assert 0 <= divergence(law, base) + 1e-9 <= kl_bound(n) + 1e-6
    assert n == 1 or divergence(law, base) > 0.1


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_the_bound_is_exact_for_continuous_rewards(n):
    density = [lambda u: n * u ** (n - 1), lambda u: np.log(n) + (n - 1) * np.log(u)]  # of the quantile of the best
    exact = quad(lambda u: density[0](u) * density[1](u), 0, 1, points=[1 - 1 / n] if n > 1 else None)[0]
    assert kl_bound(n) == pytest.approx(exact, abs=1e-7)


def test_more_crystals_are_better_and_are_counted(model):
    means = []
    for n in (1, 2, 8):
        best = best_of_n(model, reward, n, 200, seed=0, space_groups=list(GROUPS), **CONSTRAINTS)
        assert best.calls == 200 * n  # no two are equal on the continuous environment
        assert best.kl_bound == kl_bound(n)
        means.append(best.result.total.mean())
    assert means == sorted(means)
    assert means[2] > means[0] + 0.2
    assert best_of_n(model, reward, 8, 50, seed=0, **OPTIONS).calls < 400


def test_the_model_recommends_temperatures(model):
    recommending = copy.deepcopy(model)
    recommending.temperature = Temperatures.of({"elements": 0.2})
    runs = [
        best_of_n(each, reward, 3, 40, seed=0, temperature=temperature, **OPTIONS)
        for each, temperature in ((model, {"elements": 0.2}), (recommending, None), (recommending, 1), (model, None))
    ]
    first, second, third, fourth = (run.crystals.A.tolist() for run in runs)
    assert first == second
    assert third == fourth
    assert first != third


def test_the_outcome_depends_on_the_seed_alone(model):
    runs = [best_of_n(model, reward, 3, 20, seed=seed, batch_size=60, **OPTIONS) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0].crystals.A, runs[1].crystals.A)
    assert not np.array_equal(runs[0].crystals.A, runs[2].crystals.A)


def test_one_crystal_that_cannot_be_scored_loses(model):
    def fragile(crystals):
        if (crystals.A == 3).any():
            raise RuntimeError("no lithium")
        return np.ones(len(crystals))

    with pytest.warns(RuntimeWarning, match="no lithium"):
        best = best_of_n(model, fragile, 20, 10, seed=0, **OPTIONS)
    assert not (best.crystals.A == 3).any()
    assert list(best.result.failures) == [None] * 10


def test_a_reward_can_be_named(model):
    best = best_of_n(model, "rewards:Validity", 2, 5, seed=0, **OPTIONS)
    assert best.result.total.shape == (5,)


def test_the_batch_size_changes_nothing(model):
    runs = [best_of_n(model, reward, 3, 20, seed=4, batch_size=batch_size, **OPTIONS) for batch_size in (60, 7, None)]
    for run in runs[1:]:
        assert np.array_equal(run.crystals.A, runs[0].crystals.A)
        np.testing.assert_allclose(run.crystals.L, runs[0].crystals.L)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("n", {"n": 0}), ("n", {"n": 1.5}), ("size", {"size": 0}), ("batch_size", {"batch_size": 0}),
        ("temperature of letters", {"temperature": {"letters": -1}}), ("top_p", {"top_p": 0}),
        ("reward", {"reward": "nothing"}), ("space_group", {"space_groups": 231}), ("elements", {"elements": []}),
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_are_impossible_are_named(model, name, change):
    with pytest.raises(ValueError, match=f"^{name}"):
        best_of_n(**{"model": model, "reward": reward, "n": 2, "size": 2, **change})
