"""Crystals become decisions, and the decisions become the crystals again."""

import numpy as np
import pytest

from crystal_env import Crystal, CrystalBatch, Phase, Vocabulary
from crystal_env.encoding import ANGLE_BOUNDS, LENGTH_BOUNDS, denormalise, normalise_angle, normalise_length
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.grammar.state import CrystalStates

VOCABULARIES = [Vocabulary(), Vocabulary(48), Vocabulary(0), Vocabulary(24, chooses_group=True)]


def replay(crystals, vocabulary):
    actions, lengths = crystals.to_actions(vocabulary)
    grammar = compile_grammar(constraints(space_group="agent" if vocabulary.chooses_group else list(range(1, 231))))
    states = CrystalStates(len(crystals), vocabulary)
    states.reset(np.arange(len(crystals)), grammar, 0 * crystals.G if vocabulary.chooses_group else crystals.G)
    for index in range(lengths.max()):
        rows = np.flatnonzero(lengths > index)
        step = actions[rows, index]
        tokens, units = (step, None) if vocabulary.bins else (step[:, 0].astype(int), step[:, 1].astype(float))
        assert states.step(rows, tokens, units).all()
    assert (states.phase == Phase.DONE).all()
    over = lengths[:, None] <= np.arange(actions.shape[1])
    assert (actions[over] == -1).all() if vocabulary.bins else (actions[over][:, 0] == -1).all()
    return states.crystals(np.arange(len(crystals)))


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=str)
def test_random_crystals_of_all_groups_survive_up_to_the_grid(vocabulary, random_crystal):
    rng = np.random.default_rng(0)
    crystals = CrystalBatch.from_crystals([random_crystal(group, rng) for group in range(1, 231)])
    decoded = replay(crystals, vocabulary)
    for name in ("G", "W", "A"):
        assert np.array_equal(getattr(decoded, name), getattr(crystals, name))
    off = decoded.XYZ - crystals.XYZ
    steps = vocabulary.bins or 1e6
    assert np.abs(off - np.rint(off)).max() <= 1.6 / steps  # a dependent coordinate such as x + y adds two roundings
    assert np.abs(np.log(decoded.L[:, :3] / crystals.L[:, :3])).max() < np.log(40 / 0.7) / steps * 0.51 + 1e-6
    assert np.abs(decoded.L[:, 3:] - crystals.L[:, 3:]).max() < 120 / steps * 0.51 + 1e-4


def test_special_fractions_and_angles_are_exact():
    crystal = Crystal.from_string("166-c-Bi-0-0-2/5-X-4.4-4.4-30.5-90-90-120")
    decoded = replay(crystal.to_batch(), Vocabulary())[0]
    assert decoded.L[3:].tolist() == [90, 90, 120]
    grid = [k / n for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 24) for k in range(n)]
    rows = [Crystal(1, [1], [14], [[x, x, x]], [5, 5, 5, 90, 90, 90]) for x in grid]
    decoded = replay(CrystalBatch.from_crystals(rows), Vocabulary())
    assert np.abs(decoded.XYZ[:, 0] - np.array(grid)[:, None]).max() < 1e-15


def test_units_and_values_are_inverse():
    u = np.linspace(0, 1, 11)
    for phase, inverse in ((Phase.A, lambda v: normalise_length(v, 7)), (Phase.BETA, normalise_angle)):
        values = denormalise(u, np.full(11, int(phase)), np.full(11, 7))
        assert np.allclose(inverse(values), u)
    assert denormalise(np.array([1.0]), np.array([int(Phase.X)]), np.array([1])) == [0.0]
    lengths = denormalise(np.array([0.0, 1.0]), np.full(2, int(Phase.A)), np.array([8, 8]))
    assert np.allclose(lengths, 2 * np.array(LENGTH_BOUNDS))
    assert ANGLE_BOUNDS == (30.0, 150.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("225-a-Na-0-0-0-X-100-100-100-90-90-90", "a = 100"),
        ("1-a-Na-0-0-0-X-5-5-5-90-155-90", "beta = 155"),
        ("1-a-Na-0-0-0-X-5-5-5-60-60-119.9", "too flat a cell"),
    ],
)
def test_cells_out_of_bounds_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Crystal.from_string(text).to_actions()
    with pytest.raises(ValueError, match=message):
        Crystal.from_string(text).to_actions(Vocabulary(0))


@pytest.mark.parametrize("bins", [10, 25, -24, 24.0, True])
def test_bins_must_be_a_multiple_of_24(bins):
    with pytest.raises(ValueError, match="multiple of 24"):
        Vocabulary(bins)
