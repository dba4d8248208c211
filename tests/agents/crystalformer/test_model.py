from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.decoder import Decoder
from agents.crystalformer.tokens import Tokens
from crystal_env import CrystalBatch, Phase, Vocabulary, sample_masked
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.vocabulary import N_SYMBOLS
from crystal_env.wyckoff import N_GROUPS, tables

TINY = CrystalFormerConfig(
    n_layers=2,
    n_heads=3,
    key_size=8,
    model_size=16,
    embed_size=8,
    first_letter_size=12,
    n_frequencies=3,
    coordinate_components=4,
    lattice_components=2,
)
NARROW = {"key_size": 16, "first_letter_size": 0, "n_layers": 1, "coordinate_components": 60}
TABLE = CrystalFormerConfig(
    **(TINY.to_dict() | NARROW)
)  # a residual stream no wider than a head, a table, more outputs
GROUPS = np.random.default_rng(0).permutation(np.concatenate([np.arange(1, N_GROUPS + 1), np.repeat([1, 2, 5, 8], 5)]))


def lively(config: CrystalFormerConfig, dtype: torch.dtype = torch.float64) -> CrystalFormer:
    """A network whose every input matters: new ones are almost constant."""
    torch.set_default_dtype(torch.float64)
    try:
        model = CrystalFormer(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        scale = 1 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.to(dtype)


class TestConfig:
    @pytest.mark.parametrize("name", [name for name in TINY.to_dict() if "dropout" not in name])
    @pytest.mark.parametrize("value", [-1, 2.0, "4", True, None])
    def test_sizes_are_integers(self, name, value):
        with pytest.raises(ValueError, match=rf"^{name} must be an integer of at least [01], got {value!r}"):
            CrystalFormerConfig(**{name: value})

    @pytest.mark.parametrize("name", [name for name in TINY.to_dict() if "dropout" not in name])
    def test_only_the_first_letters_network_may_be_empty(self, name):
        if name == "first_letter_size":
            CrystalFormerConfig(**{name: 0})
        else:
            with pytest.raises(ValueError, match=f"^{name} must"):
                CrystalFormerConfig(**{name: 0})

    @pytest.mark.parametrize("name", ["dropout", "attention_dropout"])
    @pytest.mark.parametrize("value", [-0.1, 1, float("nan"), "0.1", False])
    def test_dropout_is_a_rate_below_one(self, name, value):
        with pytest.raises(ValueError, match=rf"^{name} must be a number in \[0, 1\), got {value!r}"):
            CrystalFormerConfig(**{name: value})

    def test_heads_have_an_even_width(self):
        with pytest.raises(ValueError, match="key_size must be even"):
            CrystalFormerConfig(key_size=7)


class TestParameters:
    def test_the_default_has_as_many_as_the_papers(self):
        assert CrystalFormer().n_parameters == 4_833_575

    @pytest.mark.parametrize("config", [CrystalFormerConfig(), TINY, TABLE])
    def test_count_follows_from_the_sizes(self, config):
        E, D, F, c = config.embed_size, config.model_size, 2 * config.n_frequencies, config.lattice_components
        HK, h0 = config.n_heads * config.key_size, config.first_letter_size
        outputs = max(119 + 13 * c, 3 * config.coordinate_components, 28)
        first_letter = (E + 1) * h0 + 28 * (h0 + 1) if h0 else 230 * 28
        layer = 3 * (D + 1) * HK + (HK + 1) * D + 4 * D + (D + 1) * 4 * D + (4 * D + 1) * D
        inputs = (2 * E + 2) * D + (2 * E + 1) * D + 3 * (E + F + 1) * D
        expected = 377 * E + first_letter + inputs + config.n_layers * layer + 2 * D + (D + 1) * outputs
        assert CrystalFormer(config).n_parameters == expected

    def test_the_seed_decides_the_weights(self):
        first, same, other = (CrystalFormer(TINY, seed).state_dict() for seed in (3, 3, 4))
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert not any(torch.equal(first[name], other[name]) for name in first if first[name].std() > 0)

    def test_weights_do_not_depend_on_the_global_generator(self):
        first = CrystalFormer(TINY).state_dict()
        torch.rand(5)
        assert all(torch.equal(tensor, first[name]) for name, tensor in CrystalFormer(TINY).state_dict().items())

    def test_making_a_model_leaves_torch_as_it_was(self):
        state, dtype = torch.get_rng_state(), torch.get_default_dtype()
        CrystalFormer(TINY)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_default_dtype() == dtype


class TestForward:
    @pytest.mark.parametrize("config", [TINY, TABLE])
    @pytest.mark.parametrize("kind", range(5))
    def test_a_decision_is_told_by_those_before_it_only(self, config, kind):
        model, tokens, site = lively(config), random_tokens(), 2
        with torch.no_grad():
            before, after = model(tokens), model(changed(tokens, site, kind))
        first_after = 5 * site + kind + 1
        for position, (one, other) in enumerate(zip(in_order(before), in_order(after), strict=True)):
            difference = (one - other).abs().amax(-1)
            if position < first_after:
                assert difference.max() < 1e-12, position
            else:
                assert difference.min() > 1e-6, position

    @pytest.mark.parametrize("config", [TINY, TABLE])
    def test_everything_depends_on_the_space_group(self, config):
        model, tokens = lively(config), random_tokens()
        with torch.no_grad():
            before, after = model(tokens), model(tokens._replace(G=tokens.G % N_GROUPS + 1))
        for one, other in zip(in_order(before), in_order(after), strict=True):
            assert (one - other).abs().amax(-1).min() > 1e-6

    def test_slots_that_are_not_needed_change_nothing(self):
        model, tokens = lively(TINY), random_tokens()
        longer = Tokens(tokens.G, *(pad_slots(array, 3) for array in tokens[1:4]), tokens.L)
        with torch.no_grad():
            for one, other in zip(in_order(model(tokens)), in_order(model(longer)), strict=False):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
    def test_dropout_acts_in_training_only(self, rate):
        rates = {"dropout": 0.0, "attention_dropout": 0.0}
        model, tokens = lively(CrystalFormerConfig(**(TINY.to_dict() | rates | {rate: 0.5}))), random_tokens()
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            first, same = model(tokens).elements, model(tokens).elements
            model.train()
            other, another = model(tokens).elements, model(tokens).elements
        assert torch.equal(first, same)
        assert len({float(elements.sum()) for elements in (first, other, another)}) == 3

    def test_coordinates_are_periodic(self):
        model, tokens = lively(TINY), random_tokens()
        with torch.no_grad():
            before, after = model(tokens), model(tokens._replace(XYZ=tokens.XYZ + 1))
        for one, other in zip(in_order(before), in_order(after), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


class TestDecoder:
    """Decision by decision, with what was computed before kept, the outputs are those of `forward`."""

    @pytest.mark.parametrize("config", [TINY, TABLE])
    @pytest.mark.parametrize("bins", [0, 48])
    def test_steps(self, config, bins):
        decoder = new_decoder(lively(config), bins)
        assert_said(decoder, list(play(decoder)), tolerance=1e-10)

    def test_steps_of_crystals_that_fill_all_sites(self):
        decoder = new_decoder(lively(TINY), bins=24, max_sites=20, groups=np.array([1, 6, 47, 225, 1, 10]))
        said = list(play(decoder, go_on=0.99))
        assert decoder.states.site.max() == 20
        assert_said(decoder, said, tolerance=1e-10)

    @pytest.mark.parametrize("config", [TINY, TABLE])
    def test_steps_after_rows_were_taken(self, config):
        decoder, rng, left = new_decoder(lively(config), bins=48), np.random.default_rng(2), GROUPS
        for _ in range(3):
            for _ in play(decoder, rounds=5, rng=rng):
                pass
            rows = rng.permutation(len(left))[: len(left) * 2 // 3]
            with torch.inference_mode():
                order = decoder.take(rows)
            assert sorted(order) == sorted(rows)
            left = left[order]
            np.testing.assert_array_equal(decoder.states.G, left)
        assert_said(decoder, list(play(decoder, rng=rng)), tolerance=1e-10)

    def test_steps_of_rows_that_were_restarted(self):
        decoder = new_decoder(lively(TINY), bins=48)
        for _ in play(decoder, rounds=12):
            pass
        rows = np.arange(0, len(GROUPS), 2)
        with torch.inference_mode():
            decoder.restart(rows, short_crystals(), np.random.default_rng(3).integers(1, N_GROUPS + 1, len(rows)))
        assert_said(decoder, list(play(decoder)), tolerance=1e-10)

    def test_steps_of_some_rows_leave_the_others_alone(self):
        decoder, rng = new_decoder(lively(TINY), bins=48), np.random.default_rng(4)
        said = list(play(decoder, rng=rng, share=0.3))
        assert_said(decoder, said, tolerance=1e-10)

    @pytest.mark.parametrize("config", [TINY, TABLE])
    def test_replay_of_prefixes(self, config):
        model = lively(config)
        crystals, rng = random_crystals(), np.random.default_rng(5)
        actions, lengths = crystals.to_actions(Vocabulary(48))
        played = rng.integers(0, lengths + 1)
        prefixes = np.where(np.arange(actions.shape[1]) < played[:, None], actions, -1)
        decoder = new_decoder(model, bins=48, groups=crystals.G)
        with torch.inference_mode():
            decoder.replay(np.arange(len(crystals)), prefixes + 1)
            said = [(np.arange(len(crystals)), decoder.states.phase.copy(), decoder.states.site.copy(), decoder.output)]
        assert_said(decoder, said, tolerance=1e-10, crystals=crystals)
        assert len(np.unique(said[0][1])) == 12  # from the first letter to the end

    def test_hidden_states_are_those_of_forward(self):
        model, crystals = lively(TINY), random_crystals()
        actions, _ = crystals.to_actions(Vocabulary(48))
        decoder = new_decoder(model, bins=48, groups=crystals.G)
        with torch.inference_mode():
            decoder.replay(np.arange(len(crystals)), actions + 1)
            hidden = model.hidden(Tokens.from_crystals(crystals, torch.float64))
        last = hidden[torch.arange(len(crystals)), torch.from_numpy(5 * crystals.n_sites())]
        torch.testing.assert_close(decoder.hidden, last, rtol=0, atol=1e-10)

    def test_what_is_not_allowed_is_refused(self):
        decoder = new_decoder(lively(TINY), bins=48)
        with pytest.raises(ValueError, match="tokens must be allowed"):
            decoder.step(np.arange(2), np.array([0, 0]))  # an empty crystal

    @pytest.mark.parametrize("config", [TINY, TABLE])
    def test_steps_in_half_precision(self, config):
        """An output between 1 and 2 is rounded to 1/128; both ways are one to two such units from the truth."""
        decoder = new_decoder(lively(config, torch.bfloat16), bins=48)
        assert decoder.output.dtype == torch.float32
        assert_said(decoder, list(play(decoder)), tolerance=4 / 128)


def new_decoder(model: CrystalFormer, bins: int, max_sites: int = 4, groups: np.ndarray = GROUPS) -> Decoder:
    with torch.inference_mode():
        return Decoder(model, Vocabulary(bins), short_crystals(max_sites), groups)


def short_crystals(max_sites: int = 4):
    return compile_grammar(constraints(space_group=list(range(1, N_GROUPS + 1)), max_sites=max_sites))


Said = tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]


def play(
    decoder: Decoder,
    rounds: int | None = None,
    rng: np.random.Generator | None = None,
    share: float = 1.0,
    go_on: float = 0.6,
) -> Iterator[Said]:
    """Continue crystals at random; before every round, yield rows, what they decide, at which site, and the outputs.

    Args:
        decoder: of the crystals.
        rounds: how many decisions a crystal takes, by default all that are left.
        rng: by default one of its own.
        share: how many of the crystals decide at a time.
        go_on: how likely a crystal is to have another site rather than to stop.
    """
    rng, states = rng or np.random.default_rng(1), decoder.states
    while len(rows := np.flatnonzero(states.phase != Phase.DONE)) and rounds != 0:
        rounds = None if rounds is None else rounds - 1
        rows = rows[rng.random(len(rows)) < share]
        yield rows, states.phase[rows], states.site[rows], decoder.output[rows]
        masks = states.masks[rows].copy()
        may_go_on = masks[:, 1:N_SYMBOLS].any(1) & (rng.random(len(rows)) < go_on)
        masks[(states.phase[rows] == Phase.LETTER) & may_go_on, 0] = False
        units = None if decoder.states.vocabulary.bins else rng.random(len(rows))
        if units is not None:
            gamma = np.flatnonzero(states.phase[rows] == Phase.GAMMA)
            low, high = states.gamma_bounds(rows[gamma]).T
            units[gamma] = low + (high - low) * units[gamma]
        with torch.inference_mode():
            decoder.step(rows, sample_masked(masks, rng), units)


def assert_said(decoder: Decoder, said: list[Said], tolerance: float, crystals: CrystalBatch | None = None) -> None:
    """Compare outputs with those of `forward`, at the decision of each row, given its finished crystal."""
    crystals = crystals or decoder.states.crystals(np.arange(len(decoder.states)))
    model = decoder.model
    with torch.inference_mode():
        outputs = model(Tokens.from_crystals(crystals, model.real_dtype))
    for rows, phases, sites, ours in said:
        for row, phase, site, output in zip(rows, phases, sites, ours, strict=True):
            if phase == Phase.LETTER:
                expected, start = outputs.letters[row, site], 0
            elif phase == Phase.ELEMENT:
                expected, start = outputs.elements[row, site], 0
            elif phase < Phase.A:
                expected, start = outputs.coordinates[row, site, phase - Phase.X], 0
            else:
                expected, start = outputs.lattice[row, crystals.n_sites()[row]], 119
            got = output[start : start + len(expected)]
            torch.testing.assert_close(
                got, expected, rtol=0, atol=tolerance, msg=lambda text, row=row: f"{row}: {text}"
            )
    assert {int(phase) for _, phases, _, _ in said for phase in phases} >= set(range(Phase.LETTER, Phase.DONE))


def random_crystals() -> CrystalBatch:
    decoder = new_decoder(lively(TABLE), bins=48)
    for _ in play(decoder):
        pass
    return decoder.states.crystals(np.arange(len(GROUPS)))


def random_tokens(n: int = 5) -> Tokens:
    """What the network can read, though most are no crystals."""
    rng = np.random.default_rng(0)
    G = rng.integers(1, N_GROUPS + 1, 20)
    W = rng.integers(1, tables().n_letters[G, None] + 1, (20, n))
    A = rng.integers(1, 119, (20, n))
    return Tokens(*(torch.from_numpy(array) for array in (G, W, A, rng.random((20, n, 3)), rng.random((20, 6)))))


def changed(tokens: Tokens, site: int, kind: int) -> Tokens:
    """Another letter, element or coordinate at one site."""
    W, A, XYZ = tokens.W.clone(), tokens.A.clone(), tokens.XYZ.clone()
    if kind == 0:
        W[:, site] = W[:, site] % 27 + 1
    elif kind == 1:
        A[:, site] = A[:, site] % 118 + 1
    else:
        XYZ[:, site, kind - 2] += 0.1
    return tokens._replace(W=W, A=A, XYZ=XYZ)


def pad_slots(array: Tensor, n: int) -> Tensor:
    return torch.cat([array, array.new_zeros(len(array), n, *array.shape[2:])], dim=1)


def in_order(outputs) -> list[Tensor]:
    """What is said about each decision: letter, element, x, y, z of the first site, and so on; lattice with element."""
    decisions = []
    for slot in range(outputs.letters.shape[1]):
        decisions.append(outputs.letters[:, slot])
        decisions.append(torch.cat([outputs.elements[:, slot], outputs.lattice[:, slot]], dim=-1))
        if slot < outputs.coordinates.shape[1]:
            decisions += outputs.coordinates[:, slot].unbind(1)
    return decisions
