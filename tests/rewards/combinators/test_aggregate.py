"""Combinations against plain arithmetic and scipy, and gates against asking everybody."""

import numpy as np
import pytest
from scipy.stats import gmean

from crystal_env.reward import RewardResult
from rewards.combinators.aggregate import Combination, Gate, Minimum, WeightedProduct, WeightedSum
from rewards.density import Density
from rewards.validity import Validity

COMBINATIONS = [WeightedSum, WeightedProduct, Minimum]


def volume(crystals):
    return crystals.volume_per_atom() / 30


def group(crystals):
    return crystals.G / 230


def no_iron(crystals):
    if 26 in crystals.A:
        raise RuntimeError("rust")
    return np.ones(len(crystals))


def not_a_number(crystals):
    return np.where(crystals.G == 186, np.nan, 0.5)


def test_sum_product_and_minimum_are_those_of_the_parts(crystals):
    x, y = volume(crystals), group(crystals)
    parts = {"x": (2.0, volume), "y": (0.5, group)}
    np.testing.assert_allclose(WeightedSum(parts)(crystals).total, 2 * x + 0.5 * y)
    np.testing.assert_allclose(Minimum(parts)(crystals).total, np.minimum(2 * x, 0.5 * y))
    expected = gmean(np.stack([x, y]), axis=0, weights=np.array([[2.0], [0.5]]))
    np.testing.assert_allclose(WeightedProduct(parts)(crystals).total, expected)


def test_weights_are_one_by_default_and_rewards_may_be_named(crystals):
    named = WeightedSum({"valid": "rewards:Validity", "group": group})
    np.testing.assert_allclose(named(crystals).total, Validity()(crystals).total + group(crystals))


def test_one_zero_makes_a_product_zero(crystals):
    result = WeightedProduct({"x": volume, "none": lambda crystals: np.zeros(len(crystals))})(crystals)
    assert result.total.tolist() == [0.0] * 5
    assert set(result.failures) == {None}


def test_all_terms_stay_visible_under_the_names_of_their_parts(crystals):
    inner = WeightedSum({"density": Density(), "valid": Validity()})
    result = Minimum({"inner": inner, "density": Density()})(crystals)
    density = Density()(crystals).terms["density"]
    np.testing.assert_array_equal(result.terms["density/density"], density)
    np.testing.assert_array_equal(result.terms["inner/density/density"], density)
    np.testing.assert_array_equal(result.terms["inner/valid"], Validity()(crystals).total)
    np.testing.assert_array_equal(result.terms["inner"], inner(crystals).total)


def test_a_combination_succeeds_where_all_parts_do(crystals):
    density, valid = Density(target=5.0, tolerance=1.0), Validity(min_distance=1.96)
    result = WeightedSum({"density": density, "valid": valid})(crystals)
    both = density(crystals).success() & valid(crystals).success()
    np.testing.assert_array_equal(result.success(), both)
    assert 0 < both.sum() < density(crystals).success().sum()


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_part_that_fails_gives_the_floor_and_its_name(combination, crystals):
    alone = combination({"x": volume, "y": lambda crystals: np.ones(len(crystals))}, floor=-3.0)(crystals)
    for part, row, reason in ((no_iron, 4, "y: RuntimeError: rust"), (not_a_number, 2, "y: the reward is nan")):
        result = combination({"x": volume, "y": part}, floor=-3.0)(crystals)
        others = np.delete(np.arange(5), row)
        assert result.total[row] == -3.0
        assert result.failures[row] == reason
        assert result.success().tolist() == [other != row for other in range(5)]
        assert [result.failures[other] for other in others] == [None] * 4
        if part is no_iron:
            np.testing.assert_array_equal(result.total[others], alone.total[others])


def test_products_refuse_negative_parts_by_name(crystals):
    result = WeightedProduct({"x": volume, "density": Density(target=2.2)})(crystals)
    assert result.total.tolist() == [0.0] * 5
    assert result.failures[4].startswith("density: -5.65, allowed is at least 0")


def test_what_overflows_is_a_failure(crystals):
    huge = WeightedSum({"x": (1e300, lambda crystals: np.full(len(crystals), 1e300))})(crystals)
    assert huge.total.tolist() == [-10.0] * 5
    assert huge.failures[0] == "the result is inf"
    assert not huge.success().any()


class Expensive:
    """A reward that records its queries."""

    def __init__(self):
        self.queried = []

    def __call__(self, crystals):
        self.queried += [crystal.formula for crystal in crystals]
        return RewardResult(volume(crystals), {"volume": volume(crystals)}, np.full(len(crystals), None, object))


def test_behind_a_gate_only_what_passes_is_scored(crystals):
    expensive, condition = Expensive(), Density(target=5.0, tolerance=1.0)
    result = Gate(condition, expensive, floor=-2.0)(crystals)
    passed = condition(crystals).success()
    assert 0 < passed.sum() < 5
    assert expensive.queried == [crystal.formula for crystal, good in zip(crystals, passed, strict=True) if good]
    np.testing.assert_array_equal(result.total, np.where(passed, volume(crystals), -2.0))
    np.testing.assert_array_equal(result.terms["volume"], np.where(passed, volume(crystals), -2.0))
    np.testing.assert_array_equal(result.terms["gate/density"], condition(crystals).terms["density"])
    np.testing.assert_array_equal(result.terms["gate"], condition(crystals).total)
    np.testing.assert_array_equal(result.success(), passed)
    assert [failure is None for failure in result.failures] == passed.tolist()
    assert set(result.failures[~passed]) == {"it does not pass the gate"}


def test_a_condition_without_success_passes_where_it_is_positive(crystals):
    expensive = Expensive()
    result = Gate(lambda crystals: crystals.n_atoms() < 5, expensive)(crystals)
    assert expensive.queried == ["ZnO", "Fe"]
    assert result.success().tolist() == [False, False, True, False, True]


def test_a_condition_that_fails_is_not_passed_and_gives_its_reason(crystals):
    result = Gate(no_iron, volume)(crystals)
    assert result.failures.tolist() == [None] * 4 + ["it does not pass the gate: RuntimeError: rust"]


def test_a_gate_has_the_same_terms_whoever_passes(crystals):
    gate = Gate(Validity(), Gate(lambda crystals: crystals.G == 229, Density()))
    names = set(gate(crystals).terms)
    assert names >= {"density", "gate", "gate2", "gate2/structural"}
    for row in range(5):
        assert (
            set(Gate(Validity(), Gate(lambda crystals: crystals.G == 229, Density()))(crystals[[row]]).terms) == names
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightedSum({}), "parts must hold at least one reward"),
        (lambda: WeightedSum({"a/b": volume}), "names of parts .* got 'a/b'"),
        (lambda: WeightedSum({"success": volume}), "names of parts .* got 'success'"),
        (lambda: WeightedSum({"a": (np.nan, volume)}), "weight of 'a' must be a finite number, got nan"),
        (lambda: WeightedProduct({"a": (0.0, volume)}), "weight of 'a' must be a finite number above 0, got 0"),
        (lambda: Minimum({"a": volume}, floor=-np.inf), "floor must be a finite number, got -inf"),
        (lambda: Minimum({"a": "nothing"}), "reward must be a callable or 'module:attribute', got 'nothing'"),
        (lambda: Gate(volume, 3), "reward must be callable, got 3"),
        (lambda: Gate(volume, volume, floor=np.nan), "floor must be a finite number, got nan"),
    ],
)
def test_wrong_arguments_are_value_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_combination_of_ones_own_needs_one_method(crystals):
    class Range(Combination):
        def combine(self, totals, weights):
            return totals.max(0) - totals.min(0)

    result = Range({"x": volume, "y": group})(crystals)
    np.testing.assert_allclose(result.total, np.abs(volume(crystals) - group(crystals)))
