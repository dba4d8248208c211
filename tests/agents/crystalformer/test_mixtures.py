"""Densities integrate to one, bins sum to one, and both agree with scipy and mpmath, far tails included."""

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import simpson
from scipy.stats import truncnorm, vonmises

from agents.crystalformer.mixtures import LatticeMixture, VonMises, lattice_bounds, log_normal_mass
from crystal_env.encoding import LENGTH_BOUNDS, gamma_bins, gamma_bounds
from crystal_env.vocabulary import N_SYMBOLS, Phase, Vocabulary

LENGTHS, ANGLES = np.array(LENGTH_BOUNDS), np.radians([30.0, 150.0])
LOG_TWO_PI = np.log(2 * np.pi)


def lattice_mixture(weights, means, widths):
    means, widths = (torch.tensor(np.broadcast_to(a, (len(weights), 6)).astype(float)) for a in (means, widths))
    return LatticeMixture(torch.tensor(weights, dtype=torch.float64).log(), means, widths)


def density(mixture, L, free):
    return mixture.log_density(torch.from_numpy(L), torch.tensor(free)).exp().numpy()


TRICLINIC = lattice_mixture(  # components inside the bounds, across them and far outside
    [0.5, 0.3, 0.2],
    [[3.0, 4.0, 5.0, 1.4, 1.5, 1.6], [0.2, 45.0, 1.0, 0.6, 2.4, 0.3], [-4.0, 2.0, 60.0, 4.0, 1.0, -2.0]],
    [[0.8, 1.0, 2.0, 0.3, 0.2, 0.3], [0.7, 3.0, 0.4, 0.3, 0.4, 0.5], [1.5, 0.3, 3.0, 0.6, 0.9, 0.8]],
)
FAR = [(3.0, 0.5), (0.6, 0.4), (41.0, 2.0), (-50.0, 2.0), (90.0, 3.0), (20.0, 300.0), (0.7, 0.01)]  # mean, width


INTERVALS = [
    (-1.0, 2.0), (-1e-6, 1e-6), (0.0, 1e-6), (-1e-6, 0.0), (-40.0, 40.0), (-9.0, -8.0), (8.0, 9.0), (5.0, 5.0001),
    (-5.0001, -5.0), (37.0, 39.0), (1e3, 1e3 + 1e-3), (-1e3 - 1e-3, -1e3), (1e3, 2e3), (-1e5, -9e4), (9e4, 1e5),
    (-300.0, 0.5), (-0.5, 300.0),
]  # fmt: skip


@pytest.mark.parametrize(("low", "high"), INTERVALS)
def test_normal_mass_and_its_gradient_are_exact_in_both_tails(low, high):
    with mpmath.workdps(60):
        a, b = sorted([-mpmath.mpf(low), -mpmath.mpf(high)]) if low > 0 else (mpmath.mpf(low), mpmath.mpf(high))
        below, above = (mpmath.erfc(-x / mpmath.sqrt(2)) / 2 for x in (a, b))
        mass = above - below
        expected, at_low, at_high = float(mpmath.log(mass)), *(float(mpmath.npdf(x) / mass) for x in (low, high))
    ends = torch.tensor([low, high], dtype=torch.float64, requires_grad=True)
    result = log_normal_mass(*ends)
    result.backward()
    assert float(result.detach()) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert ends.grad.tolist() == pytest.approx([-at_low, at_high], rel=1e-6, abs=1e-12)


def test_von_mises_mixtures_integrate_to_one_and_are_those_of_scipy():
    generator = torch.Generator().manual_seed(0)
    logits, locations = (torch.randn(50, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    concentrations = 10 ** (8 * torch.rand(50, 4, generator=generator, dtype=torch.float64) - 3)  # 1e-3 to 1e5
    mixture = VonMises(logits.log_softmax(-1), 6 * locations, concentrations)
    grid = torch.arange(20_000, dtype=torch.float64) / 20_000
    per_radian = VonMises(*(array[:, None] for array in mixture)).log_density(grid.expand(50, -1))
    assert np.allclose((per_radian + LOG_TWO_PI).exp().mean(1), 1, atol=1e-12)

    x = torch.rand(50, generator=generator, dtype=torch.float64)
    angle = 2 * np.pi * (x[:, None].numpy() - 0.5)
    single = vonmises.logpdf(angle, concentrations.numpy(), loc=6 * locations.numpy())
    expected = np.logaddexp.reduce(mixture.log_weights.numpy() + single, axis=1)
    assert np.allclose(mixture.log_density(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [24, 960])
def test_bins_of_a_coordinate_sum_to_one_and_follow_the_density(n):
    concentrations = torch.tensor([0.0, 0.3, 40.0, 1e12], dtype=torch.float64)
    locations = torch.tensor([0.0, 9.0, -3.0, 2 * np.pi * (0.25 + 0.1 / n)], dtype=torch.float64)
    mixture = VonMises(torch.zeros(4, dtype=torch.float64), locations, concentrations)
    bins = mixture.bins(n)
    assert np.allclose(bins.exp().sum(-1), 1)
    x = torch.arange(n, dtype=torch.float64) / n
    offset = mixture.components(x)[:, :3].T - bins[:3]  # the same for all bins of a component
    assert np.allclose(offset, offset[:, :1])
    assert bins[3].argmax() == 3 * n // 4
    assert bins[3].max() == 0


@pytest.mark.parametrize(("mean", "width"), FAR)
def test_cubic_lattices_integrate_to_one_within_the_bounds(mean, width):
    edge = 0.7 + np.geomspace(1e-9, 39.3, 20_001) - 1e-9
    grid = np.unique(np.concatenate([edge, 40.7 - edge, np.linspace(0.7, 40, 20_001)]).clip(*LENGTHS))
    L = np.tile(grid[:, None], (1, 6))
    L[:, 3:] = np.pi / 2
    mixture = lattice_mixture([0.7, 0.3], [[mean] * 6, [5.0] * 6], [[width] * 6, [1.0] * 6])
    assert simpson(density(mixture, L, [True, *[False] * 5]), x=grid) == pytest.approx(1, abs=1e-6)


def test_tetragonal_lattices_integrate_to_one_within_the_bounds():
    nodes, weights = np.polynomial.legendre.leggauss(500)
    length, weights = 0.7 + 39.3 * (nodes + 1) / 2, weights * 39.3 / 2
    a, c = np.meshgrid(length, length, indexing="ij")
    L = np.stack([a, a, c, *[np.full_like(a, np.pi / 2)] * 3], axis=-1)
    mixture = lattice_mixture(
        [0.6, 0.3, 0.1],
        [[4, 0, 9, 0, 0, 0], [0.1, 0, 44, 0, 0, 0], [50, 0, -3, 0, 0, 0]],
        [[1, 1, 3, 1, 1, 1], [1, 1, 2, 1, 1, 1], [5, 1, 2, 1, 1, 1]],
    )
    free = [True, False, True, False, False, False]
    assert weights @ density(mixture, L, free) @ weights == pytest.approx(1, abs=1e-6)


def bounds_of(L):
    """Return the bounds (B, 6, 2) that the environment gives, in Å and radians."""
    alpha, beta = np.degrees(L[:, 3:5].T)
    fixed = np.broadcast_to([*[LENGTHS] * 3, *[ANGLES] * 2], (len(L), 5, 2))
    return np.concatenate([fixed, np.radians(gamma_bounds(alpha, beta))[:, None]], axis=1)


def random_lattices(size, rng, widest=6.0):
    L = np.concatenate([rng.uniform(0.7, widest, (size, 3)), rng.uniform(*ANGLES, (size, 3))], axis=1)
    L[:, 5] = rng.uniform(*bounds_of(L)[:, 5].T)
    return L


def reference_log_density(mixture, L, bounds):
    bounds, (means, widths) = bounds[:, None], (a.numpy() for a in mixture[1:])
    low, high = ((bounds[..., i] - means) / widths for i in range(2))
    each = truncnorm.logpdf(L[:, None], low, high, loc=means, scale=widths)
    return np.logaddexp.reduce(mixture.log_weights.numpy() + each.sum(-1), axis=1)


def test_triclinic_lattices_are_truncated_at_the_bounds():
    L = random_lattices(2_000, np.random.default_rng(0))
    assert np.allclose(lattice_bounds(torch.from_numpy(L)), bounds_of(L), atol=1e-12)
    expected = reference_log_density(TRICLINIC, L, bounds_of(L))
    assert np.allclose(TRICLINIC.log_density(torch.from_numpy(L), torch.ones(6, dtype=torch.bool)), expected, atol=1e-7)


def test_gamma_integrates_to_the_density_of_the_other_five_numbers():
    nodes, weights = np.polynomial.legendre.leggauss(60)
    L = random_lattices(200, np.random.default_rng(1))
    low, high = bounds_of(L)[:, 5].T
    L = np.tile(L[:, None], (1, 60, 1))
    L[:, :, 5] = low[:, None] + (high - low)[:, None] * (nodes + 1) / 2
    joint, others = (density(TRICLINIC, L, [*[True] * 5, gamma]) for gamma in (True, False))
    assert np.allclose(joint @ weights * (high - low) / 2, others[:, 0])


def test_triclinic_lattices_integrate_to_one():
    rng, size, box = np.random.default_rng(2), 100_000, np.array([*[LENGTHS] * 3, *[ANGLES] * 3])
    mean, width = np.array([3, 3, 3, 1.5, 1.5, 1.5]), np.array([4.0, 4, 4, 1, 1, 1])
    proposal = truncnorm(*((box[:, i] - mean) / width for i in range(2)), loc=mean, scale=width)
    L = proposal.rvs((size, 6), random_state=rng)
    mixture = lattice_mixture(
        [0.5, 0.3, 0.2],
        [[3, 4, 5, 1, 2, 1.6], [0.2, 6, 1, 0.6, 2.4, 0.3], [-1, 2, 4, 3, 1, -1]],
        [[2, 2, 3, 0.8, 0.7, 0.6], [2, 3, 2, 0.6, 0.8, 0.7], [2, 3, 3, 0.8, 0.7, 0.8]],
    )
    proposed = proposal.logpdf(L).sum(1)
    ratio = density(mixture, L, [True] * 6) / np.exp(proposed)
    error = ratio.std() / np.sqrt(size)
    assert error < 0.01
    assert abs(ratio.mean() - 1) < 5 * error

    # if every gamma from 30 to 150 degrees were counted as possible, the integral would be far from one
    careless = np.exp(reference_log_density(mixture, L, np.broadcast_to(box, (size, 6, 2))) - proposed)
    assert np.mean(careless * (ratio > 0)) < 1 - 20 * error


def test_the_density_is_zero_out_of_bounds_of_free_parameters():
    rng = np.random.default_rng(3)
    inside = random_lattices(50, rng)
    for parameter in range(6):
        for side in range(2):
            L = inside.copy()
            L[:, parameter] = bounds_of(L)[:, parameter, side] * (0.999, 1.001)[side]
            assert (density(TRICLINIC, L, np.arange(6) == parameter) == 0).all()
            assert np.array_equal(density(TRICLINIC, L, np.arange(6) < -1), np.ones(50))
            others = (np.arange(6) < 5) & (np.arange(6) != parameter)
            assert np.array_equal(density(TRICLINIC, L, others), density(TRICLINIC, inside, others))


def test_a_number_at_its_bound_is_inside_also_in_single_precision():
    L = random_lattices(5_000, np.random.default_rng(4))
    for parameter in range(6):
        for side in range(2):
            edge = L.copy()
            edge[:, parameter] = bounds_of(edge)[:, parameter, side]
            single = LatticeMixture(*(array.float() for array in TRICLINIC))
            for mixture, lattice in ((TRICLINIC, edge), (single, edge.astype(np.float32))):
                assert (mixture.log_density(torch.from_numpy(lattice), torch.arange(6) == parameter) > -np.inf).all()


@pytest.mark.parametrize("parameter", range(6))
def test_bins_of_the_lattice_follow_density_and_bin_width(parameter):
    n = 960
    at = Vocabulary(n).normalised[Phase.A + parameter, N_SYMBOLS:]
    value = 0.7 * (40 / 0.7) ** at if parameter < 3 else ANGLES[0] + at * (ANGLES[1] - ANGLES[0])
    width = value * np.log(40 / 0.7) / n if parameter < 3 else np.full(n, (ANGLES[1] - ANGLES[0]) / n)
    L = np.full((n, 6), np.pi / 2)
    L[:, parameter] = value
    for k in range(3):
        mean, sigma = TRICLINIC.means[k, parameter], TRICLINIC.scales[k, parameter]
        component = lattice_mixture([1.0], float(mean), float(sigma))
        bins = component.bins(parameter, n)[0].exp().numpy()
        assert bins.sum() == pytest.approx(1)
        if parameter == 5:  # gamma is limited further: compare where alpha and beta allow all of it
            low, high = ((torch.tensor(edge) - mean) / sigma for edge in ANGLES)
            expected = (component.components(torch.from_numpy(L))[:, 0, 5] - log_normal_mass(low, high)).exp().numpy()
        else:
            expected = density(component, L, np.arange(6) == parameter)
        common = bins > 1e-6
        assert np.allclose(bins[common] / width[common], expected[common], rtol=0.02)


def test_forbidden_bins_of_gamma_have_no_probability():
    bins = np.array([(0, 0), (0, 23), (12, 12), (20, 3)])
    allowed = torch.from_numpy(gamma_bins(bins, 24))
    low, high = gamma_bounds(*(30 + 5.0 * bins).T).T
    gamma = 30 + 5.0 * np.arange(24)
    assert np.array_equal(allowed, (gamma >= low[:, None]) & (gamma <= high[:, None]))
    free, masked = (TRICLINIC.bins(5, 24, mask).exp() for mask in (None, allowed))
    expected = free * allowed[:, None]
    assert np.allclose(masked, expected / expected.sum(-1, keepdim=True))
    assert torch.equal(masked > 0, expected > 0)
