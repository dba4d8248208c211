"""The rewards of the package keep the contract, their stated floors included."""

import numpy as np
import pytest

import rewards
from crystal_env.reward import reward_floor
from rewards.combinators.aggregate import Gate, Minimum, WeightedProduct, WeightedSum
from rewards.combinators.cache import Cached
from rewards.combinators.diversity import Diversity
from rewards.combinators.metered import Metered
from rewards.combinators.transforms import Affine, Clip, DoubleSigmoid, Sigmoid, Target
from rewards.composition_match import CompositionMatch
from rewards.dielectric import DielectricFoM
from rewards.novelty import Novelty
from rewards.property import Property
from rewards.testing.reward import check_reward, examples
from rewards.uniqueness import Uniqueness

DENSITY, VALIDITY = rewards.Density(), rewards.Validity()


def volume(crystals):
    return crystals.volume_per_atom()


def depth(crystals):
    return -crystals.volume_per_atom()


def sizes(atoms):
    return [float(len(a)) for a in atoms]


REWARDS = {
    "function": (volume, {}),
    "validity": (VALIDITY, {}),
    "density": (DENSITY, {}),
    "energy above the hull": (rewards.EnergyAboveHull(), {}),
    "sum": (WeightedSum({"a": (2.0, VALIDITY), "b": DENSITY, "c": "rewards:Validity"}), {}),
    "product": (WeightedProduct({"a": VALIDITY, "b": (0.5, Sigmoid(DENSITY, 2.0, 8.0, of="density"))}), {}),
    "minimum": (Minimum({"a": VALIDITY, "b": DENSITY}), {}),
    "gate": (Gate(VALIDITY, Gate(DENSITY, volume)), {}),
    "clip": (Clip(DENSITY, -1.0, 0.0), {}),
    "affine": (Affine(Affine(DENSITY, 2.0), 1.0, -1.0), {}),
    "sigmoid": (Sigmoid(DENSITY, 8.0, 2.0, of="density"), {}),
    "double sigmoid": (DoubleSigmoid(DENSITY, 2.0, 8.0, of="density"), {}),
    "target": (Target(DENSITY, 5.0, "mse", 0.5, of="density"), {}),
    "novelty": (Novelty(examples()[:4]), {}),
    "uniqueness": (Uniqueness(), {"relative": True}),
    "diversity of formulas": (Diversity(DENSITY, floor=-10.0), {"stateful": True}),
    "diversity of templates": (Diversity(VALIDITY, "template"), {"stateful": True}),
    "diversity of structures": (Diversity(VALIDITY, "structure"), {"stateful": True}),
    "S.U.N.": (rewards.SUN(reference=examples()[:4]), {"stateful": True}),
    "formula": (CompositionMatch("SrTiO3"), {}),
    "stoichiometry": (CompositionMatch(stoichiometry="AB"), {}),
    "elements": (CompositionMatch(elements=["Ti", "O"]), {}),
}


@pytest.mark.parametrize("name", REWARDS)
def test_the_rewards_of_the_package_keep_the_contract(name):
    reward, flags = REWARDS[name]
    check_reward(reward, **flags)


FLOORS = {
    "validity": (VALIDITY, 0.0),
    "novelty": (Novelty(examples()[:1]), 0.0),
    "uniqueness": (Uniqueness(), 0.0),
    "S.U.N.": (rewards.SUN(reference=None, energy=rewards.EnergyAboveHull(clip=20.0)), 0.0),
    "composition": (CompositionMatch("NaCl"), 0.0),
    "density": (rewards.Density(clip=7.0), -7.0),
    "energy above the hull": (rewards.EnergyAboveHull(clip=3.0), -3.0),
    "forces": (rewards.ForceStress(), -np.log(200.0)),
    "bulk modulus": (rewards.BulkModulus(), -1000.0),
    "property": (Property(sizes, floor=-4.0), -4.0),
    "dielectric": (DielectricFoM(sizes, sizes), 0.0),
    "program": (rewards.ProcessReward(["true"], floor=-2.0), -2.0),
    "sum": (WeightedSum({"a": (2.0, rewards.EnergyAboveHull()), "b": DENSITY, "c": VALIDITY}), -30.0),
    "sum above its argument": (WeightedSum({"a": VALIDITY}, floor=-3.0), -3.0),
    "sum of a function": (WeightedSum({"a": (2.0, DENSITY), "b": volume}, floor=-4.0), -4.0),
    "difference": (WeightedSum({"a": (-2.0, DENSITY)}), -10.0),
    "product": (WeightedProduct({"a": VALIDITY, "b": DENSITY}), 0.0),
    "minimum": (Minimum({"a": (3.0, DENSITY), "b": VALIDITY}), -30.0),
    "gate": (Gate(VALIDITY, rewards.EnergyAboveHull(clip=20.0)), -20.0),
    "gate before little": (Gate(VALIDITY, VALIDITY, floor=-2.0), -2.0),
    "clip": (Clip(DENSITY, -1.0, 0.0), -1.0),
    "affine": (Affine(DENSITY, 2.0, -1.0), -21.0),
    "affine that falls": (Affine(DENSITY, -2.0, floor=-5.0), -5.0),
    "sigmoid": (Sigmoid(DENSITY, 0.0, 1.0), 0.0),
    "double sigmoid": (DoubleSigmoid(DENSITY, 0.0, 1.0), 0.0),
    "target": (Target(DENSITY, 0.0, "mse", floor=-6.0), -6.0),
    "diversity": (Diversity(DENSITY), -10.0),
    "cache": (Cached(rewards.EnergyAboveHull(clip=20.0)), -20.0),
    "meter": (Metered(Cached(rewards.EnergyAboveHull(clip=20.0))), -20.0),
}


@pytest.mark.parametrize("name", FLOORS)
def test_a_reward_states_its_lowest_total(name):
    reward, floor = FLOORS[name]
    assert reward_floor(reward) == pytest.approx(floor)


def test_a_gate_before_a_deeper_function_is_caught():
    with pytest.raises(AssertionError, match=r"^floor: a total is -.*, below the reward's floor of -10"):
        check_reward(Gate(VALIDITY, depth))
    check_reward(Gate(VALIDITY, depth, floor=-1e6))
