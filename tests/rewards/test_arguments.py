"""Numbers out of range are refused where they are given, with their name, their value and what is allowed."""

import numpy as np
import pytest

import rewards
from crystal_env.errors import InputError

DENSITY = rewards.Density()


def sizes(atoms):
    return [float(len(a)) for a in atoms]


def relaxation(**arguments):
    return rewards.Relaxation(**arguments)


POSITIVE = {
    "hull clip": (rewards.EnergyAboveHull, "clip"),
    "hull depth": (rewards.EnergyAboveHull, "max_depth"),
    "density": (rewards.Density, "target"),
    "density tolerance": (rewards.Density, "tolerance"),
    "density clip": (rewards.Density, "clip"),
    "distance": (rewards.Validity, "min_distance"),
    "force": (rewards.ForceStress, "threshold"),
    "dielectric": (lambda **given: rewards.DielectricFoM(sizes, sizes, **given), "max_dielectric"),
    "strain": (rewards.BulkModulus, "strain"),
    "fmax": (relaxation, "fmax"),
    "seconds": (relaxation, "seconds"),
    "width": (lambda **given: rewards.DoubleSigmoid(DENSITY, 0.0, 1.0, **given), "width"),
    "volume": (rewards.Screen, "max_volume"),
    "step": (rewards.SUN, "width"),
    "depth": (rewards.SUN, "max_depth"),
    "timeout": (lambda **given: rewards.ProcessReward(["true"], **given), "timeout"),
}
NOT_NEGATIVE = {
    "modulus tolerance": (rewards.BulkModulus, "tolerance"),
    "property tolerance": (lambda **given: rewards.Property(sizes, **given), "tolerance"),
    "target tolerance": (lambda **given: rewards.Target(DENSITY, 1.0, **given), "tolerance"),
    "screen distance": (rewards.Screen, "min_distance"),
    "screen volume": (rewards.Screen, "min_volume"),
    "screen thickness": (rewards.Screen, "min_thickness"),
    "weight of the known": (rewards.SUN, "known"),
    "weight of repeats": (rewards.SUN, "repeated"),
}
FINITE = {
    "hull threshold": (rewards.EnergyAboveHull, "threshold"),
    "step threshold": (rewards.SUN, "threshold"),
    "merit threshold": (lambda **given: rewards.DielectricFoM(sizes, sizes, **given), "threshold"),
    "merit floor": (lambda **given: rewards.DielectricFoM(sizes, sizes, **given), "floor"),
    "modulus target": (lambda **given: rewards.BulkModulus(goal="mae", **given), "target"),
    "modulus floor": (rewards.BulkModulus, "floor"),
    "property target": (lambda **given: rewards.Property(sizes, "mae", **given), "target"),
    "property floor": (lambda **given: rewards.Property(sizes, **given), "floor"),
    "target": (lambda **given: rewards.Target(DENSITY, **given), "target"),
    "scale": (lambda **given: rewards.Affine(DENSITY, **given), "scale"),
    "shift": (lambda **given: rewards.Affine(DENSITY, **given), "shift"),
    "clip low": (lambda **given: rewards.Clip(DENSITY, high=1.0, **given), "low"),
    "clip high": (lambda **given: rewards.Clip(DENSITY, low=-1.0, **given), "high"),
    "sigmoid low": (lambda **given: rewards.Sigmoid(DENSITY, high=1.0, **given), "low"),
    "sigmoid high": (lambda **given: rewards.Sigmoid(DENSITY, low=0.0, **given), "high"),
    "window low": (lambda **given: rewards.DoubleSigmoid(DENSITY, high=1.0, **given), "low"),
    "window high": (lambda **given: rewards.DoubleSigmoid(DENSITY, low=-1.0, **given), "high"),
    "sum floor": (lambda **given: rewards.WeightedSum({"a": DENSITY}, **given), "floor"),
    "gate floor": (lambda **given: rewards.Gate(DENSITY, DENSITY, **given), "floor"),
    "cache floor": (lambda **given: rewards.Cached(DENSITY, **given), "floor"),
    "meter floor": (lambda **given: rewards.Metered(DENSITY, **given), "floor"),
    "diversity floor": (lambda **given: rewards.Diversity(DENSITY, **given), "floor"),
    "program floor": (lambda **given: rewards.ProcessReward(["true"], **given), "floor"),
}
WHOLE = {
    "points": (rewards.BulkModulus, "points"),
    "atoms": (rewards.Screen, "max_atoms"),
    "steps": (relaxation, "steps"),
    "cache": (lambda **given: rewards.Cached(DENSITY, **given), "size"),
    "budget": (lambda **given: rewards.Metered(DENSITY, **given), "budget"),
    "free": (lambda **given: rewards.Diversity(DENSITY, **given), "free"),
    "keys": (rewards.SUN, "size"),
    "restarts": (lambda **given: rewards.ProcessReward(["true"], **given), "restarts"),
    "batch": (lambda **given: rewards.ProcessReward(["true"], **given), "batch_size"),
}


def refuses(make, name, value):
    with pytest.raises(InputError, match=rf"{name} must be (a finite number|an integer).*, got {value!r}"):
        make(**{name: value})


@pytest.mark.parametrize(
    "case", [*POSITIVE.values(), *NOT_NEGATIVE.values(), *FINITE.values()], ids=lambda case: case[1]
)
def test_numbers_that_are_not_finite_are_refused(case):
    for value in (np.nan, np.inf, -np.inf):
        refuses(*case, value)


@pytest.mark.parametrize("case", [*POSITIVE.values(), *NOT_NEGATIVE.values()], ids=lambda case: case[1])
def test_negative_sizes_are_refused(case):
    refuses(*case, -0.5)


@pytest.mark.parametrize("case", WHOLE.values(), ids=lambda case: case[1])
def test_counts_are_whole_numbers(case):
    for value in (-1, 5.5, np.nan):
        refuses(*case, value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_are_finite(value):
    for combination in (rewards.WeightedSum, rewards.WeightedProduct, rewards.Minimum):
        with pytest.raises(InputError, match=rf"weight of 'a' must be a finite number.*, got {value!r}"):
            combination({"a": (value, DENSITY)})
