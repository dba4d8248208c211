"""The S.U.N. reward against its closed form, and against the rewards that it can be put together from."""

import copy
import json
import math
import pickle

import numpy as np
import pytest

import rewards
from benchmarks.tasks import Oracle
from crystal_env import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents
from crystal_env.reward import RewardResult, Scorer, resolve_reward, stateful_parts
from rewards.novelty import Novelty
from rewards.sun import SUN
from rewards.testing.reward import garbage

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
CESIUM = "221-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
PAIRS = [(metal, halide) for metal in ("Li", "Na", "K", "Rb") for halide in ("Cl", "Br")]


def batch(*texts):
    return CrystalBatch.from_crystals(Crystal.from_string(text) for text in texts)


def salt(*energies, elements=PAIRS):
    """Rock salts of different elements, whose `axis` energies are these."""
    return batch(*(SALT.format(*pair, 6 + e) for pair, e in zip(elements, energies, strict=False)))


def axis(crystals):
    """An energy above the hull that is the axis a less 6 Å; fluorine cannot be scored."""
    values = crystals.L[:, 0] - 6
    failures = np.where((crystals.A == 9).any(1), "no fluorine", None)
    return RewardResult(-values, {"e_above_hull": values, "pressure": values**2}, failures)


def logistic(energy, threshold=0.1, width=0.05):
    return 1 / (1 + math.exp((energy - threshold) / width))


def free(**arguments):
    """The reward with `axis`, without a reference unless it is given."""
    return SUN(**{"energy": axis, "reference": None, "max_depth": None} | arguments)


@pytest.fixture
def mixed() -> CrystalBatch:
    """Sixty crystals of 18 keys from -0.4 to 0.4 eV/atom, a third of which fail, in arbitrary settings."""
    rng, pairs = np.random.default_rng(3), [*PAIRS[:6], ("Li", "F"), ("Na", "F"), ("K", "F")]
    texts = [rng.choice([SALT, CESIUM]).format(*pairs[rng.integers(9)], 6 + rng.uniform(-0.4, 0.4)) for _ in range(60)]
    return equivalents(batch(*texts), rng)


@pytest.mark.parametrize(("threshold", "width"), [(0.1, 0.05), (0.0, 0.2), (-0.05, 0.01)])
def test_stability_is_the_logistic_of_the_energy(threshold, width):
    energies = [-0.3, -0.0501, -1e-9, 0.0999, 0.1001, 0.25, 0.7]
    result = free(threshold=threshold, width=width)(salt(*energies))
    expected = [logistic(e, threshold, width) for e in energies]
    np.testing.assert_allclose(result.total, expected, rtol=1e-10)
    np.testing.assert_array_equal(result.terms["stability"], result.total)
    np.testing.assert_array_equal(result.success(), np.array(energies) <= threshold)
    np.testing.assert_allclose(result.terms["e_above_hull"], energies, atol=1e-12)
    np.testing.assert_allclose(result.terms["pressure"], np.square(energies), atol=1e-12)


def test_both_tails_are_exact_and_finite():
    found = free(threshold=0.0, width=1e-3).stability(np.array([-1e300, -1.0, 0.0, 0.5, 1.0, 1e308]))
    np.testing.assert_allclose(found, [1, 1, 0.5, math.exp(-500), 0, 0], rtol=1e-12)


@pytest.mark.parametrize(("known", "repeated"), [(0.3, 0.0), (0.0, 1.0), (1.0, 0.25)])
def test_total_is_the_product_of_three_factors(known, repeated):
    crystals = salt(0.0, 0.0, 0.05, 0.0, 0.05, elements=[PAIRS[i] for i in (0, 1, 0, 0, 1)])
    result = free(reference=crystals[:1], known=known, repeated=repeated)(crystals)
    novel, first = np.array([0, 1, 0, 0, 1]), np.array([1, 1, 0, 0, 0])
    np.testing.assert_array_equal(result.terms["novel"], novel)
    np.testing.assert_array_equal(result.terms["first_seen"], first)
    np.testing.assert_array_equal(result.terms["success"], novel * first)
    weights = np.where(novel, 1, known) * np.where(first, 1, repeated)
    expected = weights * [logistic(e) for e in (0, 0, 0.05, 0, 0.05)]
    np.testing.assert_allclose(result.total, expected, rtol=1e-10)


def test_one_by_one_it_is_the_recipe_of_combinators(mixed):
    reference, half = mixed[:4], 1.25 * math.log(10) * 0.05
    stable = rewards.Sigmoid(axis, 0.1 + half, 0.1 - half, of="e_above_hull")
    both = rewards.WeightedProduct({"stable": stable, "novel": Novelty(reference)})  # the geometric mean
    recipe = rewards.Diversity(both, "structure", free=0, full=1)
    reward = free(reference=reference, known=0.0)
    found = np.concatenate([reward([crystal]).total for crystal in mixed])
    expected = np.concatenate([recipe([crystal]).total for crystal in mixed]) ** 2
    assert 4 < np.count_nonzero(expected) < 12
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("size", [1_000_000, 4])
def test_division_into_batches_changes_nothing(mixed, size):
    expected = free(reference=mixed[:9], size=size)(mixed)
    assert 5 < expected.terms["first_seen"].sum() < 55
    rng = np.random.default_rng(0)
    for _ in range(5):
        reward, cuts = free(reference=mixed[:9], size=size), np.sort(rng.integers(61, size=6))
        parts = [reward(mixed[start:stop]) for start, stop in zip([0, *cuts], [*cuts, 60], strict=True)]
        joined = RewardResult.concatenate(parts, 0.0)
        np.testing.assert_array_equal(joined.total, expected.total)
        np.testing.assert_array_equal(joined.failures, expected.failures)
        for name, values in expected.terms.items():
            np.testing.assert_array_equal(joined.terms[name], values)


def test_only_the_first_of_a_key_depends_on_the_order(mixed):
    whole, order = free(repeated=0.5)(mixed), np.random.default_rng(1).permutation(60)
    shuffled, back = free(repeated=0.5)(mixed[order]), np.argsort(order)
    for name in ("stability", "novel", "e_above_hull"):
        np.testing.assert_array_equal(shuffled.terms[name][back], whole.terms[name])
    assert shuffled.terms["first_seen"].sum() == whole.terms["first_seen"].sum()
    keys = {crystal.key() for crystal, scored in zip(mixed, whole.scored, strict=True) if scored}
    assert whole.terms["first_seen"].sum() == len(keys)


def test_failures_get_nothing_and_are_not_remembered():
    fails = {"on": True}

    def sometimes(crystals):
        result = axis(crystals)
        return result._replace(failures=np.where(fails["on"], "out of order", result.failures))

    reward = free(energy=sometimes)
    result = reward(salt(0, 0.05))
    assert result.failures.tolist() == ["out of order"] * 2
    for name in ("stability", "novel", "first_seen", "success"):
        assert result.terms[name].tolist() == [0, 0]
    assert result.terms["e_above_hull"].tolist() == [10, 10]
    assert result.total.tolist() == [0, 0]
    assert reward.state_dict() == {"seen": []}
    fails["on"] = False
    assert reward(salt(0, 0.05)).terms["first_seen"].tolist() == [1, 1]


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_energies_that_are_no_numbers_are_failures(value):
    def broken(crystals):
        result = axis(crystals)
        result.terms["e_above_hull"][0] = value
        return result

    result = free(energy=broken)(salt(0, 0.05))
    assert result.failures.tolist() == [f"e_above_hull is {value}", None]
    assert result.total[0] == 0
    assert result.total[1] > 0
    assert not result.success()[0]
    assert all(np.isfinite(values).all() for values in result.terms.values())


def test_an_energy_that_raises_for_one_crystal_spares_the_others():
    def picky(crystals):
        if (crystals.A == 9).any():
            raise RuntimeError("no fluorine")
        return axis(crystals)

    with pytest.warns(RuntimeWarning, match="no fluorine"):
        result = free(energy=picky)(salt(0, 0, 0, elements=[("K", "F"), *PAIRS]))
    assert result.failures.tolist() == ["RuntimeError: no fluorine", None, None]
    assert (result.total > 0).tolist() == [False, True, True]


def test_garbage_that_an_energy_accepts_is_scored():
    unphysical = garbage()[:11]
    result = free(energy=axis, reference=unphysical[:8])(unphysical)
    assert set(result.failures) == {None}
    assert all(np.isfinite(values).all() for values in result.terms.values())
    assert ((result.total >= 0) & (result.total <= 1)).all()


def test_below_hull_outliers_are_failures_of_any_energy():
    crystals = salt(-0.21, -0.19)
    result = free(max_depth=0.2)(crystals)
    assert result.failures.tolist() == ["0.21 eV/atom below the hull, accepted are up to 0.2", None]
    assert result.terms["e_above_hull"][0] == 10
    assert not result.success()[0]
    assert result.total[0] == result.terms["first_seen"][0] == 0
    assert free()(crystals).failures.tolist() == [None, None]


def test_an_energy_without_the_term_is_refused():
    with pytest.raises(ValueError, match=r"energy must be a reward with the term e_above_hull, it has \['density'"):
        free(energy=rewards.Density())(salt(0))


def test_by_default_the_energy_is_that_of_potential_and_hull(crystals, pair_potential, pair_hull):
    energy = rewards.EnergyAboveHull(pair_potential, pair_hull, max_depth=0.2)
    result, plain = SUN(pair_potential, pair_hull, reference=None)(crystals), energy(crystals)
    assert set(plain.scored) == {True}
    for name in ("e_above_hull", "energy_per_atom"):
        np.testing.assert_array_equal(result.terms[name], plain.terms[name])
    expected = free(energy=energy)(crystals)
    np.testing.assert_array_equal(result.total, expected.total)
    gold = batch(SALT.format("Au", "Cl", 5.6))
    assert SUN(pair_potential, pair_hull, reference=None)(gold).failures.tolist() == ["no gold"]


def test_limits_of_the_screen_reach_the_energy(crystals, pair_potential, pair_hull):
    reward = SUN(pair_potential, pair_hull, reference=None, screen=rewards.Screen(max_atoms=2))
    assert reward(crystals).scored.tolist() == [True, False, False, False, True]


def test_references_of_all_kinds_give_the_same(tmp_path, mixed):
    mixed[:20].save(tmp_path / "known.npz")
    expected = free(reference=mixed[:20])(mixed)
    scored = expected.scored
    np.testing.assert_array_equal(expected.terms["novel"][scored], Novelty(mixed[:20])(mixed).total[scored])
    assert 3 < expected.terms["novel"].sum() < scored.sum() - 3
    for reference in (tmp_path / "known.npz", str(tmp_path / "known.npz")):
        np.testing.assert_array_equal(free(reference=reference)(mixed).total, expected.total)
    np.testing.assert_array_equal(free(reference=mixed[:20], n_jobs=2)(mixed).total, expected.total)
    np.testing.assert_array_equal(free(reference=None)(mixed).terms["novel"], scored)


def test_a_hopeless_crystal_is_known_by_its_formula():
    limit = 0.1 + 0.05 * math.log(999)  # where the stability is 0.001
    crystals = salt(limit - 1e-6, limit + 1e-6, limit + 1e-6)
    reference = batch(*(CESIUM.format(*pair, 3.5) for pair in PAIRS[:2]))
    result = free(reference=reference)(crystals)
    assert result.terms["novel"].tolist() == [1, 0, 1]
    np.testing.assert_allclose(result.total, np.array([1, 0.3, 1]) * 0.001, rtol=1e-4)


def test_memory_is_bounded_and_the_oldest_is_forgotten_first():
    reward = free(size=2)
    one, two, three = (salt(0, elements=[pair]) for pair in PAIRS[:3])
    seen = [bool(reward(crystals).terms["first_seen"][0]) for crystals in (one, two, one, three, two, one, three)]
    assert seen == [True, True, False, True, True, True, True]
    assert len(reward.state_dict()["seen"]) == 2
    small = free(size=1)
    small.load_state_dict(reward.state_dict())
    assert small.state_dict() == {"seen": reward.state_dict()["seen"][1:]}


def test_a_restored_memory_resumes_where_it_was_saved(mixed):
    reward = free(reference=mixed[:9], size=6)
    reward(mixed[:30])
    restored = free(reference=mixed[:9], size=6)
    restored.load_state_dict(json.loads(json.dumps(reward.state_dict())))
    copies = [restored, pickle.loads(pickle.dumps(reward)), copy.deepcopy(reward)]
    expected = reward(mixed[30:])
    assert expected.terms["first_seen"].sum() < expected.scored.sum()
    for other in copies:
        np.testing.assert_array_equal(other(mixed[30:]).total, expected.total)
        assert other.state_dict() == reward.state_dict()


def test_an_agent_finds_the_memory_and_that_of_its_energy():
    reward = free(energy=rewards.Metered(axis))
    found = stateful_parts(Scorer(reward, 0.0))
    assert found == {"reward": reward, "reward.scorer.reward": reward.scorer.reward}
    with pytest.raises(ValueError, match=r"state must be that of a SUN reward.*got \['calls'"):
        reward.load_state_dict(found["reward.scorer.reward"].state_dict())


def test_a_metered_oracle_is_an_energy_until_its_budget_is_spent(crystals):
    oracle = Oracle("stability", budget=3)
    reward = SUN(energy=oracle, reference=None)
    first, second = reward(crystals[:2]), reward(crystals)
    np.testing.assert_array_equal(first.terms["first_seen"], [1, 1])
    np.testing.assert_array_equal(second.terms["first_seen"], [0, 0, 1, 0, 0])
    assert second.failures.tolist() == [None] * 3 + ["the budget of 3 calls is spent"] * 2
    assert second.total[3:].tolist() == [0, 0]
    assert second.terms["e_above_hull"][3:].tolist() == [10, 10]
    expected = SUN(reference=None)(crystals[:3])
    np.testing.assert_allclose(np.append(first.total, second.total[2]), expected.total, rtol=1e-4)
    assert len(reward.state_dict()["seen"]) == oracle.calls == 3
    spent = SUN(energy=Oracle("stability", budget=0), reference=None)(crystals)
    assert spent.total.tolist() == [0] * 5
    assert sorted(spent.terms) == ["e_above_hull", "first_seen", "novel", "stability", "success"]


def test_it_is_made_from_the_words_of_a_command(crystals):
    words = json.loads('{"energy": "rewards:EnergyAboveHull", "reference": null, "known": 0.1}')
    reward = resolve_reward("rewards:SUN", words)
    np.testing.assert_array_equal(reward(crystals).total, SUN(reference=None)(crystals).total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"known": 1.5}, "known must be a finite number of at least 0 and at most 1, got 1.5"),
        ({"repeated": 1.01}, "repeated must be a finite number of at least 0 and at most 1, got 1.01"),
        ({"width": 0}, "width must be a finite number above 0, got 0"),
        ({"size": 0}, "size must be an integer of at least 1, got 0"),
        ({"n_jobs": 0}, "n_jobs must be an integer of at least 1, got 0"),
        ({"energy": "nothing"}, "reward must be a callable"),
        ({"energy": axis, "screen": rewards.Screen()}, "screen must be None where energy is given"),
        ({"reference": "nowhere.npz"}, "reference must be crystals, .* there is no 'nowhere.npz'"),
    ],
)
def test_wrong_arguments_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        SUN(**{"reference": None} | arguments)
