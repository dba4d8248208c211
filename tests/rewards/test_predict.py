"""Predictions of a model: screened, with failures isolated."""

import numpy as np
import pytest

from crystal_env.crystal import CrystalBatch
from rewards.predict import as_model, predict
from rewards.screen import Screen


def sizes(atoms):
    return np.array([float(len(a)) for a in atoms])


def test_a_model_that_gives_too_few_numbers_runs_one_by_one(crystals):
    values, failures = predict(lambda atoms: sizes(atoms)[:1], crystals, Screen())
    np.testing.assert_array_equal(values[:, 0], [2, 5, 4, 11, 1])
    assert list(failures) == [None] * 5


def test_a_tuple_holds_the_reasons_of_the_model(crystals):
    def model(atoms):
        return sizes(atoms), ["iron" if 26 in a.numbers else None for a in atoms]

    values, failures = predict(model, crystals, None)
    assert failures.tolist() == [None] * 4 + ["iron"]
    np.testing.assert_array_equal(values[:, 0], [2, 5, 4, 11, np.nan])


def test_values_that_are_not_finite_or_of_other_width_fail(crystals):
    values, failures = predict(lambda atoms: np.where(sizes(atoms) == 5, np.inf, sizes(atoms)), crystals, None)
    assert failures[1] == "the model gave [inf]"
    assert np.isnan(values[1, 0])

    def wider_alone(atoms):
        if len(atoms) > 1:
            raise MemoryError("too many")
        return np.ones((1, 1 + (26 in atoms[0].numbers)))

    values, failures = predict(wider_alone, crystals, None)
    assert values.shape == (5, 2)
    assert failures.tolist() == ["the model gave 1 numbers, 2 elsewhere"] * 4 + [None]


def test_screened_crystals_do_not_reach_the_model(crystals):
    def model(atoms):
        assert max(len(a) for a in atoms) <= 5
        return sizes(atoms)

    values, failures = predict(model, crystals, Screen(max_atoms=5))
    assert [failure is None for failure in failures] == [True, True, True, False, True]
    assert np.isnan(values[3, 0])


def test_no_crystals_are_no_values():
    values, failures = predict(sizes, CrystalBatch.empty(), Screen())
    assert (values.shape, failures.shape) == ((0, 1), (0,))


@pytest.mark.parametrize("wrong", [3, None])
def test_a_model_is_a_callable_or_a_name(wrong):
    assert as_model(sizes) is sizes
    with pytest.raises(
        ValueError, match=f"model must be a folder or name of a matgl model, or a callable, got {wrong}"
    ):
        as_model(wrong)
