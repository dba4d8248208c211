"""A temperature changes its own part of a crystal, in sampling as in scoring; a model recommends some."""

import copy
import json

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from small_networks import TINY, lively
from tiny_grammar import BINS, CONSTRAINTS, GROUPS, base_model, every_crystal

from agents import CrystalFormer
from agents.crystalformer.distribution import Distribution, any_crystal, compile_constraints
from agents.crystalformer.likelihood import LogProb
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import sample_crystals
from agents.crystalformer.temperature import Temperatures, check_temperature

PARTS = ("letters", "elements", "coordinates", "lattice")
OF_PART = {
    "letters": "letters", "elements": "elements",
    "coordinates": "coordinates", "coordinate_weights": "coordinates", "coordinate_concentrations": "coordinates",
    "lattice": "lattice", "lattice_weights": "lattice", "lattice_variances": "lattice",
}  # fmt: skip
MAPPINGS = [
    *({name: 0.1} for name in OF_PART), *({name: 2.5} for name in PARTS),
    {"letters": 0.6, "elements": 0.8, "coordinates": 0.01, "lattice": 0.01},
    {"letters": 2, "coordinate_weights": 0.5, "coordinate_concentrations": 1.5, "lattice_variances": 0.1},
]  # fmt: skip
RULES = {
    "none": {},
    "elements": {"elements": ["Fe", "O", "Li"], "required_elements": ["O"], "max_sites": 4},
    "atoms": {"max_atoms": 12, "exclude_radioactive": True},
    "formula": {"formula": "SrTiO3"},
    "ties": {"elements": ["Li", "Fe", "O"], "tied_sites": [[0, 2]], "max_sites": 4},
    "lists": {"site_elements": [["Na"], None, ["Cl", "F"]], "max_sites": 3},
    "template": {"wyckoff_letters": "abc"},
}
ALL_GROUPS = [1, 2, 12, 62, 99, 166, 198, 221]
TEMPLATE_GROUPS = [3, 25, 47, 221]


@pytest.fixture(scope="module")
def model():
    return lively(TINY)


def scored(model, crystals, **options):
    with torch.no_grad():
        return model.log_prob(crystals, **options)


def same(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("G", "W", "A", "XYZ", "L"))


class TestTemperatures:
    def test_a_number_is_that_of_all_parts(self):
        assert set(Temperatures.of(0.7).to_dict().values()) == {0.7}
        assert Temperatures.of(1) == Temperatures.of({}) == Temperatures()

    @pytest.mark.parametrize("name", PARTS)
    def test_a_part_is_its_weights_and_widths_and_no_other(self, name):
        changed = {of for of, value in Temperatures.of({name: 0.5}).to_dict().items() if value == 0.5}
        assert changed == {of for of in Temperatures().to_dict() if OF_PART[of] == name}

    def test_weights_or_widths_come_before_their_part(self):
        T = Temperatures.of({"lattice_weights": 3.0, "lattice": 0.1, "coordinates": 2.0})
        assert (T.lattice_weights, T.lattice_variances, T.coordinate_weights) == (3.0, 0.1, 2.0)

    @pytest.mark.parametrize("given", [0.7, 1, *MAPPINGS], ids=str)
    def test_they_come_back_from_their_dictionary(self, given):
        T = Temperatures.of(given)
        assert Temperatures.of(T) is T
        assert Temperatures.of(json.loads(json.dumps(T.to_dict()))) == T
        assert T.are_one == (given == 1)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (1, "1"), (0.7, "0.7"), ({"lattice": 0.01}, "lattice 0.01"), ({"lattice_weights": 2}, "lattice weights 2"),
            ({"letters": 0.6, "coordinates": 0.01}, "letters 0.6, coordinates 0.01"),
        ],
        ids=str,
    )  # fmt: skip
    def test_in_words(self, given, words):
        assert Temperatures.of(given).in_words() == words

    def test_numbers_without_a_spread_have_no_density(self):
        for name in OF_PART:
            has_none = {"coordinates", "coordinate_concentrations", "lattice", "lattice_variances"}
            assert Temperatures.of({name: 0}).have_densities == (name not in has_none)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (-1, "^temperature must be a finite number of at least 0, got -1"), (None, "^temperature must be"),
            ([1], "^temperature must be"), ({"lattice": np.inf}, "^temperature of lattice_weights must be a finite"),
            ({"letters": True}, "^temperature of letters must be"), ({"letters": None}, "^temperature of letters must"),
            ({"lattices": 1}, r"^temperature must be a number or map some of .*'lattice'.* got \['lattices'\]"),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_none_is_named(self, given, message):
        with pytest.raises(ValueError, match=message):
            Temperatures.of(given)
        if given is not None:
            with pytest.raises(ValueError, match=message.replace("temperature", "base_temperature")):
                check_temperature("base_temperature", given)

    def test_a_setting_may_leave_it_to_the_model(self):
        check_temperature("temperature", None)


class TestFormulas:
    """By the definitions, from outputs of a network."""

    OUTPUT = torch.linspace(-2, 3, 39, dtype=torch.float64)

    def test_coordinates(self):
        T = {"coordinate_weights": 0.3, "coordinate_concentrations": 0.2, "lattice": 5, "elements": 7}
        logits, locations, widths = self.OUTPUT.numpy().reshape(3, 13)
        mixture = Distribution(any_crystal(), T).coordinate(self.OUTPUT)
        weights = np.exp(logits / 0.3)
        np.testing.assert_allclose(mixture.log_weights.exp(), weights / weights.sum())
        np.testing.assert_array_equal(mixture.locations, locations)
        np.testing.assert_allclose(mixture.concentrations, np.log1p(np.exp(widths)) / 0.2)

    def test_lattices(self):
        T = {"lattice_weights": 3.0, "lattice_variances": 0.04, "coordinates": 5, "letters": 7}
        logits, means, widths = np.split(self.OUTPUT.numpy(), [3, 21])
        mixture = Distribution(any_crystal(), T).lattice(self.OUTPUT)
        weights = np.exp(logits / 3)
        np.testing.assert_allclose(mixture.log_weights.exp(), weights / weights.sum())
        np.testing.assert_array_equal(mixture.means, means.reshape(3, 6))
        np.testing.assert_allclose(mixture.scales, 0.2 * (np.log1p(np.exp(widths)) + 1e-3).reshape(3, 6))

    def test_letters_and_elements(self):
        rules, mask = Distribution(any_crystal(), {"letters": 0.5, "elements": 2}), torch.arange(39) % 3 > 0
        for choose, T in ((rules.letters, 0.5), (rules.elements, 2)):
            weights = np.where(mask, np.exp(self.OUTPUT.numpy() / T), 0)
            np.testing.assert_allclose(choose(self.OUTPUT, mask).exp(), weights / weights.sum())


@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize("t", [0.4, 1.0, 1.7])
def test_equal_parts_are_one_temperature_bit_for_bit(model, bins, t):
    every = dict.fromkeys(PARTS, t)
    apart = Temperatures.of(t).to_dict()
    expected = model.sample(ALL_GROUPS, seed=0, bins=bins, temperature=t)
    scores = scored(model, expected, bins=bins, temperature=t)
    for temperature in (every, apart, Temperatures(**apart)):
        assert same(model.sample(ALL_GROUPS, seed=0, bins=bins, temperature=temperature), expected)
        again = scored(model, expected, bins=bins, temperature=temperature)
        assert all(torch.equal(*parts) for parts in zip(again, scores, strict=True))


@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize("name", OF_PART)
def test_only_the_named_part_of_a_likelihood_changes(model, name, bins):
    crystals = model.sample(ALL_GROUPS, seed=1, bins=bins, max_sites=3, temperature=1)
    before = scored(model, crystals, bins=bins, temperature=1)
    after = scored(model, crystals, bins=bins, temperature={name: 0.5})
    for part in PARTS:
        assert torch.equal(getattr(before, part), getattr(after, part)) == (part != OF_PART[name])
    torch.testing.assert_close(after.total, sum(getattr(after, part) for part in PARTS))


@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize("name", OF_PART)
def test_only_the_named_part_of_a_sample_changes(model, name, bins):
    """With one site, and its number of letters fixed, no part but the named one and those after it may change."""
    options = {"seed": 2, "bins": bins, "max_sites": 1}
    plain, other = (model.sample([1, 12, 62, 166] * 50, **options, temperature=T) for T in (1, {name: 4.0}))
    changed = [
        (plain.W[:, 0] != other.W[:, 0]).any(), (plain.A[:, 0] != other.A[:, 0]).any(),
        (plain.XYZ[:, 0] != other.XYZ[:, 0]).any(), (plain.L != other.L).any(),
    ]  # fmt: skip
    first = PARTS.index(OF_PART[name])
    assert not any(changed[:first])
    assert changed[first]


@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize("rules", RULES)
def test_scores_of_the_sampler_are_log_likelihoods(model, rules, bins):
    rules = RULES[rules]
    groups = np.array((TEMPLATE_GROUPS if "wyckoff_letters" in rules else ALL_GROUPS) * 2)
    for number, temperature in enumerate(MAPPINGS):
        options = {"temperature": temperature, "top_p": 0.9 if number % 3 == 0 else 1.0, "bins": bins}
        distribution = Distribution(compile_constraints(groups, rules), **options)
        samples = sample_crystals(model, groups, distribution, RandomStreams(number), 20, scored=True)
        again = scored(model, samples.crystals, **options, **rules)
        for name, ours, theirs in zip(LogProb._fields, samples.log_prob, again, strict=True):
            assert torch.isfinite(ours).all()
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7, msg=f"{name} at {temperature}")


@pytest.mark.parametrize("temperature", [*MAPPINGS, {"letters": 0}, {"elements": 0, "lattice_weights": 0}], ids=str)
def test_every_crystal_of_a_grammar_is_sampled_as_often_as_scored(temperature):
    model, cells = base_model(), every_crystal()
    options = {"bins": BINS, "temperature": temperature, **CONSTRAINTS}
    p = scored(model, cells, **options).total.exp().numpy() / len(GROUPS)
    assert p.sum() == pytest.approx(1, abs=1e-10)
    sampled = model.sample([*GROUPS] * 2_000, seed=0, batch_size=4_000, **options)

    def keys(crystals):
        numbers = [crystals.G[:, None], crystals.W[:, :2], crystals.A[:, :2], np.rint(1e4 * crystals.L[:, :1])]
        return [tuple(row) for row in np.concatenate(numbers, axis=1).tolist()]

    counts = dict.fromkeys(keys(cells), 0)
    for key in keys(sampled):
        counts[key] += 1  # a crystal that is not in the grammar is a KeyError
    seen = np.array(list(counts.values()))
    assert (seen[p == 0] == 0).all()
    plain = scored(model, cells, bins=BINS, temperature=1, **CONSTRAINTS).total.exp().numpy() / len(GROUPS)
    assert agreement(seen, p) > 1e-6
    if any(OF_PART[name] != "coordinates" for name in temperature):  # no site has a free one
        assert agreement(seen, plain) < 1e-6


def agreement(seen, p):
    """Return the p-value of counts against probabilities, all that are rare being one cell."""
    expected, common = seen.sum() * p, seen.sum() * p > 10
    rare = max(expected[~common].sum(), 1e-9)
    seen, expected = np.append(seen[common], seen[~common].sum()), np.append(expected[common], rare)
    return chisquare(seen, expected * seen.sum() / expected.sum()).pvalue


@pytest.mark.parametrize("bins", [0, BINS])
@pytest.mark.parametrize("temperature", MAPPINGS, ids=str)
def test_gradients_are_finite_differences(model, temperature, bins):
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    options = {"bins": bins, "temperature": temperature, "max_sites": 3}
    crystals = model.sample(ALL_GROUPS, seed=3, **options)
    parameters = list(model.parameters())
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    model.log_prob(crystals, **options).total.sum().backward()
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True) if p.grad is not None)

    def moved(step):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += step * d
        value = float(scored(model, crystals, **options).total.sum())
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter -= step * d
        return value

    h = 1e-6
    assert slope == pytest.approx((moved(h) - moved(-h)) / (2 * h), rel=1e-4, abs=1e-4)


class TestRecommended:
    GIVEN = {"elements": 0.5, "coordinates": 0.1, "lattice": 0.01}  # noqa: RUF012

    @pytest.fixture
    def recommending(self, model):
        model = copy.deepcopy(model)
        model.temperature = Temperatures.of(self.GIVEN)
        return model

    def test_it_is_what_is_sampled_and_scored_unless_another_is_given(self, model, recommending):
        crystals = recommending.sample(ALL_GROUPS, seed=0)
        assert same(crystals, model.sample(ALL_GROUPS, seed=0, temperature=self.GIVEN))
        for ours, theirs in zip(
            scored(recommending, crystals), scored(model, crystals, temperature=self.GIVEN), strict=True
        ):
            assert torch.equal(ours, theirs)
        plain = recommending.sample(ALL_GROUPS, seed=0, temperature=1)
        assert same(plain, model.sample(ALL_GROUPS, seed=0))
        assert not same(plain, crystals)

    def test_a_new_model_recommends_one(self, model):
        assert model.temperature == Temperatures()

    def test_the_papers_likelihood_is_that_at_one(self, model, recommending):
        crystals = model.sample(ALL_GROUPS, seed=0)
        recommending.temperature = Temperatures.of({"lattice": 0})
        for ours, theirs in zip(
            scored(recommending, crystals, likelihood="paper"), scored(model, crystals, likelihood="paper"), strict=True
        ):
            assert torch.equal(ours, theirs)

    def test_it_is_saved_and_loaded(self, recommending, tmp_path):
        recommending.save_pretrained(tmp_path)
        assert CrystalFormer.from_pretrained(tmp_path).temperature == Temperatures.of(self.GIVEN)

    @pytest.mark.parametrize("entry", [None, 1.0, 0.7, {"lattice": 0.5}], ids=str)
    def test_a_config_may_have_a_number_parts_or_nothing(self, model, tmp_path, entry):
        model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        assert "temperature" not in config
        if entry is not None:
            (tmp_path / "config.json").write_text(json.dumps(config | {"temperature": entry}))
        loaded = CrystalFormer.from_pretrained(tmp_path)
        assert loaded.temperature == Temperatures.of(1 if entry is None else entry)
        assert loaded.config == model.config

    @pytest.mark.parametrize("entry", [-1, "cold", {"letter": 1}, {"letters": None}, [1]], ids=str)
    def test_a_config_with_none_is_damaged(self, model, tmp_path, entry):
        model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"temperature": entry}))
        with pytest.raises(ValueError, match=r"config\.json is no configuration of a model: temperature"):
            CrystalFormer.from_pretrained(tmp_path)
