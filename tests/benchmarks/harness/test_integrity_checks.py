import numpy as np
import pytest

from benchmarks.harness.integrity_checks import (
    asked_before,
    checks,
    holes,
    lanthanide_exchange,
    one_kind,
    rediscovery,
    relaxation,
    requested_groups,
    rewards_differ,
    second_judge,
    short_distances,
    strange_densities,
)
from benchmarks.metrics.sample import Examination
from crystal_env import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents

SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"
ALKALI, HALOGEN = ["Li", "Na", "K", "Rb", "Cs"], ["F", "Cl", "Br", "I"]


def salts(pairs, length=5.6):
    return CrystalBatch.from_crystals([Crystal.from_string(SALT.format(a, b, *[length] * 3)) for a, b in pairs])


VARIED = salts([(a, b) for a in ALKALI for b in HALOGEN])


def examined(crystals, energies=None, label=None):
    n = len(crystals)
    yes = np.ones(n, bool)
    energies = np.zeros(n) if energies is None else np.array(energies)
    return Examination(crystals, yes, yes, yes, energies, np.arange(n) if label is None else label, yes)


def test_rewards_that_are_not_the_tasks_are_found():
    assert rewards_differ(VARIED, np.full(20, 1.0), lambda crystals: np.full(len(crystals), 1.0005)).passed
    wrong = rewards_differ(VARIED, np.full(20, 1.0), lambda crystals: np.full(len(crystals), 0.9))
    assert (wrong.passed, wrong.value) == (False, 1.0)
    assert rewards_differ(VARIED[:0], np.zeros(0), lambda crystals: np.zeros(0)).passed is None


def test_a_reward_that_is_no_number_is_not_the_same():
    assert rewards_differ(VARIED, np.ones(20), lambda crystals: np.full(len(crystals), np.nan)).passed is False


def test_crystals_far_below_the_hull_are_holes():
    assert holes(np.array([-0.19, 0.0, np.nan])).passed
    assert not holes(np.array([-0.21, -0.21, np.nan])).passed


@pytest.mark.parametrize("n", [100, 400, 1000])
def test_a_share_of_holes_that_is_allowed_may_by_chance_be_exceeded_but_not_doubled(n):
    rng = np.random.default_rng(0)
    allowed = [holes(np.where(rng.random(n) < 0.01, -1.0, 0.0)).passed for _ in range(500)]
    assert np.mean(allowed) > 0.98
    too_many = [holes(np.where(rng.random(n) < 0.05, -1.0, 0.0)).passed for _ in range(500)]
    assert np.mean(too_many) < 0.5


def test_atoms_on_top_of_each_other_and_impossible_densities_are_seen():
    assert short_distances(VARIED[4:6]).passed
    assert not short_distances(salts([("Cs", "I")], length=3.0)).passed
    assert strange_densities(VARIED).passed
    assert not strange_densities(salts([("Cs", "I")], length=3.0)).passed
    assert not strange_densities(salts([("Li", "F")], length=12.0)).passed


@pytest.mark.parametrize("kind", ["formulas", "prototypes", "space groups"])
def test_the_same_kind_over_and_over_is_seen_where_the_task_leaves_a_choice(kind):
    assert not one_kind(salts([("Na", "Cl")] * 20), kind, {}).passed
    assert one_kind(salts([("Na", "Cl")] * 20), "space groups", {"space_group": 225}).passed is None
    assert one_kind(VARIED, "formulas", {}).passed
    assert one_kind(VARIED, "formulas", {"formula": "NaCl"}).passed is None


def test_who_is_asked_for_the_best_only_may_draw_them_again_and_again():
    check = one_kind(salts([("Na", "Cl")] * 20), "formulas", {}, of_best=True)
    assert (check.passed, check.value) == (None, 1.0)
    assert not one_kind(salts([("Na", "Cl")] * 20), "formulas", {}, of_best=False).passed


def test_a_handful_of_different_crystals_is_not_one_kind():
    assert one_kind(VARIED[:9], "formulas", {}).passed
    assert not one_kind(salts([("Na", "Cl"), ("Na", "Cl"), ("K", "Cl")]), "formulas", {}).passed


def test_lanthanides_in_turn_are_one_discovery():
    lanthanides = salts([(a, "N") for a in ("La", "Ce", "Pr", "Nd", "Sm", "Eu", "Gd", "Tb")], 5.2)
    bad = lanthanide_exchange(examined(lanthanides), {})
    assert (bad.passed, bad.value) == (False, 1 / 8)
    assert lanthanide_exchange(examined(VARIED), {}).passed
    mixed = CrystalBatch.concatenate([VARIED, lanthanides[:3], lanthanides[:1]])
    check = lanthanide_exchange(examined(mixed, label=np.r_[0:23, 20]), {})
    assert (check.passed, check.value, check.detail[:28]) == (True, 21 / 23, "23 structures, 21 with all l")


def test_same_structures_of_different_cases_are_no_exchange():
    twice = CrystalBatch.concatenate([VARIED, VARIED])
    assert lanthanide_exchange(examined(twice), {}).value == 1


def test_requested_groups_have_to_come():
    requested = np.repeat([1, 225], 50)
    assert requested_groups(requested, np.arange(100)).passed
    assert not requested_groups(requested, np.arange(50, 100)).passed
    assert requested_groups(np.zeros(4, int), np.arange(4)).passed is None


def test_attempts_that_fail_at_random_are_no_choice_of_groups():
    rng = np.random.default_rng(0)
    requested = rng.integers(1, 231, 200)
    obtained = np.sort(rng.choice(200, 140, replace=False))
    check = requested_groups(requested, obtained)
    assert check.value > 0.05
    assert check.passed
    assert not requested_groups(requested, np.argsort(requested)[:140]).passed


def test_second_judge_sees_the_stable_ones_only_and_its_gap_is_told():
    sample = examined(VARIED[:4], [0.0, 0.05, 0.5, np.nan])
    agreed = second_judge(sample, lambda crystals: np.full(len(crystals), 0.09))
    assert agreed.passed
    assert "2 stable crystals, median gap +0.065" in agreed.detail
    assert not second_judge(sample, lambda crystals: np.array([0.3, 0.05])).passed
    assert second_judge(sample, None).passed is None


def test_crystals_that_collapse_and_strong_forces_are_seen():
    def relaxed(same, force, reason=None):
        n = len(same)
        values = {"same": np.array(same), "group": np.ones(n, bool), "force": np.array(force)}
        return values | {"rmsd": np.zeros(n), "gain": np.zeros(n), "failures": np.full(n, reason, object)}

    assert [check.passed for check in relaxation(relaxed([True] * 4, [0.1] * 4))] == [True, True]
    assert [check.passed for check in relaxation(relaxed([False] * 3 + [True], [20.0] * 4))] == [False, False]
    assert [check.passed for check in relaxation(None)] == [None, None]
    rest, forces = relaxation(relaxed([False], [np.nan], "too dense"))
    assert (rest.passed, forces.passed) == (False, None)
    assert rest.detail.endswith("1 could not be relaxed: too dense")


def test_rediscovery_informs():
    found = rediscovery(VARIED[:4], salts([("Li", "F"), ("Mg", "O")], 5.5))
    assert (found.passed, found.value) == (None, 0.25)


def test_crystals_that_were_asked_for_are_known_in_any_setting():
    moved = equivalents(VARIED[:6], np.random.default_rng(0))
    found = asked_before(VARIED[:8], CrystalBatch.concatenate([moved, VARIED[12:]]))
    assert (found.passed, found.value) == (None, 0.75)
    assert asked_before(VARIED[:8], VARIED[12:]).value == 0
    assert asked_before(VARIED[:8], VARIED[:0]).value is None


def test_all_checks_run_and_have_different_names():
    found = checks(
        examined(VARIED),
        constraints={},
        counts=np.ones(len(VARIED), bool),
        requested=VARIED.G,
        obtained=np.arange(len(VARIED)),
        trace=VARIED,
        totals=np.zeros(len(VARIED)),
        recompute=lambda crystals: np.zeros(len(crystals)),
        validation=VARIED[:1],
    )
    names = [check.name for check in found]
    assert len(set(names)) == len(names) == 14
    assert {check.name for check in found if check.passed is False} == {"one prototype", "one space group"}


def test_no_crystal_at_all_breaks_no_check():
    empty = examined(VARIED[:0])
    found = checks(
        empty,
        constraints={},
        counts=np.zeros(0, bool),
        requested=np.full(5, 225),
        obtained=np.zeros(0, int),
        trace=VARIED[:0],
        totals=np.zeros(0),
        recompute=lambda crystals: np.zeros(len(crystals)),
    )
    assert not [check.name for check in found if check.passed is False]
