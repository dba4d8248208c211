"""Decision by decision, with a cache of the tokens before, the outputs are those of `forward`."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from small_networks import GROUPS, TABLE, TINY, lively
from torch import Tensor

from agents import CrystalFormer
from agents.crystalformer.decoder import Decoder
from agents.crystalformer.tokens import Tokens
from crystal_env import CrystalBatch, Phase, Vocabulary, sample_masked
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.vocabulary import N_SYMBOLS
from crystal_env.wyckoff import N_GROUPS


@pytest.mark.parametrize("config", [TINY, TABLE])
@pytest.mark.parametrize("bins", [0, 48])
def test_steps_give_the_outputs_of_forward(config, bins):
    decoder = new_decoder(lively(config), bins)
    assert_said(decoder, list(play(decoder)), tolerance=1e-10)


def test_steps_of_crystals_that_fill_all_sites():
    decoder = new_decoder(lively(TINY), bins=24, max_sites=20, groups=np.array([1, 6, 47, 225, 1, 10]))
    said = list(play(decoder, go_on=0.99))
    assert decoder.states.site.max() == 20
    assert_said(decoder, said, tolerance=1e-10)


@pytest.mark.parametrize("config", [TINY, TABLE])
def test_steps_after_rows_were_taken(config):
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


def test_steps_of_rows_that_were_restarted():
    decoder = new_decoder(lively(TINY), bins=48)
    for _ in play(decoder, rounds=12):
        pass
    rows = np.arange(0, len(GROUPS), 2)
    with torch.inference_mode():
        decoder.restart(rows, short_crystals(), np.random.default_rng(3).integers(1, N_GROUPS + 1, len(rows)))
    assert_said(decoder, list(play(decoder)), tolerance=1e-10)


def test_steps_of_some_rows_leave_the_others_alone():
    decoder, rng = new_decoder(lively(TINY), bins=48), np.random.default_rng(4)
    said = list(play(decoder, rng=rng, fraction=0.3))
    assert_said(decoder, said, tolerance=1e-10)


@pytest.mark.parametrize("config", [TINY, TABLE])
def test_replay_of_prefixes(config):
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


def test_hidden_states_are_those_of_forward():
    model, crystals = lively(TINY), random_crystals()
    actions, _ = crystals.to_actions(Vocabulary(48))
    decoder = new_decoder(model, bins=48, groups=crystals.G)
    with torch.inference_mode():
        decoder.replay(np.arange(len(crystals)), actions + 1)
        hidden = model.hidden(Tokens.from_crystals(crystals, torch.float64))
    last = hidden[torch.arange(len(crystals)), torch.from_numpy(5 * crystals.n_sites())]
    torch.testing.assert_close(decoder.hidden, last, rtol=0, atol=1e-10)


def test_what_is_not_allowed_is_refused():
    decoder = new_decoder(lively(TINY), bins=48)
    with pytest.raises(ValueError, match="tokens must be allowed"):
        decoder.step(np.arange(2), np.array([0, 0]))  # an empty crystal


@pytest.mark.parametrize("config", [TINY, TABLE])
def test_steps_in_half_precision(config):
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
    fraction: float = 1.0,
    go_on: float = 0.6,
) -> Iterator[Said]:
    """Continue crystals at random; before every round, yield rows, what they decide, at which site, and the outputs.

    Args:
        decoder: of the crystals.
        rounds: how many decisions a crystal takes, by default all that are left.
        rng: by default one of its own.
        fraction: how many of the crystals decide at a time.
        go_on: how likely a crystal is to have another site rather than to stop.
    """
    rng, states = rng or np.random.default_rng(1), decoder.states
    while len(rows := np.flatnonzero(states.phase != Phase.DONE)) and rounds != 0:
        rounds = None if rounds is None else rounds - 1
        rows = rows[rng.random(len(rows)) < fraction]
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
