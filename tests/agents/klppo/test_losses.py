"""Baselines, surrogates and divergence estimators against closed forms and finite differences."""

import numpy as np
import pytest
import torch

from agents.klppo.losses import (
    balance_loss,
    baselines,
    group_means,
    k3,
    published_surrogate,
    surrogate,
    tapered_surrogate,
)  # fmt: skip

RETURNS, GROUPS = np.array([1.0, 2.0, 6.0, 3.0]), np.array([5, 5, 9, 5])


def test_moving_average_is_the_papers():
    first, average = baselines("ema", RETURNS, GROUPS, None, 0.95)
    assert average == 3.0
    assert (first == 3.0).all()
    second, average = baselines("ema", RETURNS + 1, GROUPS, average, 0.95)
    assert average == pytest.approx(0.95 * 3 + 0.05 * 4)
    assert (second == average).all()


def test_batch_and_leave_one_out_baselines_are_means():
    assert (baselines("batch", RETURNS, GROUPS, None, 0.95)[0] == 3.0).all()
    expected = [np.delete(RETURNS, i).mean() for i in range(4)]
    np.testing.assert_allclose(baselines("leave_one_out", RETURNS, GROUPS, None, 0.95)[0], expected)
    assert baselines("leave_one_out", RETURNS[:1], GROUPS[:1], None, 0.95)[0] == [1.0]


def test_group_baseline_is_the_mean_of_group_and_prior():
    expected = {5: (1 + 2 + 3 + 5 * 3) / 8, 9: (6 + 5 * 3) / 6}
    ours = baselines("group", RETURNS, GROUPS, None, 0.95)[0]
    np.testing.assert_allclose(ours, [expected[group] for group in GROUPS])


def test_weighted_group_means_are_those_of_repeated_crystals():
    counts = np.array([1, 2, 1, 4])
    repeated = group_means(np.repeat(RETURNS, counts), np.repeat(GROUPS, counts), np.ones(8))
    ours = group_means(RETURNS, GROUPS, counts.astype(float))
    np.testing.assert_allclose(np.repeat(ours, counts), repeated)


@pytest.mark.parametrize("kind", ["batch", "leave_one_out", "group"])
def test_baselines_without_memory_do_not_look_at_the_average(kind):
    one, other = (baselines(kind, RETURNS, GROUPS, average, 0.95)[0] for average in (None, 100.0))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [(1.0, 2.0, 2.0, 2.0), (1.1, 2.0, 2.2, 2.2), (1.5, 2.0, 2.4, 0.0), (0.5, 2.0, 1.0, 1.0),
     (1.5, -2.0, -3.0, -3.0), (0.5, -2.0, -1.6, 0.0), (0.9, -2.0, -1.8, -1.8)],
)  # fmt: skip
def test_surrogate_is_flat_where_it_no_longer_pays_to_move(ratio, advantage, value, slope):
    log_ratio = torch.tensor([np.log(ratio)], requires_grad=True)
    gain = surrogate(log_ratio, torch.tensor([advantage]), 0.2)
    gain.sum().backward()
    assert gain.item() == pytest.approx(value)
    assert log_ratio.grad.item() == pytest.approx(slope, abs=1e-12)


def test_surrogates_of_decisions_add_up():
    log_ratio, advantages = torch.randn(5, 7, dtype=torch.double), torch.randn(5, dtype=torch.double)
    whole = surrogate(log_ratio, advantages, 0.2)
    parts = sum(surrogate(log_ratio[:, i], advantages, 0.2) for i in range(7))
    torch.testing.assert_close(whole, parts)


def test_no_ratio_overflows():
    log_ratio = torch.tensor([1e4, -1e4, 1e4], requires_grad=True)
    gain = surrogate(log_ratio, torch.tensor([1.0, -1.0, -1.0]), 0.2)
    gain.sum().backward()
    assert gain.isfinite().all()
    assert log_ratio.grad.isfinite().all()


def test_published_surrogate_keeps_a_gradient_where_the_paper_clips():
    """Ratio 1.65 and advantage 1 give -0.12 at tau 0.1, where Eq. S1 gives 0; at ratio 1, 0.9."""
    for ratio, slope in ((1.65, -0.12), (1.0, 0.9)):
        log_prob = torch.tensor([np.log(ratio)], requires_grad=True)
        published_surrogate(log_prob, torch.zeros(1), log_prob.detach(), torch.ones(1), 0.2, 0.1).sum().backward()
        assert log_prob.grad.item() == pytest.approx(slope)


def test_k3_is_never_negative_and_its_mean_is_the_divergence():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(50), size=2)
    d = np.log(p / q)
    assert (k3(d) >= 0).all()
    assert k3(np.zeros(1)) == 0
    assert (p * k3(d)).sum() == pytest.approx((p * d).sum())


@pytest.mark.parametrize(
    ("ratio", "advantage", "negatives", "slope"),
    [(1.0, 2.0, 1.0, 2.0), (1.1, 2.0, 1.0, 2.2), (5.0, 2.0, 1.0, 2.4), (1e-9, 2.0, 1.0, 2.0),
     (1.0, -2.0, 1.0, -2.0), (0.3, -2.0, 1.0, -0.6), (1e-8, -2.0, 1.0, -2e-8), (5.0, -2.0, 1.0, -2.0),
     (5.0, -2.0, 0.5, -1.0), (1.0, -2.0, 0.0, 0.0), (1.1, 2.0, 0.0, 2.2), (1.0, 0.0, 1.0, 0.0)],
)  # fmt: skip
def test_tapered_weights_imitate_the_good_and_let_go_of_the_bad(ratio, advantage, negatives, slope):
    log_prob = torch.tensor([-7.0], dtype=torch.double, requires_grad=True)
    old = log_prob.detach() - np.log(ratio)
    tapered_surrogate(log_prob, old, torch.tensor([advantage], dtype=torch.double), 0.2, negatives).sum().backward()
    assert log_prob.grad.item() == pytest.approx(slope, rel=1e-12, abs=1e-12)


def test_tapered_negatives_push_down_without_end_only_where_the_weight_does_not_taper():
    """A bad crystal alone: gradient ascent at rate 1 lowers its likelihood by ln t in time t, and not by t."""
    log_prob, old = torch.zeros(1, dtype=torch.double), torch.zeros(1, dtype=torch.double)
    for _ in range(2_000):
        log_prob.requires_grad_()
        tapered_surrogate(log_prob, old, -torch.ones(1, dtype=torch.double), 0.2).sum().backward()
        log_prob = (log_prob + 0.05 * log_prob.grad).detach()
    assert log_prob.item() == pytest.approx(-np.log1p(100), rel=0.02)


def test_balance_is_a_parabola_that_becomes_straight():
    residuals = torch.tensor([0.0, 0.5, -0.5, 1.0, 3.0, -3.0], dtype=torch.double, requires_grad=True)
    losses = balance_loss(residuals, 0.1)
    losses.sum().backward()
    np.testing.assert_allclose(losses.detach(), np.array([0, 0.125, 0.125, 0.5, 2.5, 2.5]) / 0.1)
    np.testing.assert_allclose(residuals.grad, np.array([0, 0.5, -0.5, 1, 1, -1]) / 0.1)


LOSSES = {
    "surrogate": lambda x, a: surrogate(x, a, 0.2),
    "published": lambda x, a: published_surrogate(x, 0 * x.detach(), a - 1, a, 0.2, 0.3),
    "balance": lambda x, a: balance_loss(2 * x - a, 0.3),
    "tapered": lambda x, a: tapered_surrogate(x, x.detach() - a, a, 0.2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    """The weights of the tapered surrogate are no part of its gradient: they are held where they are."""
    generator = torch.Generator().manual_seed(0)
    x, a = (torch.randn(200, generator=generator, dtype=torch.double) for _ in range(2))
    x.requires_grad_()
    LOSSES[name](x, a).sum().backward()
    h, at = 1e-6, x.detach()
    if name == "tapered":
        weight = torch.where(a > 0, a.exp().clamp(1, 1.2), a.exp().clamp(max=1))
        difference = weight * a
    else:
        difference = (LOSSES[name](at + h, a) - LOSSES[name](at - h, a)) / (2 * h)
    torch.testing.assert_close(x.grad, difference, rtol=1e-6, atol=1e-8)
