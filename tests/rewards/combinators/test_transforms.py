"""Transforms against closed forms and the numbers of REINVENT's own tests."""

import numpy as np
import pytest

from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import RewardResult
from rewards.combinators.transforms import Affine, Clip, DoubleSigmoid, Sigmoid, Target
from rewards.density import Density

REINVENT = [12.016, 0.0015, 7.9, 123.264, 77.80, 4.0, 111.12]


def axis(crystals):
    """A reward whose total is the length a, and its term b ten times as much."""
    a = crystals.L[:, 0]
    return RewardResult(a, {"b": 10 * a}, np.full(len(a), None, object))


def iron(*axes):
    return CrystalBatch.from_crystals(Crystal.from_string(f"229-a-Fe-0-0-0-X-{a!r}-{a!r}-{a!r}-90-90-90") for a in axes)


def test_clip_and_affine_are_what_they_say():
    values = np.array([0.5, 2.0, 3.5])
    np.testing.assert_array_equal(Clip(axis, 1.0, 3.0)(iron(*values.tolist())).total, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(Affine(axis, -2.0, 1.0)(iron(*values.tolist())).total, 1 - 2 * values)


@pytest.mark.parametrize("transform", [Clip(axis, 1, 20, of="b"), Affine(axis, of="b"), Target(axis, 20.0, of="b")])
def test_a_named_term_is_transformed_instead_of_the_total(transform):
    result = transform(iron(2.0))
    assert abs(result.total[0]) in (20.0, 0.0)
    assert result.terms["value"].tolist() == result.terms["b"].tolist() == [20.0]


def test_sigmoid_gives_the_published_numbers():
    rounded = Sigmoid(axis, 4.0, 9.0)(iron(*REINVENT)).total.round(3)
    assert rounded.tolist() == [0.998, 0.001, 0.834, 1.0, 1.0, 0.053, 1.0]
    falling = Sigmoid(axis, 9.0, 4.0)(iron(*REINVENT)).total.round(3)
    np.testing.assert_allclose(falling, 1 - rounded, atol=1e-9)


@pytest.mark.parametrize(
    ("width", "published"),
    [(100 / 150, [0.0, 0.0, 0.978, 0.0, 0.0, 0.5, 0.0]), (200 / 100, [0.03, 0.01, 0.769, 0.0, 0.0, 0.497, 0.0])],
)
def test_double_sigmoid_gives_the_published_numbers(width, published):
    found = DoubleSigmoid(axis, 4.0, 9.0, width)(iron(*REINVENT)).total
    np.testing.assert_allclose(found, published, atol=5.1e-4)


def test_double_sigmoid_is_a_window_by_default():
    total = DoubleSigmoid(axis, 4.0, 6.0)(iron(3.0, 4.0, 5.0, 6.0, 7.0)).total
    np.testing.assert_allclose(total, [0, 0.5, 1, 0.5, 0], atol=2e-5)


@pytest.mark.parametrize(
    ("loss", "expected"), [("mse", [-2.25, 0.0, -0.25]), ("mae", [-1.5, 0.0, -0.5]), ("success", [0.0, 1.0, 1.0])]
)
def test_target_gives_the_loss_and_success_within_the_tolerance(loss, expected):
    result = Target(axis, 3.0, loss, tolerance=0.5)(iron(1.5, 3.0, 3.5))
    np.testing.assert_allclose(result.total, expected)
    assert result.success().tolist() == [False, True, True]


def test_no_distance_from_a_target_is_worse_than_no_score():
    assert Target(axis, 3.0, "mse", floor=-5.0)(iron(30.0)).total.tolist() == [-5.0]


TRANSFORMS = [
    (Clip(Density(), -1.0, 0.0, of="density"), -1.0),
    (Affine(Density(), -1.0, of="density", floor=-7.0), -7.0),
    (Sigmoid(Density(), 5.0, 1.0, of="density"), 0.0),
    (DoubleSigmoid(Density(), -1.0, 1.0, of="density"), 0.0),
    (Target(Density(), 0.0, of="density"), -10.0),
]


@pytest.mark.parametrize(("transform", "floor"), TRANSFORMS)
def test_a_failed_crystal_gets_the_floor_untransformed(transform, floor):
    result = transform(iron(0.5, 2.87))
    assert result.terms["density"][0] == 0  # from which each of these transforms would make its best
    assert result.total[0] == floor
    assert result.failures[0] is not None
    assert result.success()[0] == 0
    assert result.failures[1] is None


def test_success_and_terms_are_those_of_the_reward():
    crystals = iron(2.5, 2.87, 3.2)
    inner = Density(target=7.8, tolerance=0.5)
    result = Sigmoid(inner, -2.0, 0.0)(crystals)
    assert result.success().tolist() == inner(crystals).success().tolist() == [False, True, False]
    np.testing.assert_array_equal(result.terms["density"], inner(crystals).terms["density"])
    np.testing.assert_array_equal(result.terms["value"], inner(crystals).total)


def test_nested_transforms_show_every_value():
    result = Clip(Affine(Sigmoid(axis, 1.0, 3.0), 2.0, 1.0), 0.0, 1.5)(iron(2.0))
    assert [result.terms[name][0] for name in ("value", "value2", "value3")] == [2.0, 0.5, 2.0]
    assert result.total[0] == 1.5


def test_extreme_values_stay_finite():
    def extreme(crystals):
        return np.array([-1e308, 1e308])

    for transform in (Sigmoid(extreme, 0, 1), DoubleSigmoid(extreme, 0, 1e-300), Clip(extreme, -1, 1)):
        assert np.isfinite(transform(iron(1.0, 2.0)).total).all()
    for transform in (Affine(extreme, 10.0), Target(extreme, 0.0, "mse")):
        result = transform(iron(1.0, 2.0))
        assert result.total.tolist() == [-10.0, -10.0]
    assert Affine(extreme, 10.0)(iron(1.0, 2.0)).failures[1] == "the result is inf"


def test_a_term_that_there_is_not_is_an_error_of_the_user():
    with pytest.raises(ValueError, match=r"of must be one of the terms \['b'\], got 'c'"):
        Clip(axis, 0.0, 1.0, of="c")(iron(2.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clip(axis, 1.0, 1.0), "high must be a finite number above 1, got 1.0"),
        (lambda: Clip(axis, -np.inf, 1.0), "low must be a finite number, got -inf"),
        (lambda: Affine(axis, 0.0), "scale must not be zero, got 0.0"),
        (lambda: Affine(axis, floor=np.nan), "floor must be a finite number, got nan"),
        (lambda: Sigmoid(axis, 2.0, 2.0), "low and high must be different"),
        (lambda: DoubleSigmoid(axis, 2.0, 1.0), "high must be a finite number above 2, got 1.0"),
        (lambda: DoubleSigmoid(axis, 1.0, 2.0, width=0.0), "width must be a finite number above 0, got 0.0"),
        (lambda: Target(axis, 1.0, "maximise"), "loss must be one of .* got 'maximise'"),
        (lambda: Target(axis, np.nan), "target must be a finite number"),
        (lambda: Target(axis, 1.0, tolerance=-1.0), "tolerance must be a finite number of at least 0, got -1.0"),
        (lambda: Clip(3, 0.0, 1.0), "reward must be callable"),
    ],
)
def test_wrong_arguments_are_value_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
