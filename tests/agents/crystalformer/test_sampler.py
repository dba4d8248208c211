"""Crystals are sampled with the probabilities that are scored, and every one is legal.

The seeds are fixed. A right program fails a comparison of frequencies with a probability of 1e-7, 1e-5 for all of them
together; each is repeated with a slightly wrong distribution, which it has to tell from the right one.
"""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.integrate import cumulative_simpson
from scipy.special import log_softmax
from scipy.stats import chisquare, kstest, truncnorm, vonmises

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.distribution import Distribution, any_crystal
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import sample_crystals
from agents.crystalformer.temperature import Temperatures
from agents.crystalformer.tokens import Tokens
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.encoding import denormalise, gamma_bounds
from crystal_env.grammar.constraints import constraints, mp20_group_counts
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import tables

CONFIG = CrystalFormerConfig(
    n_layers=2, n_heads=2, key_size=4, model_size=16, embed_size=8, first_letter_size=8, n_frequencies=2,
    coordinate_components=3, lattice_components=2,
)  # fmt: skip
BINS = 24
RARE = 1e-7
LENGTHS, ANGLES = (0.7, 40.0), tuple(np.radians([30.0, 150.0]))


def tiny(seed=0, factor=15.0):
    """Return a small model in double precision whose distributions are far from uniform."""
    model = CrystalFormer(CONFIG, seed).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor if parameter.dim() > 1 else 1.0)
    return model


@pytest.fixture(scope="module")
def model():
    return tiny()


def scored(model, crystals, **options):
    with torch.no_grad():
        return model.log_prob(crystals, **options)


def keys(crystals, parts):
    """Return bytes that are the same for crystals that share all numbers that parts of a likelihood depend on."""
    numbers = [crystals.W, crystals.A]
    numbers += [crystals.XYZ.reshape(len(crystals), -1)] if parts != SYMBOLS else []
    numbers += [crystals.L] if parts == ALL else []
    return [row.tobytes() for row in np.concatenate(numbers, axis=1)]


def frequency_pvalue(sampled, cells, probabilities, parts):
    """Compare how often crystals are sampled with their probabilities, all that are rare being one cell."""
    counts, size = Counter(keys(sampled, parts)), len(sampled)
    seen = np.array([counts[key] for key in keys(cells, parts)] + [0])
    expected = size * np.append(probabilities, 0)
    common = expected > 20
    seen, expected = np.append(seen[common], 0), np.append(expected[common], 0)
    seen[-1], expected[-1] = size - seen.sum(), size - expected.sum()
    if expected[-1] < 20:  # then the rarest cell takes what is left
        assert expected[-1] > -1e-6 * size
        rarest = expected[:-1].argmin()
        for array in (seen, expected):
            array[rarest] += array[-1]
        seen, expected = seen[:-1], expected[:-1]
    assert len(seen) > 1
    return chisquare(seen, expected).pvalue


SYMBOLS, PLACES, ALL = ("letters", "elements"), ("letters", "elements", "coordinates"), ("total",)
NACL = {"elements": ["Na", "Cl"]}
SALTS = NACL | {"max_sites": 3, "max_atoms": 5}
OXIDES = {"elements": ["Sr", "Ti", "O"], "max_sites": 3, "max_atoms": 5}
FESI = {"site_elements": [["Fe"], ["Fe", "Si"]], "max_sites": 2, "max_atoms": 8}
FREQUENCIES = {  # group, what is compared, options, and a change that makes them wrong
    "any element": (221, SYMBOLS, {"max_sites": 1}, {"temperature": 1.5}),
    "any letter": (225, SYMBOLS, NACL | {"max_sites": 1}, {"temperature": 1.5}),
    "few atoms": (225, SYMBOLS, SALTS, {"temperature": 1.2}),
    "cold": (225, SYMBOLS, SALTS | {"temperature": 0.7}, {"temperature": 1.0}),
    "hot": (221, SYMBOLS, OXIDES | {"temperature": 1.5}, {"temperature": 1.0}),
    "top-p": (221, SYMBOLS, OXIDES | {"top_p": 0.8}, {"top_p": 1.0}),
    "hot top-p": (221, SYMBOLS, {"max_sites": 1, "top_p": 0.6, "temperature": 2.0}, {"temperature": 1.0}),
    "required": (225, SYMBOLS, SALTS | {"required_elements": ["Cl"]}, {"required_elements": []}),
    "formula": (221, SYMBOLS, {"formula": "SrTiO3", "max_atoms": 5}, {"temperature": 1.3}),
    "template": (227, SYMBOLS, OXIDES | {"wyckoff_letters": "bde", "max_atoms": None}, {"temperature": 1.3}),
    "tied": (221, SYMBOLS, OXIDES | {"required_elements": ["O", "Ti"], "tied_sites": [[0, 2]]}, {"tied_sites": []}),
    "lists": (
        221,
        SYMBOLS,
        OXIDES | {"required_elements": ["O"], "site_elements": [["Sr", "O"], ["O", "Ti"]]},
        {"site_elements": [["Sr", "O"]]},
    ),
    "coordinates": (198, PLACES, FESI | {"bins": BINS}, {"temperature": 1.3}),
    "cold coordinates": (198, PLACES, FESI | {"bins": BINS, "temperature": 0.7}, {"temperature": 1.0}),
    "one length": (225, ALL, NACL | {"max_sites": 2, "max_atoms": 2, "bins": BINS}, {"temperature": 1.3}),
    "two lengths": (123, ALL, {"formula": "Fe", "max_atoms": 1, "bins": BINS}, {"temperature": 1.5}),
    "a coordinate and a length": (198, ALL, FESI | {"max_sites": 1, "bins": BINS}, {"temperature": 1.5}),
    "cold letters": (225, SYMBOLS, SALTS | {"temperature": {"letters": 0.5}}, {"temperature": 1.0}),
    "hot letters": (225, SYMBOLS, SALTS | {"temperature": {"letters": 2}}, {"temperature": 2.0}),
    "cold elements": (221, SYMBOLS, OXIDES | {"temperature": {"elements": 0.5}}, {"temperature": 0.5}),
    "cold elements, top-p": (
        221, SYMBOLS, {"max_sites": 1, "top_p": 0.9, "temperature": {"elements": 0.5}}, {"temperature": 1.0}
    ),
    "required, by part": (
        225, SYMBOLS, SALTS | {"required_elements": ["Cl"], "temperature": {"letters": 0.5, "elements": 1.5}},
        {"temperature": {"letters": 1.5, "elements": 0.5}},
    ),
    "formula, by part": (
        221, SYMBOLS, {"formula": "SrTiO3", "max_atoms": 5, "temperature": {"elements": 0.5}}, {"temperature": 1.0}
    ),
    "template, by part": (
        227, SYMBOLS, OXIDES | {"wyckoff_letters": "bde", "max_atoms": None, "temperature": {"elements": 0.5}},
        {"temperature": 1.0},
    ),
    "tied, by part": (
        221, SYMBOLS, OXIDES | {"tied_sites": [[0, 2]], "temperature": {"letters": 0.6, "elements": 2}},
        {"temperature": 1.0},
    ),
    "lists, by part": (
        221, SYMBOLS, OXIDES | {"site_elements": [["Sr", "O"], ["O", "Ti"]], "temperature": {"letters": 0.6}},
        {"temperature": 0.6},
    ),
    "cold coordinates by part": (
        198, PLACES, FESI | {"bins": BINS, "temperature": {"coordinates": 0.5}}, {"temperature": 1.0}
    ),
    "cold coordinate weights": (
        198, PLACES, FESI | {"bins": BINS, "temperature": {"coordinate_weights": 0.05}}, {"temperature": 1.0}
    ),
    "cold concentrations": (
        198, PLACES, FESI | {"bins": BINS, "temperature": {"coordinate_concentrations": 0.5}}, {"temperature": 1.0}
    ),
    "cold lattice": (
        123, ALL, {"formula": "Fe", "max_atoms": 1, "bins": BINS, "temperature": {"lattice": 0.5}}, {"temperature": 1.0}
    ),
    "hot lattice weights": (
        123, ALL, {"formula": "Fe", "max_atoms": 1, "bins": BINS, "temperature": {"lattice_weights": 3}},
        {"temperature": 1.0},
    ),
    "cold lattice variances": (
        123, ALL, {"formula": "Fe", "max_atoms": 1, "bins": BINS, "temperature": {"lattice_variances": 0.5}},
        {"temperature": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FREQUENCIES)
def test_crystals_are_sampled_as_often_as_their_likelihood_says(model, case):
    group, parts, options, change = FREQUENCIES[case]
    sampled, pilot = (model.sample(group, n, seed=n, batch_size=n, **options) for n in (6_000, 2_000))
    _, first = np.unique(keys(pilot, parts), return_index=True)
    cells = pilot[first]  # what another sample has found, so that the choice of cells does not depend on the counts
    p = [
        sum(getattr(scored(model, cells, **settings), part) for part in parts).exp().numpy()
        for settings in (options, options | change)
    ]
    assert frequency_pvalue(sampled, cells, p[0], parts) > RARE
    assert frequency_pvalue(sampled, cells, p[1], parts) < RARE


def uniforms(below, within, rng):
    """Return numbers that are uniform if one lies below a value with probability ``below``, on it with ``within``."""
    return below + within * rng.random(len(below))


def coordinate_uniforms(model, crystals, weight, width, bins, rng):
    """Return a number in [0, 1] for every free coordinate in turn, given all before: uniform if sampled rightly.

    The components have the temperature ``weight``, their concentrations ``width``.
    """
    T, n = tables(), int(crystals.n_sites().max())
    with torch.no_grad():
        outputs = model(Tokens.from_crystals(crystals, torch.float64)).coordinates.numpy()
    free = T.free_coordinates[crystals.G[:, None], crystals.W[:, :n]]
    logits, location, concentration = np.split(outputs[free], 3, axis=-1)
    weights = np.exp(logits / weight) / np.exp(logits / weight).sum(-1, keepdims=True)
    kappa, x = np.logaddexp(0, concentration) / width, crystals.XYZ[:, :n][free]
    if not bins:
        upper, lower = (vonmises.cdf(a, kappa, loc=location) for a in (2 * np.pi * (x[:, None] - 0.5), -np.pi))
        return (weights * (upper - lower)).sum(-1)
    p = np.exp(kappa[..., None] * np.cos(2 * np.pi * (np.arange(bins) / bins - 0.5) - location[..., None]))
    p = (weights[..., None] * p / p.sum(-1, keepdims=True)).sum(1)
    chosen = np.rint(x * bins).astype(int)[:, None]
    within = np.take_along_axis(p, chosen, axis=1)[:, 0]
    return uniforms(np.take_along_axis(p.cumsum(1), chosen, axis=1)[:, 0] - within, within, rng)


def lattice_uniforms(model, crystals, weight, variance, bins, rng, limits_gamma=True):
    """Return numbers in [0, 1] (B, F) for the free lattice parameters of crystals of one group, as above."""
    G, K, n_sites = int(crystals.G[0]), CONFIG.lattice_components, crystals.n_sites()
    tokens = Tokens.from_crystals(crystals, torch.float64)
    with torch.no_grad():
        output = model(tokens).lattice.numpy()[np.arange(len(crystals)), n_sites]
    logits, means, widths = np.split(output, [K, 7 * K], axis=1)
    means = means.reshape(-1, K, 6)
    widths = (np.logaddexp(0, widths.reshape(-1, K, 6)) + 1e-3) * variance**0.5
    log_weights, L, columns = logits / weight, tokens.L.numpy(), []  # weights of components, given those before
    for i in np.flatnonzero(tables().free_lattice[G]):
        low, high = np.broadcast_to(LENGTHS if i < 3 else ANGLES, (len(L), 2)).T
        if i == 5 and limits_gamma:
            low, high = np.radians(gamma_bounds(crystals.L[:, 3], crystals.L[:, 4])).T
        mean, width = means[:, :, i], widths[:, :, i]
        weights = np.exp(log_softmax(log_weights, axis=1))
        if bins:
            phase, unit = np.full(bins, Phase.A + i), Vocabulary(bins).normalised[Phase.A + i, N_SYMBOLS:]
            value = denormalise(unit, phase, np.ones(bins, int))
            value = value if i < 3 else np.radians(value)
            log_p = -0.5 * ((value - mean[..., None]) / width[..., None]) ** 2 + (np.log(value) if i < 3 else 0)
            allowed = (value >= low[:, None] - 1e-9) & (value <= high[:, None] + 1e-9)
            log_p = log_softmax(np.where(allowed[:, None], log_p, -np.inf), axis=-1)
            chosen = np.abs(value - L[:, i, None]).argmin(1)
            log_each = log_p[np.arange(len(L)), :, chosen]
            below = (np.exp(log_p) * (np.arange(bins) < chosen[:, None, None])).sum(-1)
            columns.append(uniforms((weights * below).sum(1), (weights * np.exp(log_each)).sum(1), rng))
            log_weights = log_weights + log_each
        else:
            truncated = truncnorm((low[:, None] - mean) / width, (high[:, None] - mean) / width, loc=mean, scale=width)
            columns.append((weights * truncated.cdf(L[:, i, None])).sum(1))
            log_weights = log_weights + truncated.logpdf(L[:, i, None])
    return np.stack(columns, axis=1)


PAIRS = [(1.0, 1.0), (0.6, 0.6), (1.6, 1.6), (0.3, 1.0), (1.0, 0.2), (2.0, 0.5)]  # of weights and widths


@pytest.mark.parametrize(("weight", "width"), PAIRS)
@pytest.mark.parametrize("bins", [0, BINS])
def test_coordinates_are_sampled_from_their_mixtures_given_all_before(model, bins, weight, width):
    temperature = {"letters": 0.7, "coordinate_weights": weight, "coordinate_concentrations": width, "lattice": 2}
    options = {"bins": bins, "temperature": temperature, "batch_size": 3_000}
    for group, letters in ((1, "aa"), (166, "ch")):
        crystals, rng = model.sample(group, 1_000, seed=0, wyckoff_letters=letters, **options), np.random.default_rng(0)
        u = coordinate_uniforms(model, crystals, weight, width, bins, rng)
        assert len(u) == 1_000 * {1: 6, 166: 3}[group]
        assert kstest(u, "uniform").pvalue > RARE
        assert kstest(coordinate_uniforms(model, crystals, 10 * weight, 10 * width, bins, rng), "uniform").pvalue < RARE


@pytest.mark.parametrize(("weight", "variance"), [(1.0, 1.0), (1.6, 1.6), (0.6, 1.0), (2.0, 0.4)])
@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize(("group", "n_free"), [(1, 6), (10, 4), (47, 3), (194, 2), (221, 1)])
def test_lattices_are_sampled_from_truncated_mixtures(model, group, n_free, bins, weight, variance):
    temperature = {"coordinates": 0.5, "lattice_weights": weight, "lattice_variances": variance}
    options = {"bins": bins, "temperature": temperature, "batch_size": 2_000}
    crystals, rng = model.sample(group, 2_000, seed=0, max_sites=1, **options), np.random.default_rng(0)
    u = lattice_uniforms(model, crystals, weight, variance, bins, rng)
    assert u.shape == (2_000, n_free)
    assert min(kstest(column, "uniform").pvalue for column in u.T) > RARE
    wrong = [lattice_uniforms(model, crystals, 2 * weight, 2 * variance, bins, rng).ravel()]
    if group == 1:  # as if gamma could be anything, whatever alpha and beta are
        wrong.append(lattice_uniforms(model, crystals, weight, variance, bins, rng, limits_gamma=False)[:, 5])
    assert max(kstest(u, "uniform").pvalue for u in wrong) < RARE


def cumulative(grid, density, values):
    """Return the integral of a density, tabulated on a grid, up to values."""
    return np.interp(values, grid, cumulative_simpson(density, x=grid, initial=0))


@pytest.mark.parametrize("right", [1.0, {"coordinates": 0.2, "letters": 0.5}, {"coordinate_weights": 0.2}], ids=str)
def test_a_coordinate_follows_the_integral_of_its_scored_density(model, right):
    options = {"elements": ["Na"], "wyckoff_letters": "e"}
    sampled = model.sample(225, 5_000, seed=0, batch_size=5_000, temperature=right, **options)
    grid = np.linspace(0, 1, 2_001)
    tabulated = sampled[np.zeros(len(grid), int)]
    tabulated.XYZ[:, 0, 0] = grid
    pvalues = []
    for temperature in (right, 2.0):
        density = scored(model, tabulated, temperature=temperature, **options).coordinates.exp()
        u = cumulative(grid, density, sampled.XYZ[:, 0, 0])
        pvalues.append(kstest(u, "uniform").pvalue)
    assert pvalues[0] > RARE > pvalues[1]


@pytest.mark.parametrize("right", [1.0, {"lattice": 0.2, "letters": 0.5}, {"lattice_variances": 0.2}], ids=str)
def test_a_length_follows_the_integral_of_its_scored_density(model, right):
    options = {"elements": ["Na"], "wyckoff_letters": "a"}
    sampled = model.sample(225, 5_000, seed=0, batch_size=5_000, temperature=right, **options)
    grid = np.geomspace(0.7, 40, 4_001)
    tabulated = sampled[np.zeros(len(grid), int)]
    tabulated.L[:, :3] = grid[:, None] * 4 ** (1 / 3)
    pvalues = []
    for temperature in (right, 2.0):
        density = scored(model, tabulated, temperature=temperature, **options).lattice.exp()
        u = cumulative(grid, density, sampled.L[:, 0] / 4 ** (1 / 3))
        pvalues.append(kstest(u, "uniform").pvalue)
    assert pvalues[0] > RARE > pvalues[1]


def test_bins_of_gamma_follow_their_scores_given_alpha_and_beta(model):
    options, rng = {"elements": ["Na"], "wyckoff_letters": "a", "bins": BINS}, np.random.default_rng(0)
    sampled = model.sample(1, 1_000, seed=0, batch_size=1_000, **options)
    every = sampled[np.repeat(np.arange(1_000), BINS)]
    every.L[:, 5] = np.tile(30 + 5.0 * np.arange(BINS), 1_000)
    p = scored(model, every, **options).lattice.exp().numpy().reshape(1_000, BINS)
    low, high = gamma_bounds(*sampled.L[:, 3:5].T).T
    gamma = every.L[:, 5].reshape(1_000, BINS)
    allowed = (gamma >= low[:, None]) & (gamma <= high[:, None])
    assert np.array_equal(p > 0, allowed)
    assert 0.2 < allowed.mean() < 0.8
    p /= p.sum(1, keepdims=True)
    at = np.rint((sampled.L[:, 5:] - 30) / 5).astype(int)
    within = np.take_along_axis(p, at, axis=1)[:, 0]
    below = np.take_along_axis(p.cumsum(1), at, axis=1)[:, 0] - within
    assert kstest(uniforms(below, within, rng), "uniform").pvalue > RARE
    even = allowed / allowed.sum(1, keepdims=True)
    within = np.take_along_axis(even, at, axis=1)[:, 0]
    below = np.take_along_axis(even.cumsum(1), at, axis=1)[:, 0] - within
    assert kstest(uniforms(below, within, rng), "uniform").pvalue < RARE


def neighbour(model, spread=0.005):
    """Return a model whose weights differ a little."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += spread * noise * (parameter.std() if parameter.dim() > 1 else 0)
    return other


RATIOS = {
    "densities": {"max_sites": 2},
    "bins": {"max_sites": 2, "bins": BINS},
    "constraints": FESI | {"max_atoms": 12},
    "bins and constraints": FESI | {"max_atoms": 12, "bins": BINS},
    "hot": {"elements": ["Fe", "O"], "max_sites": 3, "temperature": 1.5},
    "cold bins": {"elements": ["Fe", "O"], "max_sites": 2, "temperature": 0.8, "bins": BINS},
    "by part": {"max_sites": 2, "temperature": {"letters": 0.7, "elements": 1.3, "coordinates": 0.5, "lattice": 0.6}},
    "bins by part": FESI
    | {"max_atoms": 12, "bins": BINS, "temperature": {"elements": 0.7, "coordinates": 0.5, "lattice_weights": 2}},
}


@pytest.mark.parametrize("case", RATIOS)
def test_the_mean_ratio_of_two_models_likelihoods_is_one(model, case):
    """E_p[q / p] = 1, and, with half of the crystals from q, E[2 q / (p + q)] = 1, which has no rare large terms."""
    options, other = RATIOS[case], neighbour(model)
    groups = np.repeat([1, 12, 62, 166, 198, 221], 300)
    batches = [each.sample(groups, seed=seed, batch_size=1_800, **options) for seed, each in enumerate((model, other))]
    both = CrystalBatch.concatenate(batches)
    log_p, log_q = (scored(each, both, **options).total for each in (model, other))
    ratio = (log_q - log_p)[:1_800].exp()
    weight = 2 * torch.sigmoid(log_q - log_p)
    for values, largest_error in ((ratio, 0.01), (weight, 0.003)):
        error = float(values.std()) / len(values) ** 0.5
        assert error < largest_error
        assert abs(float(values.mean()) - 1) < 5.5 * error
    assert float((log_q - log_p).abs().mean()) > 0.02
    temperatures = Temperatures.of(options.get("temperature", 1)).to_dict()
    hotter = options | {"temperature": {name: 1.2 * value for name, value in temperatures.items()}}  # not q's
    weight = 2 * torch.sigmoid(scored(other, both, **hotter).total - log_p)
    assert abs(float(weight.mean()) - 1) > 5.5 * float(weight.std()) / len(weight) ** 0.5


def replay(crystals, rules, bins):
    """Play the decisions of crystals, all of which must be allowed, and return what they build."""
    vocabulary, rows = Vocabulary(bins), np.arange(len(crystals))
    grammar = compile_grammar(constraints(space_group=np.unique(crystals.G).tolist(), **rules))
    states = CrystalStates(len(crystals), vocabulary)
    states.reset(rows, grammar, crystals.G)
    actions, lengths = crystals.to_actions(vocabulary)
    for i in range(actions.shape[1]):
        rows = rows[lengths[rows] > i]
        column = actions[rows, i]
        tokens, units = (column, None) if bins else (column[:, 0].astype(int), column[:, 1].astype(float))
        assert states.step(rows, tokens, units).all()
    assert (states.phase == Phase.DONE).all()
    return states.crystals(np.arange(len(crystals)))


@pytest.mark.parametrize("bins", [0, BINS])
def test_crystals_of_all_groups_are_legal_and_in_requested_order(model, bins):
    groups = np.random.default_rng(0).permutation(np.resize(np.arange(1, 231), 1_000))
    sampled = model.sample(groups, seed=0, bins=bins, batch_size=300)
    assert np.array_equal(sampled.G, groups)
    built = replay(sampled, {}, bins)
    for name in ("W", "A", "XYZ", "L"):
        assert np.allclose(
            getattr(built, name), getattr(sampled, name), rtol=0 if bins else 1e-5, atol=0 if bins else 1e-5
        )
    for crystal in sampled:  # its checks are others than those of the replay
        assert Crystal(crystal.G, crystal.W, crystal.A, crystal.XYZ, crystal.L) == crystal
    assert torch.isfinite(scored(model, sampled, bins=bins).total).all()


RULES = [
    {"elements": ["Fe", "O"], "max_sites": 3},
    {"formula": "SrTiO3"},
    {"formula": {"Fe": 2, "O": 3}, "max_atoms": 10},
    {"required_elements": ["Li", "O"], "max_atoms": 12},
    {"elements": ["Li", "Fe", "O"], "tied_sites": [[0, 2], [1, 3]], "max_sites": 4},
    {"site_elements": [["Na"], None, ["Cl", "F"]]},
    {"wyckoff_letters": "abcc"},
    {"exclude_radioactive": True, "max_sites": 1},
]


@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_crystals_meet_their_constraints(model, rules, bins):
    groups = [14, 47] * 40 if "wyckoff_letters" not in rules else [3, 25] * 40
    parts = {"letters": 0.5, "elements": 2.0, "coordinates": 0.1, "lattice": 0.01}
    zeros = {"temperature": 0.0}, {"temperature": {"coordinates": 0, "lattice": 0}}
    for settings in (
        {}, {"temperature": 3.0}, {"top_p": 0.5}, {"temperature": parts}, {"temperature": {"letters": 0}},
        {"temperature": {"elements": 0, "lattice_weights": 0}}, *zeros[: 2 * (bins > 0)],
    ):  # fmt: skip
        sampled = model.sample(groups, seed=0, bins=bins, **settings, **rules)
        replay(sampled, rules, bins)
        assert sampled.G.tolist() == groups
        assert torch.isfinite(scored(model, sampled, bins=bins, **settings, **rules).total).all()
    if "formula" in rules:
        assert {crystal.formula for crystal in sampled} == {"SrTiO3" if rules["formula"] == "SrTiO3" else "Fe2O3"}


def same(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("G", "W", "A", "XYZ", "L"))


def alike(first, second, tolerance):
    """Return whether crystals have the same groups, letters and elements, and numbers that differ by less."""
    apart = first.XYZ - second.XYZ
    return (
        all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("G", "W", "A"))
        and np.abs(apart - np.rint(apart)).max(initial=0) < tolerance
        and np.allclose(first.L, second.L, rtol=tolerance, atol=tolerance)
    )


CHUNKED = {
    "densities": {},
    "bins": {"bins": BINS},
    "hot": {"temperature": 1.5},
    "cold": {"temperature": 0.5, "bins": BINS},
    "top-p": {"top_p": 0.7},
    "constraints": {"elements": ["Fe", "O", "Li"], "required_elements": ["O"], "max_sites": 4},
    "formula": {"formula": "SrTiO3"},
    "greedy": {"temperature": 0.0},
    "by part": {"temperature": {"letters": 0.5, "coordinates": 0.1, "lattice": 0.1}},
    "weights": {"space_groups": [1.0] * 200 + [0.0] * 30},
}


@pytest.mark.parametrize("case", CHUNKED)
def test_a_seed_gives_the_same_crystals_in_any_batch_size(model, case):
    expected = model.sample(size=40, seed=7, batch_size=40, **CHUNKED[case])
    for batch_size in (1, 7, None):
        again = model.sample(size=40, seed=7, batch_size=batch_size, **CHUNKED[case])
        assert alike(again, expected, 1e-6)
    assert len(np.unique(expected.G)) > 5


def test_single_precision_changes_no_letter_between_batch_sizes():
    model = tiny(factor=6.0).float()
    expected = model.sample(size=60, seed=1, batch_size=60)
    for batch_size in (1, 7):
        assert alike(model.sample(size=60, seed=1, batch_size=batch_size), expected, 1e-4)


def test_the_first_of_many_crystals_are_those_of_a_few(model):
    few, many = (model.sample(size=size, seed=3) for size in (10, 70))
    assert alike(few, many[:10], 1e-6)


def test_crystals_can_be_sampled_by_their_index_in_a_request(model):
    distribution = Distribution(any_crystal())
    every = sample_crystals(model, np.full(30, 62), distribution, RandomStreams(0), 8).crystals
    index = np.array([3, 4, 9, 29])
    some = sample_crystals(model, np.full(4, 62), distribution, RandomStreams(0), 3, index=index, scored=True)
    assert alike(some.crystals, every[index], 1e-6)
    assert torch.allclose(some.log_prob.total, scored(model, every[index]).total)


@pytest.mark.parametrize("bins", [0, BINS])
def test_a_seed_alone_decides_what_is_sampled(model, bins):
    batches = [model.sample(size=50, seed=seed, bins=bins) for seed in (3, 3, np.random.default_rng(3), 4, None, None)]
    assert same(batches[0], batches[1])
    assert same(batches[0], batches[2])
    assert not any(same(batches[0], other) for other in batches[3:])
    assert not same(*batches[4:])


def test_a_generator_moves_on_by_the_same_amount(model):
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    assert not same(*(model.sample([225] * 20, seed=rng) for _ in range(2)))
    for size in (1, 40):
        model.sample(size=size, seed=other, batch_size=3)
    assert rng.random() == other.random()


def test_nothing_global_is_touched(model, capsys):
    def state():
        name, numbers, *rest = np.random.get_state()  # noqa: NPY002
        settings = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
        parameters = [(p.requires_grad, p.grad, p.detach().tolist()) for p in model.parameters()]
        return name, numbers.tolist(), rest, torch.get_rng_state().tolist(), settings, parameters

    before = state()
    sampled = model.sample(size=20, seed=None)
    model.log_prob(sampled)
    assert state() == before
    assert capsys.readouterr() == ("", "")  # no progress bar unless it is asked for
    model.sample(size=20, progress=True)
    assert "20/20" in capsys.readouterr().err


def test_the_model_keeps_its_mode_and_samples_without_dropout(model):
    expected = model.sample([225, 1, 62] * 10, seed=0)
    model.train()
    try:
        assert same(model.sample([225, 1, 62] * 10, seed=0), expected)
        assert model.training
        broken = tiny()
        with torch.no_grad():
            broken.first_letter[2].bias.fill_(np.nan)
        with pytest.raises(ValueError, match="tokens must be allowed"):
            broken.train().sample(225, 1)
        assert broken.training
    finally:
        model.eval()
    assert same(model.sample([225, 1, 62] * 10, seed=0), expected)
    assert not model.training


def test_space_groups_are_sampled_as_the_environment_does(model):
    def frequencies(**options):
        return np.bincount(model.sample(seed=0, size=4_000, batch_size=4_000, max_sites=1, **options).G, minlength=231)

    weights = np.zeros(230)
    weights[[0, 61, 224]] = 1, 2, 5
    weighted = frequencies(space_groups=weights)
    assert chisquare(weighted[[1, 62, 225]], 4_000 * weights[weights > 0] / 8).pvalue > RARE
    assert weighted.sum() == weighted[[1, 62, 225]].sum()
    assert frequencies(space_groups=14)[14] == 4_000
    assert chisquare(frequencies(space_groups=[5, 1, 225])[[1, 5, 225]]).pvalue > RARE
    counts = mp20_group_counts()
    common = counts > 0.01 * counts.sum()
    seen, expected = frequencies(space_groups="mp20")[1:], 4_000 * counts / counts.sum()
    seen, expected = (np.append(a[common], a[~common].sum()) for a in (seen, expected))
    assert chisquare(seen, expected).pvalue > RARE
    possible = frequencies(formula="Fe", max_atoms=1)  # groups without a point of multiplicity one are left out
    grammar = compile_grammar(constraints(formula="Fe", max_atoms=1, max_sites=1))
    assert (possible[grammar.probabilities == 0] == 0).all()
    assert possible.sum() == 4_000


@pytest.mark.parametrize("bins", [0, BINS])
def test_no_crystals_are_no_problem(model, bins):
    for groups in ({"size": 0}, {"space_groups": []}):
        for rules in ({}, {"formula": "NaCl"}):
            assert len(model.sample(bins=bins, **groups, **rules)) == 0


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("space_groups must be integers", {}),
        ("space_groups must be integers", {"space_groups": "agent"}),
        ("space_groups must be integers", {"space_groups": [225.0]}),
        ("space_groups must be integers", {"space_groups": [[225]]}),
        ("space_groups must be integers", {"space_groups": [True]}),
        ("space_groups must be 1 to 230, got 0", {"space_groups": [225, 0]}),
        ("space_groups must be 1 to 230, got 231", {"space_groups": [231]}),
        ("'agent'", {"space_groups": "agent", "size": 3}),
        ("space_group", {"space_groups": 231, "size": 3}),
        ("size must be", {"size": -1}),
        ("size must be", {"size": 2.0}),
        ("size must be", {"size": True}),
        ("batch_size must be", {"size": 2, "batch_size": -1}),
        ("temperature must be", {"size": 2, "temperature": -0.1}),
        ("temperature must be", {"size": 2, "temperature": np.nan}),
        ("temperature of lattice_weights must be", {"size": 2, "temperature": {"lattice": -0.1}}),
        ("temperature of letters must be", {"size": 2, "temperature": {"letters": "1"}}),
        (r"temperature must be a number or map .* got \['lattices'\]", {"size": 2, "temperature": {"lattices": 1}}),
        ("top_p must be", {"size": 2, "top_p": 0.0}),
        ("top_p must be", {"size": 2, "top_p": 1.1}),
        ("bins must be", {"size": 2, "bins": 25}),
        ("max_sites must be", {"size": 2, "max_sites": 0}),
        ("impossible are \\[227\\]", {"space_groups": [227, 221], "formula": "SrTiO3", "max_atoms": 5}),
        ("formula = NaCl", {"space_groups": [225] * 3, "formula": "NaCl", "max_sites": 1}),
        ("formula = NaCl", {"size": 3, "formula": "NaCl", "max_sites": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused_by_name(model, match, options):
    with pytest.raises(ValueError, match=match):
        model.sample(**options)


@pytest.mark.parametrize("factor", [15.0, 60.0])
@pytest.mark.parametrize("bins", [0, BINS])
def test_temperature_zero_takes_the_likeliest_of_everything(bins, factor):
    model, groups = tiny(factor=factor), [1, 62, 166, 198, 225]
    cold, again, nearly = (
        model.sample(groups, seed=seed, bins=bins, temperature=temperature, max_sites=1)
        for seed, temperature in ((0, 0.0), (1, 0.0), (2, 1e-7))
    )
    assert same(cold, again)
    assert np.array_equal(cold.W, nearly.W)
    assert np.array_equal(cold.A, nearly.A)
    apart = cold.XYZ - nearly.XYZ
    assert np.allclose(apart, np.rint(apart), atol=5e-3)
    assert np.allclose(cold.L, nearly.L, atol=2e-2)
    if bins:
        assert np.allclose(scored(model, cold, bins=bins, temperature=0.0, max_sites=1).total, 0)
