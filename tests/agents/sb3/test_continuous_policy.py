"""Step by step, the continuous policy samples from the network's densities."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from scipy.stats import ks_2samp
from tiny_grammar import base_model

from agents import CrystalVecEnv
from agents.crystalformer.temperature import Temperatures
from agents.sb3.continuous_policy import ContinuousCrystalFormerPolicy
from crystal_env import CrystalBatch

GROUPS = [2, 12, 123, 221]


def environment(num_envs=64, **options):
    options = {"action_mode": "continuous", "reward": None, "space_group": GROUPS, "max_sites": 3, **options}
    return CrystalVecEnv(
        gym.make_vec("CrystalGen-v0", num_envs=num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options)
    )


def policy(env, **options):
    spaces = env.observation_space, env.action_space
    return ContinuousCrystalFormerPolicy(*spaces, lambda _: 1e-3, model=base_model(), **options)


def rolled_out(one, env, size, deterministic=False, use_masks=True):
    observations, ended, begun = env.reset(), [], np.arange(env.num_envs)
    while len(ended) < size:
        masks = np.stack(env.env_method("action_masks")) if use_masks else None
        actions, state = one.predict(observations, deterministic=deterministic, action_masks=masks)
        assert state is None
        observations, _, done, infos = env.step(actions)
        for row in np.flatnonzero(done):
            assert not infos[row]["invalid_action"]
            if begun[row] < size:  # else short crystals would come first
                ended.append((begun[row], infos[row]["crystal"]))
            begun[row] = begun.max() + 1
    return CrystalBatch.from_crystals(crystal for _, crystal in sorted(ended, key=lambda pair: pair[0]))


@pytest.mark.parametrize(
    "temperature",
    [1.0, 0.5, {"letters": 0.5}, {"elements": 2}, {"coordinates": 0.1}, {"lattice": 0.1}, {"lattice_weights": 0.02}],
    ids=str,
)
def test_crystals_built_in_steps_have_the_same_distribution(temperature):
    env = environment()
    env.seed(0)
    one = policy(env, temperature=temperature)
    one.rng = np.random.default_rng(0)
    stepped = rolled_out(one, env, 1500)
    rules = {"max_sites": 3, "temperature": temperature}
    sampled = base_model().sample(GROUPS, 1500, seed=1, **rules)
    with torch.no_grad():
        scores = [one.model.log_prob(crystals, **rules) for crystals in (stepped, sampled)]
    for name in ("letters", "elements", "coordinates", "lattice", "total"):
        assert torch.isfinite(getattr(scores[0], name)).all()
        assert ks_2samp(*(getattr(score, name).numpy() for score in scores)).pvalue > 1e-4, name
    if temperature != 1:  # the comparison can tell
        with torch.no_grad():
            plain = one.model.log_prob(base_model().sample(GROUPS, 1500, seed=1, max_sites=3, temperature=1), **rules)
        pvalues = [ks_2samp(part.numpy(), right.numpy()).pvalue for part, right in zip(plain, scores[0], strict=True)]
        assert min(pvalues) < 1e-4
    for G in GROUPS:
        lattices = [crystals.L[crystals.G == G] for crystals in (stepped, sampled)]
        for parameter in range(6):
            assert ks_2samp(*(L[:, parameter] for L in lattices)).pvalue > 1e-5


def test_the_policy_comes_back_from_disk(tmp_path):
    env = environment(num_envs=4)
    one = policy(env, temperature={"lattice": 0.1}, recommended_temperature=0.5)
    one.save(tmp_path / "policy.pt")
    again = ContinuousCrystalFormerPolicy.load(tmp_path / "policy.pt", device="cpu")
    for each in (one, again):
        each.rng = np.random.default_rng(0)
    observations = env.reset()
    np.testing.assert_allclose(again.predict(observations)[0], one.predict(observations)[0], rtol=1e-5)
    assert (again.temperature, again.model.temperature) == (one.temperature, one.model.temperature)
    assert again.model.temperature == Temperatures.of(0.5)


def test_without_masks_the_bare_grammar_holds():
    env = environment(max_sites=20)
    env.seed(0)
    assert len(rolled_out(policy(env), env, 50, use_masks=False)) == 50


def test_masks_restrict_the_actions():
    env = environment(elements=["Na", "Cl"])
    env.seed(0)
    assert set(np.unique(rolled_out(policy(env), env, 100).A)) <= {0, 11, 17}


def test_deterministic_actions_are_the_most_likely():
    env = environment(num_envs=4, max_sites=20)
    one = policy(env)
    env.seed(0)
    observations = env.reset()
    first, again = (one.predict(observations, deterministic=True)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    greedy = base_model().sample([int(group) for group in observations[:, 0]], temperature=0)
    env.seed(0)
    stepped = rolled_out(one, env, 4, deterministic=True, use_masks=False)
    np.testing.assert_array_equal(stepped.W, greedy.W)
    np.testing.assert_array_equal(stepped.A, greedy.A)
    np.testing.assert_allclose(stepped.XYZ, greedy.XYZ, atol=1e-4)


def test_a_single_observation_gives_a_single_action():
    env = environment(num_envs=1)
    action, _ = policy(env).predict(env.reset()[0])
    assert action.shape == (2,)


def test_discrete_spaces_are_refused():
    env = environment(action_mode="discrete")
    with pytest.raises(ValueError, match="continuous"):
        policy(env)
