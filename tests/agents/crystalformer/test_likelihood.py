"""Likelihoods sum to one over everything there is, do not depend on the batch, and know what is impossible."""

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import simpson

import agents.crystalformer.likelihood
from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.distribution import Distribution, any_crystal
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.elements import atomic_numbers
from crystal_env.encoding import denormalise, gamma_bounds
from crystal_env.geometry import representatives
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import tables

CONFIG = CrystalFormerConfig(
    n_layers=2, n_heads=2, key_size=4, model_size=16, embed_size=8, first_letter_size=8, n_frequencies=2,
    coordinate_components=3, lattice_components=2,
)  # fmt: skip
BINS = 24


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


def site_lists(group, elements, most, letters):
    """Return all lists (W, A) of up to ``most`` sites in the order of the letters, impossible ones among them."""
    chosen = range(1, tables().n_letters[group] + 1) if letters is None else letters
    for n in range(1, most + 1):
        for W in itertools.combinations_with_replacement(chosen, n):
            for A in itertools.product(elements, repeat=n):
                yield W, A


def lattice_grid(crystal, parameters):
    """Return a crystal with every combination of bins of some lattice parameters."""
    numbers = np.array(list(itertools.product(range(BINS), repeat=len(parameters))))
    crystals = crystal.to_batch()[np.zeros(len(numbers), int)]
    for parameter, bins in zip(parameters, numbers.T, strict=True):
        phase = np.full(len(bins), int(Phase.A + parameter))
        unit = Vocabulary(BINS).normalised[Phase.A + parameter, N_SYMBOLS:][bins]
        crystals.L[:, parameter] = denormalise(unit, phase, crystals.n_atoms())
    crystals.L[:] = np.take_along_axis(crystals.L, tables().lattice_source[crystals.G], axis=1)
    return crystals


def every_crystal(group, elements, most, letters=None, coordinates=False, lattice=False):
    """Return the crystals of all site lists, if asked with every combination of bins of coordinates and of a."""
    rng, batches = np.random.default_rng(0), []
    for W, A in site_lists(group, elements, most, letters):
        W, free = np.array(W), tables().free_coordinates[group, W]
        grid = np.array(list(itertools.product(range(BINS), repeat=free.sum() if coordinates else 0))) / BINS
        numbers = grid if coordinates else rng.random((1, free.sum()))
        batch, n = CrystalBatch.empty(len(numbers)), len(W)
        batch.G[:], batch.W[:, :n], batch.A[:, :n], batch.L[:] = group, W, A, [5, 5, 5, 90, 90, 90]
        XYZ = np.zeros((len(numbers), n, 3))
        XYZ[:, free] = numbers
        batch.XYZ[:, :n] = representatives(group, np.tile(W, len(numbers)), XYZ.reshape(-1, 3)).reshape(XYZ.shape)
        batches.append(batch)
    crystals = CrystalBatch.concatenate(batches)
    if lattice:
        return CrystalBatch.concatenate([lattice_grid(crystal, (0,)) for crystal in crystals])
    return crystals


NACL = {"elements": ["Na", "Cl"]}
DISCRETE = {  # the last site alone has free coordinates, so that no coordinate has a say in letters and elements
    "one site on any letter": (225, NACL | {"max_sites": 1}),
    "one site of any element": (221, {"max_sites": 1}),
    "few atoms leave special letters": (225, NACL | {"max_sites": 3, "max_atoms": 5}),
    "required element": (225, NACL | {"max_sites": 3, "max_atoms": 5, "required_elements": ["Cl"]}),
    "formula": (221, {"formula": "SrTiO3", "max_atoms": 5, "max_sites": 3}),
    "formula, several units": (225, {"formula": "NaCl", "max_atoms": 4, "max_sites": 3}),
    "template": (227, NACL | {"wyckoff_letters": "bde", "max_sites": 3}),
    "tied sites and lists": (
        221,
        {"elements": ["Sr", "Ti", "O"], "max_sites": 3, "max_atoms": 5}
        | {"tied_sites": [[0, 2]], "site_elements": [["Sr", "O"], None, ["O", "Ti"]]},
    ),
}
SYMBOL_SETTINGS = [
    {}, {"temperature": 0.7}, {"temperature": 1.5}, {"top_p": 0.8},
    {"temperature": {"letters": 0.5}}, {"temperature": {"elements": 0.6}},
    {"temperature": {"letters": 2.0, "elements": 0.5, "coordinates": 0.1}, "top_p": 0.9},
]  # fmt: skip
SETTINGS = [
    *SYMBOL_SETTINGS, {"top_p": 0.6, "temperature": 2.0}, {"temperature": {"coordinates": 0.4, "lattice": 0.3}},
    {"temperature": {"coordinate_weights": 0.2, "coordinate_concentrations": 3.0, "letters": 0.7}},
    {"temperature": {"lattice_weights": 3.0, "lattice_variances": 0.3, "elements": 1.5}, "top_p": 0.8},
]  # fmt: skip


def symbols_of(rules):
    """Return the atomic numbers of a set of rules, and one that they do not allow."""
    if "elements" not in rules and "formula" not in rules:
        return list(range(1, 119))
    allowed = rules.get("elements", {"SrTiO3": ["Sr", "Ti", "O"], "NaCl": ["Na", "Cl"]}.get(rules.get("formula")))
    return [*atomic_numbers(allowed), 26]


def is_possible(crystals, rules):
    """Return whether masked play can build each crystal; tests of the environment compare that with brute force."""
    G = int(crystals.G[0])
    states, rows = CrystalStates(len(crystals), Vocabulary(BINS)), np.arange(len(crystals))
    states.reset(rows, compile_grammar(constraints(space_group=G, **rules)), crystals.G)
    actions, lengths = crystals.to_actions(Vocabulary(BINS))
    for i, column in enumerate(actions.T):
        rows = rows[lengths[rows] > i]
        rows = rows[states.step(rows, column[rows])]
    return states.phase == Phase.DONE


@pytest.mark.parametrize("settings", SYMBOL_SETTINGS, ids=str)
@pytest.mark.parametrize("case", DISCRETE)
def test_letters_and_elements_sum_to_one_over_all_crystals(model, case, settings):
    group, rules = DISCRETE[case]
    letters = range(1, 6) if "max_atoms" in rules or "wyckoff_letters" in rules else None
    crystals = every_crystal(group, symbols_of(rules), rules["max_sites"], letters)
    p = scored(model, crystals, **rules, **settings)
    log_p = (p.letters + p.elements).numpy()
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-10)
    possible = is_possible(crystals, rules)
    assert (log_p[~possible] == -np.inf).all()
    if "top_p" not in settings:
        assert (log_p[possible] > -np.inf).all()
        assert log_p[possible].std() > 0.1  # far from uniform: a wrong normalisation shows


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("rules", [{"site_elements": [["Fe"], ["Fe", "Si"]]}, {"tied_sites": [[0, 1]]}], ids=str)
def test_bins_of_coordinates_and_what_follows_sum_to_one(model, rules, settings):
    rules = {"elements": ["Fe", "Si"], "max_sites": 2, "max_atoms": 8} | rules  # one or two sites a on (x, x, x)
    crystals = every_crystal(198, [26, 14], 2, [1], coordinates=True)
    p = scored(model, crystals, bins=BINS, **rules, **settings)
    assert float((p.letters + p.elements + p.coordinates).exp().sum()) == pytest.approx(1, abs=1e-10)
    is_single = (crystals.n_sites() == 1) & (crystals.A[:, 0] == 26)
    assert (
        p.letters[torch.from_numpy(is_single)].exp().std() > 0.01
    )  # the coordinate has a say in whether a site follows


@pytest.mark.parametrize("temperature", [1.5, {"letters": 0.5, "coordinates": 0.3, "lattice": 0.2}], ids=str)
def test_with_bins_the_total_sums_to_one_over_every_cubic_crystal(model, temperature):
    rules = {"elements": ["Fe"], "max_sites": 2, "max_atoms": 8}
    crystals = every_crystal(198, [26], 2, [1], coordinates=True, lattice=True)
    p = scored(model, crystals, bins=BINS, temperature=temperature, **rules)
    assert len(crystals) == (BINS + BINS**2) * BINS
    assert float(p.total.exp().sum()) == pytest.approx(1, abs=1e-10)
    assert float(p.lattice.exp().sum()) == pytest.approx(len(crystals) / BINS)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_with_bins_lattices_sum_to_one_over_every_tetragonal_cell(model, settings):
    crystals = lattice_grid(Crystal.from_string("123-a-Fe-0-0-0-X-3-3-4-90-90-90"), (0, 2))
    p = scored(model, crystals, bins=BINS, **settings)
    assert float(p.lattice.exp().sum()) == pytest.approx(1, abs=1e-10)
    assert float(p.lattice.std()) > 1


def test_top_p_keeps_the_likeliest_allowed_at_any_temperature():
    logits, mask = (
        torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64).log(),
        torch.tensor([True, True, True, False]),
    )
    for top_p, kept in ((0.1, [1]), (0.39, [1]), (0.6, [1, 3]), (0.8, [1, 2, 3]), (1.0, [0, 1, 2, 3])):
        for temperature in (0.1, 1.0, 5.0):
            p = Distribution(any_crystal(), temperature, top_p).elements(logits).exp()
            assert p.nonzero()[:, 0].tolist() == kept
            expected = logits.exp()[kept] ** (1 / temperature)
            assert torch.allclose(p[kept], expected / expected.sum())
    p = Distribution(any_crystal(), 1.0, 0.8).elements(logits, mask).exp()  # of 1/7, 4/7 and 2/7
    assert torch.allclose(p, torch.tensor([0, 2 / 3, 1 / 3, 0], dtype=torch.float64))


def test_coordinates_integrate_to_one_over_the_unit_cell(model):
    crystals = Crystal.from_string("225-e-Na-0.3-0-0-X-5-5-5-90-90-90").to_batch()[np.zeros(5000, int)]
    crystals.XYZ[:, 0, 0] = np.arange(5000) / 5000
    for settings in SETTINGS:
        density = scored(model, crystals, **settings).coordinates.exp()
        assert float(density.mean()) == pytest.approx(1, abs=1e-10)
        assert float(density.std()) > 0.05


def test_lengths_integrate_to_one_per_cube_root_of_the_atoms(model):
    crystals = Crystal.from_string("225-a-Na-0-0-0-X-5-5-5-90-90-90").to_batch()[np.zeros(6_001, int)]
    length = np.geomspace(0.7, 40, 6_001)
    crystals.L[:, :3] = length[:, None] * 4 ** (1 / 3)
    for settings in SETTINGS:
        density = scored(model, crystals, **settings).lattice.exp()
        assert simpson(density, x=length) == pytest.approx(1, abs=1e-6)


def test_the_total_is_the_sum_of_its_parts(model, crystals):
    for likelihood in ("exact", "paper"):
        p = scored(model, crystals, likelihood=likelihood)
        assert torch.allclose(p.total, p.letters + p.elements + p.coordinates + p.lattice)
        assert torch.isfinite(p.total).all()


def test_the_papers_coordinates_are_exact_where_none_depends(model, crystals):
    crystals = crystals[crystals.n_sites() < 20]  # after 20 sites the paper's code knows no end
    exact, paper = (scored(model, crystals, likelihood=likelihood) for likelihood in ("exact", "paper"))
    assert torch.equal(exact.letters, paper.letters)
    assert torch.equal(exact.elements, paper.elements)
    T, place = tables(), (crystals.G[:, None], crystals.W)
    free = T.rank[place].sum(1)
    variable = (T.projection[..., :3] != 0).any(-1).sum(-1)[place].sum(1)
    once = torch.from_numpy(variable == free)
    assert 15 < once.sum() < len(crystals) - 15
    expected = exact.coordinates - torch.from_numpy(free * np.log(2 * np.pi))
    assert torch.allclose(paper.coordinates[once], expected[once])
    assert not torch.isclose(paper.coordinates[~once], expected[~once]).any()


@pytest.fixture(scope="module")
def crystals(model):
    return some_crystals(model)


@pytest.fixture(scope="module")
def binned(model):
    return some_crystals(model, bins=BINS)


def some_crystals(model, **options):
    """Return crystals of a third of the space groups, and one of 20 sites."""
    longest = model.sample([1], seed=0, wyckoff_letters="a" * 20, **options)
    return CrystalBatch.concatenate([longest, model.sample(np.arange(1, 231, 3), seed=0, **options)])


SHARP = {"letters": 0.7, "elements": 0.8, "coordinates": 0.1, "lattice": 0.1}


@pytest.mark.parametrize(
    "options",
    [{}, {"likelihood": "paper"}, {"bins": BINS}, {"temperature": SHARP}, {"temperature": SHARP, "bins": BINS}],
    ids=str,
)
def test_a_likelihood_does_not_depend_on_the_rest_of_the_batch(model, crystals, binned, options, monkeypatch):
    batch = binned if "bins" in options else crystals
    whole = scored(model, batch, **options)
    assert batch.n_sites().max() == 20
    order = np.random.default_rng(0).permutation(len(batch))
    shuffled = scored(model, batch[order], **options)
    alone = [scored(model, batch[i : i + 1], **options) for i in range(len(batch))]
    as_list = scored(model, list(batch), **options)
    chunked = []
    for tokens in (1, 150, 10**9):
        monkeypatch.setattr(agents.crystalformer.likelihood, "_CHUNK", tokens)
        chunked.append(scored(model, batch, **options))
    for i, part in enumerate(whole):
        one_by_one, sorted_back = torch.cat([single[i] for single in alone]), shuffled[i][np.argsort(order)]
        for other in (one_by_one, sorted_back, as_list[i], *(chunks[i] for chunks in chunked)):
            assert torch.allclose(part, other, rtol=0, atol=1e-9)


SALT = "225-a-Na-0-0-0-e-Cl-0.25-0-0-X-5-5-5-90-90-90"
SKEW = "1-a-Na-0-0-0-a-Cl-0.5-0.25-0.125-X-4-5-6-80-100-95"
BAD = {
    "a letter that the group lacks": (SALT, {("W", 1): 20}),
    "letters out of order": (SALT, {("W", 0): 5, ("W", 1): 1}),
    "a point twice": (SALT, {("W", 1): 1}),
    "no letter": (SALT, {("W", 0): 0}),
    "no site": (SALT, {"W": 0, "A": 0, "XYZ": 0}),
    "no element": (SALT, {("A", 0): 0}),
    "no last element": (SALT, {("A", 1): 0}),
    "an element that is not allowed": (SALT, {("A", 1): 9}),
    "a letter after a pad": (SALT, {("W", 3): 5, ("A", 3): 8}),
    "a letter long after a pad": (SALT, {("W", 20): 5}),
    "an element at a pad": (SALT, {("A", 2): 8}),
    "an element long after a pad": (SALT, {("A", 20): 8}),
    "a coordinate after a pad": (SALT, {("XYZ", 2): 0.5}),
    "more sites than allowed": (SKEW, {("W", 2): 1, ("A", 2): 11, ("W", 3): 1, ("A", 3): 11}),
    "no pad": (SKEW, {"W": 1, "A": 11}),
    "no length": (SALT, {("L", 0): 0.0}),
    "a negative length": (SALT, {("L", 0): -5.0}),
    "a short length": (SALT, {("L", 0): 0.69 * 28 ** (1 / 3)}),
    "a long length": (SALT, {("L", 0): 40.1 * 28 ** (1 / 3)}),
    "a small angle": (SKEW, {("L", 3): 29.0}),
    "a large angle": (SKEW, {("L", 4): 151.0}),
    "a flat cell": (SKEW, {("L", 3): 40.0, ("L", 4): 40.0, ("L", 5): 80.0}),
}  # fmt: skip


def gradient(model, log_p):
    model.zero_grad()
    log_p[torch.isfinite(log_p)].sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("temperature", [1.0, SHARP], ids=str)
@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize("case", BAD)
def test_impossible_crystals_have_none_and_disturb_no_other(case, bins, temperature):
    model, (text, changes) = tiny(), BAD[case]
    good = CrystalBatch.from_crystals([Crystal.from_string(text) for text in (SALT, SKEW, SALT, SKEW)])
    bad = Crystal.from_string(text).to_batch()
    for where, value in changes.items():
        name, index = where if isinstance(where, tuple) else (where, slice(None))
        getattr(bad, name)[0, index] = value
    rules = {"elements": ["Na", "Cl", "O"], "max_sites": 3, "bins": bins, "temperature": temperature}
    expected = model.log_prob(good, **rules)
    assert torch.isfinite(expected.total).all()
    mixed = model.log_prob(CrystalBatch.concatenate([good[:2], bad, good[2:]]), **rules)
    assert mixed.total[2] == -np.inf
    assert not any(part.isnan().any() for part in mixed)
    for part, undisturbed in zip(mixed, expected, strict=True):
        assert torch.allclose(part[[0, 1, 3, 4]], undisturbed, rtol=0, atol=1e-9)
    gradients = gradient(model, mixed.total), gradient(model, expected.total)
    assert torch.isfinite(gradients[0]).all()
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, SHARP], ids=str)
@pytest.mark.parametrize("bins", [0, BINS])
def test_crystals_outside_of_the_constraints_have_no_likelihood(model, bins, temperature):
    batch = CrystalBatch.from_crystals([Crystal.from_string(text) for text in (SALT, SKEW)])
    for rules, inside in [
        ({"formula": "NaCl"}, [False, True]),
        ({"formula": "NaCl6"}, [True, False]),
        ({"max_atoms": 2}, [False, True]),
        ({"tied_sites": [[0, 1]]}, [False, False]),
        ({"site_elements": [None, ["Cl"]]}, [True, True]),
        ({"site_elements": [["Cl"]]}, [False, False]),
        ({"required_elements": ["O"]}, [False, False]),
        ({"max_sites": 1}, [False, False]),
        ({"exclude_radioactive": True}, [True, True]),
    ]:
        p = scored(model, batch, bins=bins, temperature=temperature, **rules)
        assert torch.isfinite(p.total).tolist() == inside
        assert not p.total.isnan().any()


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("G", 1, 0), ("G", 1, 231), ("W", (1, 0), -1), ("W", (1, 20), 28), ("A", (1, 0), 119), ("A", (1, 20), -1),
        ("XYZ", (1, 20, 2), np.nan), ("XYZ", (1, 0, 0), np.inf), ("L", (1, 5), np.nan), ("L", (1, 0), -np.inf),
    ],
)  # fmt: skip
def test_numbers_out_of_the_tables_are_refused_by_name(model, name, index, value):
    batch = CrystalBatch.from_crystals([Crystal.from_string(SALT)] * 3)
    getattr(batch, name)[index] = value
    for options in ({}, {"bins": BINS}, {"likelihood": "paper"}):
        with pytest.raises(ValueError, match=rf"crystals\.{name}.* crystal 1"):
            scored(model, batch, **options)


def test_no_crystals_have_empty_likelihoods(model):
    for options in ({}, {"bins": BINS}, {"likelihood": "paper"}, {"formula": "NaCl"}):
        for part in scored(model, [], **options):
            assert part.shape == (0,)
            assert part.dtype == torch.float64


def test_arguments_that_make_no_sense_are_refused(model):
    batch = [Crystal.from_string(SALT)]
    for match, options in [
        ("likelihood must be", {"likelihood": "approximate"}),
        ("takes no bins", {"likelihood": "paper", "bins": BINS}),
        ("bins must be", {"bins": 25}),
        ("top_p must be", {"top_p": 0.0}),
        ("temperature must be", {"temperature": -1.0}),
        ("temperature must be above 0", {"temperature": 0.0}),
        ("temperature must be above 0", {"temperature": {"coordinates": 0}}),
        ("temperature must be above 0", {"temperature": {"lattice_variances": 0}}),
        ("temperature of elements must be", {"temperature": {"elements": -1}}),
        ("temperature must be a number or map some of", {"temperature": {"element": 1}}),
        ("takes no bins, temperature", {"likelihood": "paper", "temperature": 1}),
        ("max_sites must be", {"max_sites": 0}),
        ("formula = NaCl", {"formula": "NaCl", "max_sites": 1}),
    ]:
        with pytest.raises(ValueError, match=match):
            scored(model, batch, **options)


def test_with_bins_a_lattice_stands_for_its_bins(model):
    """Also where gamma is at the edge of what alpha and beta allow, as bins."""
    rng, unit = np.random.default_rng(0), Vocabulary(BINS).normalised[Phase.A, N_SYMBOLS:]
    alpha, beta = (grid.ravel() for grid in np.meshgrid(*[30 + 5.0 * np.arange(BINS)] * 2))
    on_grid = Crystal.from_string(SKEW).to_batch()[np.zeros(2 * BINS**2, int)]
    on_grid.L[:, :3] = denormalise(rng.choice(unit, (len(on_grid), 3)), Phase.A, 2)
    on_grid.L[:, 3], on_grid.L[:, 4] = np.tile(alpha, 2), np.tile(beta, 2)
    low, high = gamma_bounds(alpha, beta).T
    on_grid.L[:, 5] = np.concatenate([30 + 5 * np.ceil((low - 30) / 5), 30 + 5 * np.floor((high - 30) / 5)])
    on_grid.L[:, 5] = on_grid.L[:, 5].clip(30, 145)
    expected = scored(model, on_grid, bins=BINS).lattice
    assert torch.isfinite(expected).all()
    off_grid = on_grid[np.arange(len(on_grid))]
    off_grid.L[:, :3] *= np.exp(rng.uniform(-0.49, 0.49, (len(on_grid), 3)) * np.log(40 / 0.7) / BINS)
    off_grid.L[:, 3:] = (off_grid.L[:, 3:] + rng.uniform(-2.4, 2.4, (len(on_grid), 3))).clip(30, 150)
    assert torch.equal(scored(model, off_grid, bins=BINS).lattice, expected)


@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize("unit", [0.0, 1.0])
@pytest.mark.parametrize("temperature", [1.0, {"lattice": 0.01}], ids=str)
def test_a_cell_at_its_bounds_can_be_sampled(model, unit, bins, temperature):
    for n_sites in range(1, 21):
        crystals = CrystalBatch.empty(1)
        crystals.G[:], crystals.W[:, :n_sites], crystals.A[:, :n_sites] = 47, tables().n_letters[47], 26
        crystals.L[:] = denormalise(np.full(6, unit), np.arange(Phase.A, Phase.DONE), crystals.n_atoms())
        assert torch.isfinite(scored(model, crystals, bins=bins, temperature=temperature).lattice).all()
