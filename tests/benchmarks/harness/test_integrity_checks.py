import numpy as np
import pytest

from benchmarks.harness.integrity_checks import (
    below_hull_outliers,
    cross_checked,
    implausible_densities,
    integrity_checks,
    lanthanide_exchange,
    local_minima,
    one_kind,
    previously_queried,
    rediscovery,
    requested_groups,
    rewards_differ,
    short_distances,
)
from benchmarks.metrics.labels import CHECKS
from benchmarks.metrics.relaxation import RelaxedSamples
from benchmarks.metrics.sample import SampleMetrics
from benchmarks.samples.samples import Failure, Outside, Samples
from crystal_env import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents

SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"
ALKALI, HALOGEN = ["Li", "Na", "K", "Rb", "Cs"], ["F", "Cl", "Br", "I"]


def salts(pairs, length=5.6):
    return CrystalBatch.from_crystals([Crystal.from_string(SALT.format(a, b, *[length] * 3)) for a, b in pairs])


def samples(pairs, length=5.6):
    return Samples.from_crystals(salts(pairs, length))


VARIED = salts([(a, b) for a in ALKALI for b in HALOGEN])
OF_VARIED = Samples.from_crystals(VARIED, requested=VARIED.G)


def metrics_of(crystals, energies=None, label=None):
    sample = crystals if isinstance(crystals, Samples) else Samples.from_crystals(crystals)
    n = len(sample)
    yes, groups = np.ones(n, bool), np.full(n, 225)
    energies = np.zeros(n) if energies is None else np.array(energies, float)
    return SampleMetrics(sample, yes, yes, groups, energies, np.arange(n) if label is None else label, yes)


def attempts(requested, succeeded):
    """Return samples of which some attempts gave rock salt and the others failed."""
    items = [VARIED[0] if row in set(succeeded) else Failure("no crystal") for row in range(len(requested))]
    return Samples.from_items(items, requested=requested)


def test_rewards_that_are_not_the_tasks_are_found():
    assert rewards_differ(VARIED, np.full(20, 1.0), lambda crystals: np.full(len(crystals), 1.0005)).passed
    wrong = rewards_differ(VARIED, np.full(20, 1.0), lambda crystals: np.full(len(crystals), 0.9))
    assert (wrong.passed, wrong.value) == (False, 1.0)
    assert rewards_differ(VARIED[:0], np.zeros(0), lambda crystals: np.zeros(0)).passed is None


def test_a_reward_that_is_no_number_is_not_the_same():
    assert rewards_differ(VARIED, np.ones(20), lambda crystals: np.full(len(crystals), np.nan)).passed is False


def test_crystals_far_below_the_hull_are_outliers():
    assert below_hull_outliers(np.array([-0.19, 0.0, np.nan])).passed
    assert not below_hull_outliers(np.array([-0.21, -0.21, np.nan])).passed


@pytest.mark.parametrize("n", [100, 400, 1000])
def test_outliers_may_by_chance_be_more_than_allowed_not_many_more(n):
    rng = np.random.default_rng(0)
    allowed = [below_hull_outliers(np.where(rng.random(n) < 0.01, -1.0, 0.0)).passed for _ in range(500)]
    assert np.mean(allowed) > 0.98
    too_many = [below_hull_outliers(np.where(rng.random(n) < 0.05, -1.0, 0.0)).passed for _ in range(500)]
    assert np.mean(too_many) < 0.5


def test_atoms_on_top_of_each_other_and_impossible_densities_are_seen():
    assert short_distances(Samples.from_crystals(VARIED[4:6])).passed
    assert not short_distances(samples([("Cs", "I")], length=3.0)).passed
    assert implausible_densities(OF_VARIED).passed
    assert not implausible_densities(samples([("Cs", "I")], length=3.0)).passed
    assert not implausible_densities(samples([("Li", "F")], length=12.0)).passed


@pytest.mark.parametrize("kind", ["formula", "template", "space_group"])
def test_one_kind_fails_where_the_task_leaves_a_choice(kind):
    assert not one_kind(samples([("Na", "Cl")] * 20), kind, {}).passed
    assert one_kind(samples([("Na", "Cl")] * 20), "space_group", {"space_group": 225}).passed is None
    assert one_kind(OF_VARIED, "formula", {}).passed
    assert one_kind(OF_VARIED, "formula", {"formula": "NaCl"}).passed is None


def test_an_agent_scored_by_its_best_may_repeat_them():
    check = one_kind(samples([("Na", "Cl")] * 20), "formula", {}, of_best=True)
    assert (check.passed, check.value) == (None, 1.0)
    assert not one_kind(samples([("Na", "Cl")] * 20), "formula", {}, of_best=False).passed


def test_a_handful_of_different_crystals_is_not_one_kind():
    assert one_kind(OF_VARIED.first(9), "formula", {}).passed
    assert not one_kind(samples([("Na", "Cl"), ("Na", "Cl"), ("K", "Cl")]), "formula", {}).passed


def test_lanthanides_in_turn_are_one_discovery():
    lanthanides = salts([(a, "N") for a in ("La", "Ce", "Pr", "Nd", "Sm", "Eu", "Gd", "Tb")], 5.2)
    bad = lanthanide_exchange(metrics_of(lanthanides), {})
    assert (bad.passed, bad.value) == (False, 1 / 8)
    assert lanthanide_exchange(metrics_of(VARIED), {}).passed
    mixed = CrystalBatch.concatenate([VARIED, lanthanides[:3], lanthanides[:1]])
    check = lanthanide_exchange(metrics_of(mixed, label=np.r_[0:23, 20]), {})
    assert (check.passed, check.value, check.detail[:28]) == (True, 21 / 23, "23 structures, 21 with all l")


def test_same_structures_of_different_cases_are_no_exchange():
    twice = CrystalBatch.concatenate([VARIED, VARIED])
    assert lanthanide_exchange(metrics_of(twice), {}).value == 1


def test_requested_groups_have_to_come():
    requested = np.repeat([1, 225], 50)
    assert requested_groups(attempts(requested, range(100))).passed
    assert not requested_groups(attempts(requested, range(50, 100))).passed
    assert requested_groups(attempts(np.zeros(4, int), range(4))).passed is None


def test_attempts_that_fail_at_random_are_no_choice_of_groups():
    rng = np.random.default_rng(0)
    requested = rng.integers(1, 231, 200)
    check = requested_groups(attempts(requested, rng.choice(200, 140, replace=False).tolist()))
    assert check.value > 0.05
    assert check.passed
    assert not requested_groups(attempts(requested, np.argsort(requested)[:140].tolist())).passed


def test_cross_check_is_of_the_stable_ones_and_tells_the_gap():
    metrics = metrics_of(VARIED[:4], [0.0, 0.05, 0.5, np.nan])
    agreed = cross_checked(metrics, lambda stable: np.full(len(stable), 0.09))
    assert agreed.passed
    assert "2 stable crystals, median gap +0.065" in agreed.detail
    assert not cross_checked(metrics, lambda stable: np.array([0.3, 0.05])).passed
    assert cross_checked(metrics, None).passed is None


def test_crystals_that_collapse_and_strong_forces_are_seen():
    def relaxed(same, force, reason=None):
        n = len(same)
        same, force, zeros = np.array(same), np.array(force, float), np.zeros(n)
        reasons = np.full(n, reason, object)
        sample = Samples.from_crystals(VARIED[:n])
        return RelaxedSamples(sample, reasons, zeros, zeros, zeros, same, np.ones(n, bool), force)

    assert [check.passed for check in local_minima(relaxed([True] * 4, [0.1] * 4))] == [True, True]
    assert [check.passed for check in local_minima(relaxed([False] * 3 + [True], [20.0] * 4))] == [False, False]
    assert [check.passed for check in local_minima(None)] == [None, None]
    minimum, forces = local_minima(relaxed([False], [np.nan], "too dense"))
    assert (minimum.passed, forces.passed) == (False, None)
    assert minimum.detail.endswith("1 could not be relaxed: too dense")


def test_rediscovery_informs():
    found = rediscovery(OF_VARIED.first(4), salts([("Li", "F"), ("Mg", "O")], 5.5))
    assert (found.passed, found.value) == (None, 0.25)


def test_queried_crystals_are_known_in_any_setting():
    moved = equivalents(VARIED[:6], np.random.default_rng(0))
    found = previously_queried(OF_VARIED.first(8), CrystalBatch.concatenate([moved, VARIED[12:]]))
    assert (found.passed, found.value) == (None, 0.75)
    assert previously_queried(OF_VARIED.first(8), VARIED[12:]).value == 0
    assert previously_queried(OF_VARIED.first(8), VARIED[:0]).value is None


def test_all_checks_run_and_have_different_names():
    found = integrity_checks(
        metrics_of(OF_VARIED),
        constraints={},
        counted=np.ones(len(VARIED), bool),
        trace=VARIED,
        totals=np.zeros(len(VARIED)),
        recompute=lambda crystals: np.zeros(len(crystals)),
        validation=VARIED[:1],
    )
    names = [check.name for check in found]
    assert len(set(names)) == len(names) == 14
    assert set(names) == set(CHECKS)
    assert {check.name for check in found if check.passed is False} == {"one_template", "one_space_group"}


def test_no_crystal_at_all_breaks_no_check():
    empty = metrics_of(attempts(np.full(5, 225), []))
    found = integrity_checks(
        empty,
        constraints={},
        counted=np.zeros(0, bool),
        trace=VARIED[:0],
        totals=np.zeros(0),
        recompute=lambda crystals: np.zeros(len(crystals)),
    )
    assert not [check.name for check in found if check.passed is False]


def test_structures_outside_the_representation_are_checked_too():
    squeezed = salts([("Cs", "I")], length=3.0)[0].to_structure()
    outside = Samples.from_items([Outside(squeezed, "too many sites")])
    assert not short_distances(outside).passed
    assert not implausible_densities(outside).passed
    assert rediscovery(outside, salts([("Cs", "I")])).value == 1
    assert previously_queried(outside, VARIED).value is None
