"""Action ids: STOP, letters, elements, bins and space groups, in this order."""

import numpy as np
import pytest

from crystal_env.vocabulary import FIRST_ELEMENT, MAX_DECISIONS, N_SYMBOLS, STOP, Phase, Vocabulary


def test_ids_are_stop_letters_elements_bins_and_groups():
    assert (STOP, FIRST_ELEMENT, N_SYMBOLS) == (0, 1 + 27, 1 + 27 + 118)
    plain, choosing, continuous = Vocabulary(960), Vocabulary(48, chooses_group=True), Vocabulary(0)
    assert (plain.size, plain.first_group) == (146 + 960, 146 + 960)
    assert (choosing.size, choosing.first_group) == (146 + 48 + 230, 146 + 48)
    assert continuous.size == 146


def test_the_longest_crystal_has_107_decisions():
    assert MAX_DECISIONS == 20 * (1 + 1 + 3) + 1 + 6 == Vocabulary().max_decisions
    assert Vocabulary(chooses_group=True).max_decisions == 108


@pytest.mark.parametrize("bins", [24, 48, 960])
def test_bins_are_an_even_grid_of_normalised_values(bins):
    u = Vocabulary(bins, chooses_group=True).normalised
    assert u.shape == (len(Phase), 146 + bins + 230)
    for phase in Phase:
        grid = np.arange(bins) / bins + (0.5 / bins if phase in (Phase.A, Phase.B, Phase.C) else 0)
        numeric = Phase.X <= phase <= Phase.GAMMA
        assert np.allclose(u[phase, 146 : 146 + bins], grid if numeric else 0, rtol=0, atol=1e-15)
        assert not u[phase, :146].any()
        assert not u[phase, 146 + bins :].any()


def test_masks_of_phases_allow_bins_in_numeric_phases_only():
    masks = Vocabulary(24).base_masks
    for phase in Phase:
        expected = range(146, 170) if Phase.X <= phase <= Phase.GAMMA else [STOP] if phase == Phase.DONE else []
        assert np.flatnonzero(masks[phase]).tolist() == list(expected)
    continuous = Vocabulary(0).base_masks
    assert all(np.flatnonzero(continuous[phase]).tolist() == [STOP] for phase in range(Phase.X, Phase.DONE + 1))


@pytest.mark.parametrize("bins", [10, 25, -24, 24.0, True, None, "48"])
def test_bins_must_be_a_multiple_of_24(bins):
    with pytest.raises(ValueError, match=f"bins must be a positive multiple of 24, got {bins!r}"):
        Vocabulary(bins)
    assert type(Vocabulary(np.int64(48)).bins) is int
