"""Quantile functions invert the cumulative distributions that mpmath and scipy compute."""

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, truncnorm, vonmises

from agents.crystalformer.quantiles import categorical, truncated_normal, von_mises

RARE = 1e-7
TAILS = [  # mean and scale, for bounds of 0.7 and 40: inside, across, outside, far outside, far out of reach
    (3.0, 0.5), (0.7, 0.2), (45.0, 3.0), (-9.0, 2.0), (70.0, 3.0), (-500.0, 5.0), (1e4, 3.0), (20.0, 1e5), (5.0, 1e-3),
]  # fmt: skip
U = np.array([2.0**-54, 1e-12, 1e-6, 0.01, 0.3, 0.499, 0.5, 0.501, 0.75, 0.99, 1 - 1e-9, 1 - 2.0**-53])


def test_choices_split_the_unit_interval_by_probability():
    log_probs = torch.tensor([0.0, 0.2, 0.5, 0.0, 0.3, 0.0]).log()
    u = np.append(np.arange(10) / 10 + 1e-6, 1 - 2.0**-53)
    expected = [1, 1, 2, 2, 2, 2, 2, 4, 4, 4, 4]
    assert categorical(log_probs.expand(11, 6), u).tolist() == expected


def test_choices_come_as_often_as_their_probability():
    p = np.random.default_rng(0).dirichlet(np.ones(7))
    chosen = categorical(torch.from_numpy(p).log().expand(20_000, 7), np.random.default_rng(1).random(20_000))
    assert chisquare(np.bincount(chosen, minlength=7), 20_000 * p).pvalue > RARE


@pytest.mark.parametrize("kappa", [0.0, 1e-6, 0.3, 2.0, 20.0, 20.5, 300.0, 1e6, 1e12])
def test_von_mises_angles_are_exact_quantiles(kappa):
    angles = von_mises(np.zeros(len(U)), np.full(len(U), kappa), U)
    assert (np.diff(angles) >= 0).all()
    reach = min(np.pi, 12 / kappa**0.5) if kappa else np.pi
    with mpmath.workdps(30):

        def mass(end):
            ends = mpmath.linspace(0, end, 9)
            return mpmath.quad(lambda t: mpmath.exp(-2 * mpmath.mpf(kappa) * mpmath.sin(t / 2) ** 2), ends)

        for angle, u in zip(angles, U, strict=True):
            assert float(mass(angle) / mass(reach)) / 2 + 0.5 == pytest.approx(u, abs=1e-14)


@pytest.mark.parametrize("kappa", [0.05, 1.0, 30.0, 2000.0])
def test_von_mises_angles_are_those_of_scipy(kappa):
    angles = von_mises(np.full(20_000, -2.9), np.full(20_000, kappa), np.random.default_rng(0).random(20_000))
    assert (np.abs(angles + 2.9) <= np.pi).all()
    assert kstest(angles, vonmises(kappa, loc=-2.9).cdf).pvalue > RARE
    assert kstest(angles, vonmises(1.2 * kappa + 0.2, loc=-2.9).cdf).pvalue < RARE


def test_each_row_is_its_own_quantile():
    rng = np.random.default_rng(0)
    location, kappa, u = rng.uniform(-3, 3, 50), rng.gamma(0.5, 100, 50), rng.random(50)
    together = von_mises(location, kappa, u)
    alone = [von_mises(*(a[i : i + 1] for a in (location, kappa, u)))[0] for i in range(50)]
    np.testing.assert_allclose(together, alone, rtol=1e-14)


@pytest.mark.parametrize(("mean", "scale"), TAILS)
def test_truncated_gaussians_are_exact_in_both_tails(mean, scale):
    low, high, size = 0.7, 40.0, 999
    u = np.linspace(0, 1, size + 2)[1:-1]
    sampled = truncated_normal(*(np.full(size, number) for number in (mean, scale, low, high)), u)
    assert ((sampled >= low) & (sampled <= high)).all()
    sign = 1 if mean < low else -1  # the upper tail is the lower one, mirrored
    p = 1 - u if mean < low else u
    for x, expected in list(zip(sampled, p, strict=True))[::111]:
        with mpmath.workdps(80):
            above = [mpmath.erfc(sign * (end - mpmath.mpf(mean)) / scale / mpmath.sqrt(2)) for end in (low, x, high)]
            assert float((above[0] - above[1]) / (above[0] - above[2])) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("mean", "scale"), TAILS[:6])
def test_truncated_gaussians_are_those_of_scipy(mean, scale):
    u = np.random.default_rng(0).random(20_000)
    sampled = truncated_normal(*(np.full(20_000, a) for a in (mean, scale, 0.7, 40.0)), u)
    expected = truncnorm((0.7 - mean) / scale, (40 - mean) / scale, loc=mean, scale=scale)
    assert kstest(sampled, expected.cdf).pvalue > RARE
