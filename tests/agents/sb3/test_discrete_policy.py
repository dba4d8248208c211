"""The policy plays with the probabilities that CrystalFormer.log_prob scores, from a cache or anew, and learns."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import CrystalFormer, CrystalFormerConfig, CrystalVecEnv
from agents.crystalformer.temperature import Temperatures
from agents.sb3.discrete_policy import CrystalFormerPolicy
from crystal_env import CrystalBatch, sample_masked
from crystal_env.grammar.constraints import mp20_group_counts
from crystal_env.vocabulary import Phase

CONFIG = CrystalFormerConfig(
    n_layers=2, n_heads=2, key_size=8, model_size=16, embed_size=8, first_letter_size=8, n_frequencies=2,
    coordinate_components=3, lattice_components=2,
)  # fmt: skip
N = 16


def make(**options):
    options = {"bins": 48, "reward": None, **options}
    return CrystalVecEnv(gym.make_vec("CrystalGen-v0", num_envs=N, autoreset_mode=AutoresetMode.SAME_STEP, **options))


def stretched(policy, factor=10.0):
    """Make the distributions of a policy far from uniform, and its values large."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "value_net" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
            elif parameter.dim() > 1:
                parameter.mul_(factor)
    return policy


def new(env, double=True, **options):
    """Return a policy in evaluation mode, by default in double precision, so that the comparisons can be sharp."""
    policy = CrystalFormerPolicy(env.observation_space, env.action_space, lambda _: 1e-2, model=CONFIG, **options)
    return stretched(policy.double() if double else policy).train(False)


def tensors(*arrays):
    return tuple(map(torch.as_tensor, arrays))


def masks_of(env):
    return np.stack(env.env_method("action_masks"))


def play(policy, env, steps):
    """Play from a cache; yield observations, masks, actions, values, log probabilities, and infos of the step."""
    observations = env.reset()
    for _ in range(steps):
        masks = masks_of(env)
        with torch.no_grad():
            actions, values, log_probs = policy(torch.as_tensor(observations), action_masks=masks)
        before = observations
        observations, _, done, infos = env.step(actions.numpy())
        yield before, masks, actions, values, log_probs, [infos[i] if done[i] else None for i in range(N)]


def assert_same(found, expected, atol=1e-9):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=atol)


CASES = {
    "48 bins": {"max_sites": 4},
    "960 bins": {"bins": 960, "max_sites": 3},
    "elements": {"elements": ["Na", "Cl", "O"], "max_sites": 3, "space_group": [62, 225, 194]},
    "formula": {"formula": "SrTiO3", "max_sites": 5, "max_atoms": 10, "space_group": [221, 99, 123]},
    "required": {"required_elements": ["Li"], "max_sites": 2, "space_group": [2, 12, 166]},
    "triclinic": {"space_group": [1, 2], "max_sites": 3},
    "triclinic, 960 bins": {"space_group": [1, 2], "bins": 960, "max_sites": 2},
    "coarsest": {"space_group": [1, 2, 15], "bins": 24, "max_sites": 2},
}
TEMPERATURES = (
    1.0, 0.6, {"letters": 0.5}, {"elements": 2.0}, {"coordinates": 0.1}, {"lattice": 0.1},
    {"letters": 1.5, "elements": 0.5, "coordinate_weights": 0.3, "lattice_variances": 0.2},
)  # fmt: skip
TEMPERED = [(case, temperature) for case in CASES for temperature in TEMPERATURES[:: 6 if "960" in case else 1]]


@pytest.mark.parametrize(("case", "temperature"), TEMPERED, ids=str)
def test_episodes_have_the_probability_that_the_model_scores(case, temperature):
    rules = dict(CASES[case])
    env = make(**rules)
    env.seed(0)
    torch.manual_seed(0)
    policy = new(env, temperature=temperature)
    steps = list(play(policy, env, 30))
    _, again, _ = policy.evaluate_actions(
        *tensors(*(np.concatenate([np.asarray(step[i]) for step in steps]) for i in (0, 2, 1)))
    )
    played, crystals = [], []
    for source in (torch.stack([step[4] for step in steps]), again.detach().view(len(steps), N)):
        total, sums = torch.zeros(N, dtype=torch.double), []
        for log_probs, step in zip(source, steps, strict=True):
            total += log_probs
            for row, info in enumerate(step[-1]):
                if info is not None:
                    sums.append(float(total[row]))
                    crystals.append(info["crystal"])
                    total[row] = 0
        played.append(sums)
    crystals = crystals[: len(played[0])]
    assert len(crystals) > 15
    rules.pop("space_group", None)
    bins = rules.pop("bins", 48)
    rules |= {"bins": bins, "temperature": temperature}
    scored = policy.model.log_prob(CrystalBatch.from_crystals(crystals), **rules).total.detach()
    assert played[0] == pytest.approx(scored.tolist(), abs=1e-8)
    assert played[1] == pytest.approx(scored.tolist(), abs=1e-8)
    assert float(scored.std()) > 1


def test_the_agents_choice_of_the_group_follows_mp20_at_first():
    env = make(space_group="agent")
    policy = new(env)
    distribution = policy.get_distribution(torch.as_tensor(env.reset()), masks_of(env))
    counts = mp20_group_counts() + 1
    expected = torch.from_numpy(counts / counts.sum()).expand(N, -1)
    torch.testing.assert_close(distribution.distribution.probs[:, -230:], expected.double(), atol=1e-6, rtol=1e-4)


PLAYED = [{}, {"bins": 960}, {"space_group": "agent"}, {"space_group": [1, 2, 12], "max_sites": 2}]


@pytest.mark.parametrize("options", PLAYED, ids=str)
def test_what_comes_from_the_cache_is_what_comes_anew(options):
    env = make(**options)
    torch.manual_seed(1)
    policy, ends = new(env), 0
    for observations, masks, actions, values, log_probs, infos in play(policy, env, 40):
        whole_values, whole_log_probs, _ = policy.evaluate_actions(*tensors(observations, actions, masks))
        assert_same(values, whole_values.detach())
        assert_same(log_probs, whole_log_probs.detach())
        ends += sum(info is not None for info in infos)
    assert ends > 5


def test_a_change_of_the_weights_empties_the_cache():
    env = make(max_sites=3)
    torch.manual_seed(2)
    policy = new(env)
    for i, (observations, masks, actions, _, log_probs, _) in enumerate(play(policy, env, 20)):
        before = policy.evaluate_actions(*tensors(observations, actions, masks))[1]
        assert_same(log_probs, before.detach())
        if i % 4 == 3:
            policy.optimizer.zero_grad()
            before.sum().backward()
            policy.optimizer.step()
            with torch.no_grad():
                after = policy.evaluate_actions(*tensors(observations, actions, masks))[1]
            assert (after - before).abs().max() > 1e-3
            assert_same(after, policy.evaluate_actions(*tensors(observations, actions, masks))[1].detach())


def test_other_weights_in_the_same_policy_empty_the_cache():
    env = make(max_sites=3)
    policy, other = new(env), stretched(new(env), 1.1)
    *_, (observations, _, _, values, _, _) = play(policy, env, 5)
    state = copy.deepcopy(policy.state_dict())
    with torch.no_grad():
        expected = other.predict_values(torch.as_tensor(observations))
        policy.load_state_dict(other.state_dict())
        assert_same(policy.predict_values(torch.as_tensor(observations)), expected)
        assert (values - expected).abs().max() > 1e-3
        policy.load_state_dict(state)
        assert_same(policy.predict_values(torch.as_tensor(observations)), values)


def test_values_tell_all_prefixes_apart_up_to_the_lattice():
    env, rng = make(), np.random.default_rng(0)
    policy, start = new(env), env.reset()
    seen = np.concatenate([start, *(env.step(sample_masked(masks_of(env), rng))[0] for _ in range(20))])
    seen = np.unique(seen[seen[:, 1] <= Phase.A], axis=0)
    values = policy.predict_values(torch.as_tensor(seen)).detach().numpy()
    assert np.diff(np.sort(values[:, 0])).min() > 1e-9


@pytest.mark.parametrize("options", PLAYED, ids=str)
def test_observations_may_jump_to_any_prefix(options):
    env, rng = make(**options), np.random.default_rng(0)
    policy, start = new(env), env.reset()
    seen = np.concatenate([start, *(env.step(sample_masked(masks_of(env), rng))[0] for _ in range(40))])
    whole = policy.predict_values(torch.as_tensor(seen)).detach()
    for size in (N, N, 3, 1, N):
        rows = rng.choice(len(seen), size)
        with torch.no_grad():
            assert_same(policy.predict_values(torch.as_tensor(seen[rows])), whole[rows])


def test_inference_mode_may_come_and_go():
    env, rng = make(), np.random.default_rng(0)
    policy, observations = new(env), torch.as_tensor(env.reset())
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            values = policy.predict_values(observations)
        assert_same(values.clone(), policy.predict_values(observations).detach())
        observations = torch.as_tensor(env.step(sample_masked(masks_of(env), rng))[0])


def test_finished_crystals_have_a_value():
    env = make(max_sites=1)
    policy, rng = new(env), np.random.default_rng(0)
    env.reset()
    last = []
    for _ in range(30):
        _, _, done, infos = env.step(sample_masked(masks_of(env), rng))
        last += [infos[row]["terminal_observation"] for row in np.flatnonzero(done)]
    observations = torch.as_tensor(np.stack(last))
    with torch.no_grad():
        assert_same(policy.predict_values(observations[:N]), policy.predict_values(observations)[:N])
        assert policy.predict_values(observations).isfinite().all()
    assert_same(policy.predict_values(observations[:N]).detach(), policy.predict_values(observations)[:N].detach())


@pytest.mark.parametrize("options", PLAYED, ids=str)
def test_probabilities_sum_to_one_over_what_is_allowed(options):
    env = make(**options)
    policy = new(env)
    for observations, masks, actions, _, log_probs, _ in play(policy, env, 15):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                masked = policy.get_distribution(torch.as_tensor(observations), masks).distribution
                bare = policy.get_distribution(torch.as_tensor(observations)).distribution
            p = masked.probs.detach()
            assert_same(p.sum(1), torch.ones(N, dtype=torch.double))
            assert (p[torch.from_numpy(~masks)] == 0).all()
            assert_same(p.gather(1, actions[:, None])[:, 0].log(), log_probs, atol=1e-6)
            if "max_sites" not in options:  # without constraints the grammar is all there is
                assert_same(bare.probs.detach(), p, atol=1e-8)


def test_entropies_are_those_of_the_allowed_actions():
    env = make(elements=["Na", "Cl"], max_sites=3)
    policy = new(env)
    for observations, masks, actions, *_ in play(policy, env, 15):
        _, _, entropies = policy.evaluate_actions(*tensors(observations, actions, masks))
        p = policy.get_distribution(torch.as_tensor(observations), masks).distribution.probs.detach()
        assert_same(entropies.detach(), torch.special.entr(p).sum(1), atol=1e-6)


def test_the_likeliest_action_is_predicted_for_one_and_for_many():
    env = make(max_sites=3)
    policy = new(env)
    for observations, masks, *_ in play(policy, env, 15):
        p = policy.get_distribution(torch.as_tensor(observations), masks).distribution.probs
        actions, _ = policy.predict(observations, action_masks=masks, deterministic=True)
        assert actions.shape == (N,)
        assert actions.tolist() == p.argmax(1).tolist()
        action, _ = policy.predict(observations[3], action_masks=masks[3], deterministic=True)
        assert action == actions[3]
        sampled, _ = policy.predict(observations, action_masks=masks)
        assert masks[np.arange(N), sampled].all()


def algorithm(env, **options):
    options = {"n_steps": 32, "batch_size": 128, "n_epochs": 2, "gamma": 1.0, "seed": 0, **options}
    return MaskablePPO(CrystalFormerPolicy, env, policy_kwargs={"model": CONFIG}, device="cpu", **options)


def test_algorithm_and_policy_come_back_from_disk(tmp_path):
    env = make(max_sites=3)
    ppo = algorithm(env)
    ppo.learn(512)
    stretched(ppo.policy, 2.0)
    observations, masks = env.reset(), masks_of(env)
    ppo.save(tmp_path / "ppo.zip")
    ppo.policy.save(tmp_path / "policy.pt")
    expected = ppo.policy.get_distribution(torch.as_tensor(observations), masks).distribution.probs
    again = MaskablePPO.load(tmp_path / "ppo.zip", env=env, device="cpu")
    for policy in (again.policy, CrystalFormerPolicy.load(tmp_path / "policy.pt", device="cpu")):
        assert isinstance(policy, CrystalFormerPolicy)
        found = policy.get_distribution(torch.as_tensor(observations), masks).distribution.probs
        assert torch.equal(found, expected)
    again.learn(512, reset_num_timesteps=False)
    assert again.num_timesteps == 1024


def test_temperatures_come_back_from_disk(tmp_path):
    env = make(max_sites=3)
    recommended, own = {"lattice": 0.01}, {"letters": 0.5, "coordinates": 0.1}
    kwargs = {"model": CONFIG, "temperature": own, "recommended_temperature": recommended}
    ppo = MaskablePPO(CrystalFormerPolicy, env, policy_kwargs=kwargs, device="cpu", n_steps=8, seed=0)
    ppo.save(tmp_path / "ppo.zip")
    ppo.policy.save(tmp_path / "policy.pt")
    for policy in (
        ppo.policy, MaskablePPO.load(tmp_path / "ppo.zip", device="cpu").policy,
        CrystalFormerPolicy.load(tmp_path / "policy.pt", device="cpu"),
    ):  # fmt: skip
        assert Temperatures.of(policy.temperature) == Temperatures.of(own)
        assert policy.model.temperature == Temperatures.of(recommended)


def test_temperatures_out_of_range_are_refused():
    env = make()
    for option in ("temperature", "recommended_temperature"):
        with pytest.raises(ValueError, match=r"^temperature of letters must be"):
            new(env, **{option: {"letters": -1}})


def test_a_model_on_disk_is_what_the_policy_starts_from(tmp_path):
    env, model = make(), CrystalFormer(CONFIG, seed=7)
    model.temperature = Temperatures.of({"lattice": 0.5})
    model.save_pretrained(tmp_path)
    policy = CrystalFormerPolicy(env.observation_space, env.action_space, lambda _: 1e-3, model=tmp_path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in policy.model.state_dict().items())
    assert policy.model.temperature == model.temperature
    assert Temperatures.of(policy.temperature).are_one  # a policy samples as it is told, whatever is recommended


def test_there_is_no_dropout():
    env = make(max_sites=2)
    policy = new(env).train(True)
    observations = torch.as_tensor(env.reset())
    assert policy.training
    assert torch.equal(*(policy.get_distribution(observations).distribution.probs for _ in range(2)))


def spaces_of(id_, **options):
    env = gym.make(id_, **options)
    return env.observation_space, env.action_space


@pytest.mark.parametrize(
    "found",
    [
        spaces_of("CartPole-v1"),
        spaces_of("CrystalGen-v0", action_mode="continuous", reward=None),
        (spaces.Box(0, 1, (108,)), spaces.Discrete(146 + 48)),
        (spaces.Box(0, 1, (109,)), spaces.Discrete(146 + 47)),
        (spaces.Box(0, 1, (109,)), spaces.Discrete(146)),
        (spaces.Dict({"observation": spaces.Box(0, 1, (109,))}), spaces.Discrete(146 + 48)),
    ],
    ids=["cart pole", "continuous", "shorter", "odd bins", "no bins", "dict"],
)
def test_spaces_of_another_environment_are_refused(found):
    with pytest.raises(ValueError, match=r"must be those of CrystalGen-v0 in discrete mode, .* got"):
        CrystalFormerPolicy(*found, lambda _: 1e-3, model=CONFIG)


def test_single_environments_work_as_well():
    env = DummyVecEnv([lambda: gym.make("CrystalGen-v0", bins=48, reward=share_of_oxygen, max_sites=2)] * 3)
    ppo = algorithm(env, n_steps=16, batch_size=48)
    ppo.learn(96)
    observations = env.reset()
    ends = 0
    for _ in range(40):
        actions, _ = ppo.predict(observations, action_masks=get_action_masks(env))
        observations, _, done, infos = env.step(actions)
        ends += done.sum()
        assert not any(info["invalid_action"] for info, over in zip(infos, done, strict=True) if over)
    assert ends > 3


def share_of_oxygen(crystals):
    counts = crystals.composition()
    return counts[:, 8] / counts.sum(1)


def mean_reward(ppo, env, steps=60):
    observations, found = env.reset(), []
    for _ in range(steps):
        actions, _ = ppo.predict(observations, action_masks=masks_of(env))
        observations, rewards, done, _ = env.step(actions)
        found += rewards[done].tolist()
    return np.mean(found)


def test_ppo_learns_which_element_is_rewarded():
    env = make(reward=share_of_oxygen, max_sites=2, elements=["Li", "N", "O", "F", "Na", "S", "Cl", "Fe"])
    ppo = algorithm(env, learning_rate=1e-2)
    assert mean_reward(ppo, env) < 0.3
    ppo.learn(3072)
    assert mean_reward(ppo, env) > 0.8
