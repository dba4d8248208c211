from collections import Counter

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystal_env import Crystal, CrystalBatch, Phase, Vocabulary, sample_masked
from crystal_env.encoding import ANGLE_BOUNDS, gamma_bounds
from crystal_env.equivalents import equivalents
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.symmetry import normaliser
from crystal_env.symmetry.standardise import _sites
from crystal_env.wyckoff import tables

GROUPS = np.arange(1, 231)
FIELDS = ("G", "W", "A", "XYZ", "L")


@pytest.fixture(scope="session")
def crystals(random_crystal) -> CrystalBatch:
    """One crystal of every group, without short distances."""
    rng = np.random.default_rng(0)
    return CrystalBatch.from_crystals([random_crystal(G, rng) for G in GROUPS.tolist()])


@pytest.fixture(scope="session")
def rollouts() -> CrystalBatch:
    """Crystals of all groups from random rollouts, many of them oblique with cells far from reduced."""
    rng = np.random.default_rng(1)
    groups = np.concatenate([GROUPS, np.repeat(GROUPS[:15], 20)])
    return _stepped(groups, lambda masks, _: sample_masked(masks, rng))


def _stepped(groups: np.ndarray, choose) -> CrystalBatch:
    """Build crystals in the environment, whose actions ``choose`` gets masks (n, V) and rows (n,) for."""
    states, rows = CrystalStates(len(groups), Vocabulary()), np.arange(len(groups))
    states.reset(rows, compile_grammar(constraints(space_group=list(range(1, 231)))), groups)
    while len(unfinished := np.flatnonzero(states.phase != Phase.DONE)):
        assert states.step(unfinished, choose(states.masks[unfinished], unfinished)).all()
    return states.crystals(rows)


def repeated(crystal: Crystal, times: int) -> CrystalBatch:
    return crystal.to_batch()[np.zeros(times, np.int64)]


def setting(crystal: Crystal) -> tuple:
    """Letters, elements, coordinates and lattice to three digits, coordinates from 0 to 1 as the same."""
    sites = zip(crystal.W.tolist(), crystal.A.tolist(), (crystal.XYZ.round(3) % 1).tolist(), strict=True)
    return (*((*site[:2], *site[2]) for site in sites), *crystal.L.round(3).tolist())


def assert_same_arrays(first: CrystalBatch, second: CrystalBatch) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_new_setting_is_the_same_material_or_its_mirror_image(crystals):
    matcher = StructureMatcher(scale=False, ltol=0.01, stol=0.01, angle_tol=0.1)  # takes mirror images for the same
    new = equivalents(crystals, np.random.default_rng(2)).to_structures(primitive=True)
    pairs = zip(new, crystals.to_structures(primitive=True), strict=True)
    assert [G for G, pair in zip(GROUPS, pairs, strict=True) if not matcher.fit(*pair)] == []


def test_key_stays_and_constructor_changes_nothing(crystals, rollouts):
    for batch in (crystals, rollouts):
        for new, old in zip(equivalents(batch, np.random.default_rng(3)), batch, strict=True):
            assert new.key() == old.key()
            assert Crystal(new.G, new.W, new.A, new.XYZ, new.L) == new


def test_the_environment_builds_the_new_crystals(crystals, rollouts):
    new = equivalents(CrystalBatch.concatenate([crystals, rollouts]), np.random.default_rng(4))
    actions, _ = new.to_actions()
    step = np.zeros(len(new), np.int64)

    def choose(_: np.ndarray, rows: np.ndarray) -> np.ndarray:
        step[rows] += 1
        return actions[rows, step[rows] - 1]

    built = _stepped(new.G, choose)
    np.testing.assert_array_equal(built.W, new.W)
    np.testing.assert_array_equal(built.A, new.A)
    np.testing.assert_allclose(built.L[:, :3], new.L[:, :3], rtol=0.003)
    off = built.XYZ - new.XYZ
    assert np.abs(off - np.rint(off)).max() < 2 / 960


def test_cells_get_no_longer_and_keep_their_volume(crystals, rollouts):
    for old in (crystals, rollouts):
        new = equivalents(old, np.random.default_rng(5))
        assert (new.L[:, :3].sum(1) <= 1.001 * old.L[:, :3].sum(1)).all()
        np.testing.assert_allclose(new.volume_per_atom(), old.volume_per_atom(), rtol=1e-6)
        symmetric = old.G > 15
        np.testing.assert_allclose(np.sort(new.L[symmetric]), np.sort(old.L[symmetric]), rtol=1e-9)
        np.testing.assert_allclose(new.L[old.G > 74], old.L[old.G > 74], rtol=1e-9)


@pytest.mark.parametrize(
    "lattice",
    [
        "4-4-6-60-80-30",  # would become too flat
        "0.75-0.75-0.9-80-85-31",  # would become too short
    ],
)
def test_cells_stay_within_the_bounds_of_the_environment(lattice):
    crystal = Crystal.from_string(f"1-a-Na-0-0-0-X-{lattice}")
    new = equivalents(repeated(crystal, 200), np.random.default_rng(6))
    new.to_actions()
    low, high = gamma_bounds(*new.L[:, 3:5].T).T
    assert ((new.L[:, 5] >= low) & (new.L[:, 5] <= high)).all()
    assert new.L[:, 3:].min() >= ANGLE_BOUNDS[0]
    assert new.L[:, 3:].max() <= ANGLE_BOUNDS[1]
    assert len(np.unique(new.L.round(6), axis=0)) >= 24


@pytest.mark.parametrize("start", ["1-a-Na-0.1-0.2-0.3", "10-a-Na-0-0-0"])
def test_cells_without_another_choice_of_axes_keep_theirs(start):
    crystal = Crystal.from_string(f"{start}-X-5-6-100-90-91-90")  # c is too long whatever the axes
    new = equivalents(repeated(crystal, 50), np.random.default_rng(7))
    np.testing.assert_array_equal(new.L, np.tile(crystal.L, (50, 1)))


def test_the_ions_of_rock_salt_swap_in_half_of_the_settings(rock_salt):
    new = equivalents(repeated(rock_salt, 4000), np.random.default_rng(8))
    counts = Counter(str(crystal) for crystal in new)
    swapped = "225-a-Cl-0-0-0-b-Na-0.5-0.5-0.5-X-5.64-5.64-5.64-90-90-90"
    assert set(counts) == {str(rock_salt), swapped}
    assert 1870 < counts[swapped] < 2130  # four standard deviations


def test_all_settings_are_equally_likely():
    crystal = Crystal.from_string("47-a-Na-0-0-0-b-Cl-1/2-0-0-X-5-4-3-90-90-90")
    new = equivalents(repeated(crystal, 9600), np.random.default_rng(9))
    counts = Counter(setting(crystal) for crystal in new)
    assert len(counts) == 8 * 6  # corners for Na, and orders of the axes
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 90  # chi square of 47 degrees: 0.02 %


@pytest.mark.parametrize("G", [16, 47, 51, 62, 69, 74, 82, 99, 123, 129, 141, 147, 160, 166, 194, 200, 216, 221, 227])
def test_every_permutation_of_the_letters_occurs(crystals, G):
    crystal = crystals[G - 1]
    permutations = normaliser.letter_permutations(G)[:, crystal.W]
    expected = {frozenset(zip(letters.tolist(), crystal.A.tolist(), strict=True)) for letters in permutations}
    new = equivalents(repeated(crystal, 30 * len(permutations)), np.random.default_rng(10))
    assert {frozenset(zip(c.W.tolist(), c.A.tolist(), strict=True)) for c in new} == expected


def test_low_symmetry_cells_get_all_axes_of_the_same_perimeter():
    crystal = Crystal.from_string("2-i-Na-0.1-0.2-0.3-X-4-5-6-85-80-75")
    new = equivalents(repeated(crystal, 2000), np.random.default_rng(11))
    assert len(np.unique(new.L.round(6), axis=0)) == 6 * 4  # orders, and signs of two axes
    monoclinic = Crystal.from_string("10-a-Na-0-0-0-X-4-5-6-90-95-90")
    new = equivalents(repeated(monoclinic, 200), np.random.default_rng(12))
    lattices = {tuple(row) for row in new.L[:, [0, 1, 2, 4]].round(6).tolist()}
    assert lattices == {(4, 5, 6, 95), (4, 5, 6, 85), (6, 5, 4, 95), (6, 5, 4, 85)}


def test_sites_are_represented_and_sorted_as_those_of_structures(crystals):
    new = equivalents(crystals, np.random.default_rng(13))
    rng = np.random.default_rng(14)
    for row, crystal in enumerate(new):
        atoms = new[[row]].expand()
        order = rng.permutation(len(atoms.numbers))
        sites = _sites(crystal.G, atoms.lattice[0], atoms.frac[order], atoms.numbers[order], 1e-3)
        sites.sort(key=lambda site: (site[0], *np.round(site[2], 6)))
        W, A, XYZ = (np.array(column) for column in zip(*sites, strict=True))
        assert (W.tolist(), A.tolist()) == (crystal.W.tolist(), crystal.A.tolist())
        np.testing.assert_allclose(XYZ, crystal.XYZ, atol=1e-9)


@pytest.mark.parametrize("G", [229, 230])
def test_a_group_that_is_its_own_normaliser_leaves_one_setting(crystals, G):
    new = equivalents(crystals[[G - 1]], np.random.default_rng(15))[0]
    assert setting(new) == setting(Crystal.from_structure(crystals[G - 1].to_structure()))


def test_the_original_setting_is_among_those_sampled(mp20):
    for crystal in mp20[mp20.G > 15][:100]:
        new = equivalents(repeated(crystal, 500), np.random.default_rng(16))
        assert setting(crystal) in {setting(c) for c in new}


def test_nothing_moves_along_polar_axes(wurtzite):
    new = equivalents(repeated(wurtzite, 200), np.random.default_rng(17))
    zs = {tuple(np.sort(crystal.XYZ[:, 2]).round(6).tolist()) for crystal in new}
    assert zs == {(0, 0.382), (0, 0.618)}


def test_pads_stay_pads(crystals):
    new = equivalents(crystals, np.random.default_rng(18))
    np.testing.assert_array_equal(new.n_sites(), crystals.n_sites())
    pads = np.arange(new.W.shape[1]) >= new.n_sites()[:, None]
    assert not new.W[pads].any()
    assert not new.A[pads].any()
    assert not new.XYZ[pads].any()
    np.testing.assert_array_equal(new.composition(), crystals.composition())


def test_fixed_coordinates_are_exact(crystals):
    new = equivalents(crystals, np.random.default_rng(19))
    row, slot = np.nonzero(tables().rank[new.G[:, None], new.W] == 0)
    np.testing.assert_array_equal(new.XYZ[row, slot] * 24 % 1, 0)


def test_input_stays_as_it_is(crystals):
    copy = CrystalBatch(*(getattr(crystals, name).copy() for name in FIELDS))
    new = equivalents(crystals, np.random.default_rng(20))
    assert_same_arrays(crystals, copy)
    assert not any(np.shares_memory(getattr(new, name), getattr(crystals, name)) for name in FIELDS)


def test_the_same_state_of_the_generator_gives_the_same_crystals(crystals):
    first, second = (equivalents(crystals, np.random.default_rng(21)) for _ in range(2))
    assert_same_arrays(first, second)
    assert (equivalents(crystals, np.random.default_rng(22)).W != first.W).any()


def test_an_empty_batch_stays_empty():
    assert len(equivalents(CrystalBatch.empty(), np.random.default_rng(23))) == 0


def test_large_batches_are_re_set_like_small_ones(rock_salt, perovskite):
    crystals = CrystalBatch.from_crystals([rock_salt, perovskite] * 700)
    new = equivalents(crystals, np.random.default_rng(24))
    np.testing.assert_array_equal(new.G, crystals.G)
    assert {crystal.key() for crystal in new[::2]} == {rock_salt.key()}
    assert {crystal.key() for crystal in new[1::2]} == {perovskite.key()}
