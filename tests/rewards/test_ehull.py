import copy
import pickle

import numpy as np
import pytest

import rewards.potentials.chgnet
from crystal_env.crystal import Crystal, CrystalBatch
from rewards.ehull import EnergyAboveHull
from rewards.hull.convex_hull import ConvexHull
from rewards.potentials import Energies
from rewards.screen import Screen

DENSE = "225-a-La-0-0-0-c-H-1/4-1/4-1/4-X-2-2-2-90-90-90"
GOLD = "225-a-Au-0-0-0-X-4.08-4.08-4.08-90-90-90"
LITHIUM = "229-a-Li-0-0-0-X-3.4-3.4-3.4-90-90-90"
ARGON = "225-a-Ar-0-0-0-X-5.3-5.3-5.3-90-90-90"


@pytest.fixture
def reward(pair_potential, pair_hull):
    return EnergyAboveHull(pair_potential, pair_hull)


def test_energies_are_measured_against_the_hull(reward, crystals):
    result = reward(crystals)
    expected = 0.01 * crystals.volume_per_atom()  # the elements are at -1 eV
    expected[0] += 0.5  # and NaCl at -1.5 eV/atom
    np.testing.assert_allclose(result.terms["e_above_hull"], expected)
    np.testing.assert_allclose(result.total, -expected)
    np.testing.assert_allclose(result.terms["energy_per_atom"], 0.01 * crystals.volume_per_atom() - 1)
    assert list(result.failures) == [None] * 5


def test_success_is_an_energy_up_to_the_threshold(pair_potential, pair_hull, crystals):
    values = EnergyAboveHull(pair_potential, pair_hull)(crystals).terms["e_above_hull"]
    result = EnergyAboveHull(pair_potential, pair_hull, threshold=values[1])(crystals)
    assert result.success().tolist() == (values <= values[1]).tolist()


def test_total_is_clipped_and_the_term_is_not(pair_potential, pair_hull, crystals):
    result = EnergyAboveHull(pair_potential, pair_hull, clip=0.1)(crystals)
    assert result.total.min() == -0.1
    assert result.terms["e_above_hull"].max() > 0.5


def test_depth_below_the_hull_is_accepted_up_to_a_limit(pair_potential, pair_hull, crystals):
    def two_deeper_with_iron(atoms):
        total, failures = pair_energies(atoms)
        return Energies(total - [2.0 * len(a) * (26 in a.numbers) for a in atoms], failures)

    pair_energies, pair_potential.energies = pair_potential.energies, two_deeper_with_iron
    accepted = EnergyAboveHull(pair_potential, pair_hull)(crystals)
    limited = EnergyAboveHull(pair_potential, pair_hull, max_depth=0.2)(crystals)
    assert accepted.terms["e_above_hull"][-1] < -0.2
    assert limited.total[-1] == -10.0
    assert "eV/atom below the hull, accepted are up to 0.2" in limited.failures[-1]
    assert not limited.success()[-1]
    assert np.array_equal(limited.total[:-1], accepted.total[:-1])
    with pytest.raises(ValueError, match="max_depth must be a finite number above 0, got 0"):
        EnergyAboveHull(pair_potential, pair_hull, max_depth=0)


def test_screened_and_failing_crystals_get_the_floor_and_a_reason(reward, pair_potential, crystals):
    bad = [Crystal.from_string(string) for string in (DENSE, LITHIUM, GOLD)]
    result = reward([bad[0], *crystals, bad[1], bad[2]])
    alone = reward(crystals)
    np.testing.assert_array_equal(result.total[1:6], alone.total)
    assert result.total[[0, 6, 7]].tolist() == [-10, -10, -10]
    assert "apart" in result.failures[0] or "per atom" in result.failures[0]
    assert result.failures[6] == "the hull does not know Li"
    assert result.failures[7] == "no gold"
    assert result.terms["e_above_hull"][[0, 6, 7]].tolist() == [10, 10, 10]
    assert not result.success()[[0, 6, 7]].any()
    assert all(np.isfinite(values).all() for values in result.terms.values())
    assert pair_potential.seen == [6, 5]


def test_identical_crystals_are_computed_once(reward, pair_potential, crystals):
    repeated = CrystalBatch.concatenate([crystals, crystals[::-1], crystals[[2, 2]]])
    result = reward(repeated)
    assert pair_potential.seen == [5]
    np.testing.assert_array_equal(result.total, reward(crystals).total[[0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 2, 2]])


def test_order_of_crystals_is_kept(reward, crystals):
    crystals = CrystalBatch.from_crystals([*crystals, Crystal.from_string(DENSE), Crystal.from_string(GOLD)])
    order = np.random.default_rng(0).permutation(7)
    shuffled, straight = reward(crystals[order]), reward(crystals)
    np.testing.assert_array_equal(shuffled.total, straight.total[order])
    assert list(shuffled.failures) == list(straight.failures[order])
    for name, values in straight.terms.items():
        np.testing.assert_array_equal(shuffled.terms[name], values[order])


def test_empty_batch_and_crystal_without_atoms_are_scored(reward, crystals):
    empty = reward([])
    assert empty.total.shape == empty.failures.shape == (0,)
    assert set(empty.terms) == {"e_above_hull", "energy_per_atom", "success"}
    with_blank = reward(CrystalBatch.concatenate([CrystalBatch.empty(1), crystals]))
    assert with_blank.total[0] == -10
    np.testing.assert_array_equal(with_blank.total[1:], reward(crystals).total)


def test_only_screened_crystals_need_no_potential(reward, pair_potential):
    assert reward([Crystal.from_string(DENSE)]).total.tolist() == [-10]
    assert pair_potential.seen == []


def test_potential_that_gives_nan_without_a_reason_is_a_failure(pair_hull, pair_potential, crystals):
    energies = pair_potential.energies
    pair_potential.energies = lambda atoms: energies(atoms)._replace(total=np.full(len(atoms), np.nan))
    result = EnergyAboveHull(pair_potential, pair_hull)(crystals)
    assert list(result.failures) == ["the potential gave nan"] * 5


def test_energies_and_hull_on_different_scales_are_a_value_error(pair_potential, pair_hull):
    with pytest.raises(ValueError, match=r"'chgnet-0\.3\.0'.*'pair'"):
        EnergyAboveHull(pair_potential, "mp20-chgnet")
    with pytest.raises(ValueError, match=r"'pair'.*'chgnet-0\.3\.0'"):
        EnergyAboveHull("chgnet", pair_hull)
    with pytest.raises(ValueError, match="on one scale"):
        EnergyAboveHull("chgnet", ConvexHull.from_entries([("Na", 0.0)]))


def test_wrong_arguments_are_value_errors():
    with pytest.raises(ValueError, match="clip must be a finite number above 0, got 0"):
        EnergyAboveHull(clip=0)
    with pytest.raises(ValueError, match="potential must be"):
        EnergyAboveHull(potential="mace")
    with pytest.raises(ValueError, match="hull must be"):
        EnergyAboveHull(hull="nowhere")


def test_shipped_hull_and_chgnet_agree_with_the_labels_of_mp20(mp20, mp20_rows):
    result = EnergyAboveHull()(mp20)
    labels = mp20_rows["e_above_hull"].to_numpy(float)
    assert list(result.failures) == [None] * len(mp20)
    assert np.abs(result.terms["e_above_hull"] - labels).mean() < 0.025  # 0.011 on all of the validation set
    assert (result.success() == (labels <= 0.1)).mean() >= 0.9
    assert result.terms["e_above_hull"].min() > -1e-5  # all of them are entries of the hull


def test_exploding_crystals_do_not_change_the_others(mp20):
    reward = EnergyAboveHull(screen=Screen(min_distance=0, min_volume=0, min_thickness=0.1))
    general = "-".join(f"l-H-{x:.3f}-{y:.3f}-{z:.3f}" for x, y, z in np.random.default_rng(0).random((2, 3)) / 2)
    exploding = Crystal.from_string(f"229-{general}-X-2.5-2.5-2.5-90-90-90")
    argon = Crystal.from_string(ARGON)
    alone, together = reward(mp20[:6]), reward([exploding, *mp20[:3], argon, *mp20[3:6]])
    np.testing.assert_allclose(together.total[[1, 2, 3, 5, 6, 7]], alone.total, atol=1e-5)
    assert "too dense" in together.failures[0]
    assert together.failures[4] == "the hull does not know Ar"
    assert together.total[[0, 4]].tolist() == [-10, -10]


def test_copies_and_pickles_are_small_and_give_the_same_scores(crystals):
    reward = EnergyAboveHull()
    before = pickle.dumps(reward)
    expected = reward(crystals[:3])
    assert len(pickle.dumps(reward)) == len(before) < 1000
    for other in (copy.deepcopy(reward), pickle.loads(before)):
        np.testing.assert_allclose(other(crystals[:3]).total, expected.total, atol=1e-6)


def test_model_is_loaded_with_the_first_score_and_once_a_process(crystals):
    rewards.potentials.chgnet._load_model.cache_clear()
    made = [EnergyAboveHull() for _ in range(3)]
    assert rewards.potentials.chgnet._load_model.cache_info().currsize == 0
    for reward in made:
        reward(crystals[:1])
    assert rewards.potentials.chgnet._load_model.cache_info().misses == 1
