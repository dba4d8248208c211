"""A crystal whose energy above the hull is not a number is stable nowhere, whatever its total."""

import gymnasium as gym
import numpy as np
import pytest

import crystal_env  # noqa: F401  registers CrystalGen-v0
import rewards
from crystal_env.reward import RewardResult, Scorer


def unknown_iron(crystals):
    """Energies of 0.05 eV/atom above the hull, of iron NaN; the totals are finite and all succeed."""
    e_above_hull = np.where((crystals.A == 26).any(1), np.nan, 0.05)
    terms = {"e_above_hull": e_above_hull, "success": np.ones(len(crystals))}
    return RewardResult(np.ones(len(crystals)), terms, np.full(len(crystals), None, object))


def unknown(crystals):
    """The same for every crystal."""
    result = unknown_iron(crystals)
    result.terms["e_above_hull"][:] = np.nan
    return result


REWARDS = {
    "scorer": Scorer(unknown_iron, -5.0),
    "sum": rewards.WeightedSum({"a": unknown_iron, "b": lambda crystals: np.ones(len(crystals))}),
    "product": rewards.WeightedProduct({"a": unknown_iron}),
    "minimum": rewards.Minimum({"a": unknown_iron}),
    "gate": rewards.Gate(unknown_iron, lambda crystals: np.ones(len(crystals))),
    "gated": rewards.Gate(lambda crystals: np.ones(len(crystals)), unknown_iron),
    "clip": rewards.Clip(unknown_iron, -1.0, 2.0, of="e_above_hull"),
    "affine": rewards.Affine(unknown_iron, -1.0, of="e_above_hull"),
    "sigmoid": rewards.Sigmoid(unknown_iron, 0.1, 0.0, of="e_above_hull"),
    "window": rewards.DoubleSigmoid(unknown_iron, -20.0, 0.1, of="e_above_hull"),
    "target": rewards.Target(unknown_iron, -10.0, "mae", 1.0, of="e_above_hull"),
    "cache": rewards.Cached(unknown_iron),
    "meter": rewards.Metered(unknown_iron),
    "diversity": rewards.Diversity(unknown_iron),
    "S.U.N.": rewards.SUN(reference=None, energy=unknown_iron, repeated=1.0),
}


@pytest.mark.parametrize("name", REWARDS)
def test_a_crystal_without_its_energy_is_not_stable(name, crystals):
    for _ in range(2):  # the second time from the cache
        result = REWARDS[name](crystals)
        others = result.total[:4]
        assert result.scored.tolist() == [True] * 4 + [False]
        assert not result.success()[4]
        assert result.total[4] <= others.min()
        assert "e_above_hull is nan" in result.failures[4]
        assert all(np.isfinite(values).all() for values in (result.total, *result.terms.values()))


def test_a_file_of_a_cache_keeps_it_a_failure(tmp_path, crystals):
    path = tmp_path / "rewards.sqlite"
    rewards.Cached(unknown_iron, path=path, name="test")(crystals)
    result = rewards.Cached(lambda crystals: 1 / 0, path=path, name="test")(crystals)
    assert result.scored.tolist() == [True] * 4 + [False]
    assert not result.success()[4]


@pytest.mark.parametrize("wrap", [rewards.CrystalReward, rewards.VectorCrystalReward])
def test_an_environment_reports_no_success_without_the_energy(wrap):
    single = wrap is rewards.CrystalReward
    env = gym.make("CrystalGen-v0") if single else gym.make_vec("CrystalGen-v0", num_envs=2)
    env, ended = wrap(env, unknown), False
    _, info = env.reset(seed=0)
    while not ended:
        action = np.argmax(info["action_mask"], -1)
        _, reward, terminated, _, info = env.step(int(action) if single else action)
        ended = np.any(terminated)
    row = np.flatnonzero(np.atleast_1d(terminated))[0]
    assert not np.atleast_1d(info["is_success"])[row]
    assert np.atleast_1d(reward)[row] == -1.0
    assert np.atleast_1d(info["reward_failure"])[row] == "e_above_hull is nan"
