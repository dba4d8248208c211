"""Crystals become decisions, and the decisions become the crystals again."""

import numpy as np
import pytest

from crystal_env import Crystal, CrystalBatch, Phase, Vocabulary
from crystal_env.encoding import (
    ANGLE_BOUNDS,
    LENGTH_BOUNDS,
    bin_values,
    denormalise,
    gamma_allowed,
    gamma_bins,
    gamma_bounds,
    lattice_bins,
    normalise_angle,
    normalise_length,
)
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import N_SYMBOLS

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


def test_values_and_normalised_values_are_inverse():
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


def test_every_choice_of_alpha_and_beta_leaves_a_gamma_on_every_grid():
    for bins in (24, 48, 960):
        unit = Vocabulary(bins).normalised[Phase.GAMMA, N_SYMBOLS:]
        angle = 30 + 120 * unit
        alpha, beta = (grid.ravel() for grid in np.meshgrid(angle, angle))
        low, high = gamma_bounds(alpha, beta).T
        inside = np.searchsorted(angle, high, side="right") - np.searchsorted(angle, low, side="left")
        assert inside.min() >= 1
        gamma = angle[np.searchsorted(angle, low, side="left")]
        cos = np.cos(np.radians([alpha, beta, gamma]))
        assert (1 - (cos**2).sum(0) + 2 * cos.prod(0)).min() >= 0.1**2 - 1e-9


def test_gamma_is_allowed_where_the_cell_is_thick_enough():
    alpha, beta, gamma = np.random.default_rng(0).uniform(30, 150, (3, 5000))
    cos = np.cos(np.radians([alpha, beta, gamma]))
    volume = np.sqrt(np.maximum(1 - (cos**2).sum(0) + 2 * cos.prod(0), 0))  # V / (a b c), from the metric tensor
    u = normalise_angle(gamma)
    allowed = np.array([gamma_allowed(u[[i]], alpha[[i]], beta[[i]])[0, 0] for i in range(5000)])
    assert np.array_equal(allowed, volume >= 0.1)
    assert 0.3 < allowed.mean() < 0.9


@pytest.mark.parametrize("n", [24, 48, 960])
def test_bins_of_lattices_are_the_nearest(n):
    rng = np.random.default_rng(1)
    n_atoms = rng.integers(1, 200, 300)
    L = np.concatenate([rng.uniform(1, 30, (300, 3)), rng.uniform(31, 148, (300, 3))], axis=1)
    bins = lattice_bins(L, n_atoms, n)
    for parameter in range(6):
        values = np.stack([bin_values(np.full(300, b), Phase.A + parameter, n_atoms, n) for b in range(n)], axis=1)
        scale = np.log if parameter < 3 else np.asarray
        distance = np.abs(scale(values) - scale(L[:, [parameter]]))
        chosen = np.take_along_axis(distance, np.maximum(bins[:, [parameter]], 0), axis=1)[:, 0]
        low, high = (0.7 * np.cbrt(n_atoms), 40 * np.cbrt(n_atoms)) if parameter < 3 else (30, 150)
        inside = (L[:, parameter] >= low) & (L[:, parameter] <= high)
        assert np.array_equal(bins[:, parameter] >= 0, inside)
        assert np.allclose(chosen[inside], distance.min(1)[inside], rtol=0, atol=1e-12)


def test_bins_of_gamma_are_those_within_its_bounds():
    bins = np.stack(np.meshgrid(np.arange(24), np.arange(24)), -1).reshape(-1, 2)
    low, high = gamma_bounds(*(30.0 + 5 * bins).T).T
    angles = 30 + 5.0 * np.arange(24)
    assert np.array_equal(gamma_bins(bins, 24), (angles >= low[:, None]) & (angles <= high[:, None]))


def test_values_out_of_bounds_have_no_bin():
    L = np.array([[0.5, 50, 5, 20, 160, 90], [np.nan, 5, 5, 90, np.inf, 90]])
    assert (lattice_bins(L, np.array([1, 1]), 24)[:, [0, 4]] == -1).all()
    assert lattice_bins(L, np.array([1, 1]), 24)[0].tolist()[1::2] == [-1, -1, 12]
