"""The native vector environment is N single ones, value by value and info by info, in every autoreset mode."""

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import crystal_env
from crystal_env import Crystal, RewardResult, sample_masked

MODES = list(AutoresetMode)
IDS = ["CrystalGen-v0", "CrystalGen-Coarse-v0"]


def terms_and_failures(crystals):
    """Score by numbers of sites and atoms; crystals with an odd number of sites fail."""
    sites = np.array([len(crystal.W) for crystal in crystals], float)
    reasons = np.array([None if n % 2 == 0 else f"{n:.0f} sites" for n in sites], object)
    return RewardResult(sites, {"sites": sites, "atoms": crystals.n_atoms().astype(float)}, reasons)


def make(num_envs=4, id_="CrystalGen-v0", **kwargs):
    return gym.make_vec(id_, num_envs=num_envs, **{"reward": terms_and_failures, **kwargs})


def assert_same(left, right, path="info"):
    """Compare infos: same keys, types, dtypes and values."""
    if isinstance(left, dict):
        assert list(sorted(left)) == list(sorted(right)), path
        for key in left:
            assert_same(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape), path
        if left.dtype == object:
            for one, other in zip(left, right, strict=True):
                assert_same(one, other, path)
        else:
            assert np.array_equal(left, right), path
    else:
        assert left == right, path


def legal_or_wild(masks, rng, wild=0.03):
    """Return random legal actions, a few of them replaced by any action at all."""
    actions = sample_masked(masks, rng)
    anything = rng.random(len(masks)) < wild
    return np.where(anything, rng.integers(0, masks.shape[1], len(masks)), actions)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kwargs", [{}, {"bins": 48, "space_group": "agent"}, {"formula": "SrTiO3"}])
def test_vector_environment_equals_single_ones_action_by_action(mode, kwargs):
    kwargs = {"reward": terms_and_failures, **kwargs}
    native = gym.make_vec("CrystalGen-v0", num_envs=6, autoreset_mode=mode, **kwargs)
    single = SyncVectorEnv(
        [lambda: gym.make("CrystalGen-v0", disable_env_checker=True, **kwargs)] * 6, autoreset_mode=mode
    )
    rng = np.random.default_rng(0)
    for left, right in zip(native.reset(seed=11), single.reset(seed=11), strict=True):
        assert_same(left, right)
    ends = 0
    for _ in range(400):
        actions = legal_or_wild(native.action_masks(), rng)
        left, right = native.step(actions), single.step(actions)
        for part, other in zip(left, right, strict=True):
            assert_same(part, other)
        ended = left[2]
        ends += ended.sum()
        if mode == AutoresetMode.DISABLED and ended.any():
            options = {"reset_mask": ended, "max_sites": 3}
            for part, other in zip(native.reset(options=dict(options)), single.reset(options=options), strict=True):
                assert_same(part, other)
    assert ends > 60


def test_continuous_mode_equals_single_ones_too():
    kwargs = {"reward": terms_and_failures, "action_mode": "continuous", "space_group": [1, 2, 14, 225]}
    native = gym.make_vec("CrystalGen-v0", num_envs=4, **kwargs)
    single = SyncVectorEnv([lambda: gym.make("CrystalGen-v0", disable_env_checker=True, **kwargs)] * 4)
    rng = np.random.default_rng(1)
    native.reset(seed=0), single.reset(seed=0)
    for _ in range(200):
        bounds = native.value_bounds()
        units = rng.uniform(bounds[:, 0], bounds[:, 1])
        actions = np.stack([sample_masked(native.action_masks(), rng), units], axis=1).astype(np.float32)
        for part, other in zip(native.step(actions), single.step(actions), strict=True):
            assert_same(part, other)


@pytest.mark.parametrize("id_", IDS)
def test_spaces_and_metadata_are_what_gymnasium_expects(id_):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make(3, id_)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert env.spec.id == id_
    observations, info = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    assert env.single_action_space == gym.make(id_).action_space
    assert info["action_mask"].shape == (3, env.single_action_space.n)
    actions = env.action_space.sample(tuple(info["action_mask"]))
    observations, rewards, terminated, truncated, _ = env.step(actions)
    assert env.observation_space.contains(observations)
    assert (rewards.dtype, terminated.dtype, truncated.dtype) == (np.float64, bool, bool)


def test_returned_arrays_are_never_reused():
    env, rng = make(4), np.random.default_rng(0)
    observations, info = env.reset(seed=0)
    kept = (observations.copy(), info["action_mask"].copy())
    for _ in range(30):
        env.step(sample_masked(env.action_masks(), rng))
    assert np.array_equal(observations, kept[0])
    assert np.array_equal(info["action_mask"], kept[1])


def test_gymnasium_statistics_wrapper_counts_episodes():
    env, rng = RecordEpisodeStatistics(make(4)), np.random.default_rng(0)
    env.reset(seed=0)
    returns = []
    for _ in range(100):
        *_, info = env.step(sample_masked(env.unwrapped.action_masks(), rng))
        if "episode" in info:
            returns += list(info["episode"]["r"][info["_episode"]])
            assert np.array_equal(info["_crystal"], info["_episode"])
    assert returns
    assert min(returns) >= 1


def test_seeds_reproduce_and_lists_of_seeds_seed_each_copy():
    first, _ = make(5).reset(seed=3)
    again, _ = make(5).reset(seed=[3, 4, 5, 6, 7])
    other, _ = make(5).reset(seed=4)
    assert np.array_equal(first, again)
    assert np.array_equal(first[1:], other[:-1])
    env = make(5)
    env.reset(seed=3)
    assert env.unwrapped.np_random_seed == (3, 4, 5, 6, 7)
    for seed, given in (([1, 2], "2 seeds"), ("abcde", "'abcde'"), (1.5, "1.5")):
        with pytest.raises(ValueError, match=f"seed must be an integer or a list of 5 seeds, got {given}"):
            env.reset(seed=seed)


def test_pickle_in_mid_episode_continues_identically():
    env, rng = make(6), np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(7):
        env.step(sample_masked(env.action_masks(), rng))
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(60):
        actions = sample_masked(env.action_masks(), rng)
        for part, other in zip(env.step(actions), twin.step(actions), strict=True):
            assert_same(part, other)


@pytest.mark.parametrize(
    "actions", [np.zeros(3, int), np.zeros(4), np.zeros((4, 1), int), None, "abcd", np.zeros(4, bool), [1, 2, 3, "a"]]
)
def test_actions_of_wrong_dtype_or_shape_change_nothing(actions):
    env = make(4)
    before, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must be integers of shape \(4,\)"):
        env.step(actions)
    assert np.array_equal(env.states.observations, before)
    env.step(sample_masked(env.action_masks(), np.random.default_rng(0)))


def test_raise_mode_changes_no_copy():
    env = make(3, invalid_action="raise")
    before, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="action 700 is not allowed in environment 1"):
        env.step(np.array([1, 700, 1]))
    assert np.array_equal(env.states.observations, before)


def test_step_before_reset_and_after_the_end_ask_for_reset():
    env = make(2, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ResetNeeded):
        env.step(np.array([1, 1]))
    env.reset(seed=0)
    *_, terminated, _, _ = env.step(np.array([1, 0]))
    assert terminated.tolist() == [False, True]
    with pytest.raises(ResetNeeded, match=r"\[1\] have ended"):
        env.step(np.array([28, 1]))
    with pytest.raises(ValueError, match="reset_mask must be bools"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})
    env.reset(options={"reset_mask": terminated})
    env.step(np.array([28, 1]))


def test_an_unknown_autoreset_mode_is_refused():
    with pytest.raises(
        ValueError, match=r"autoreset_mode must be one of \['NextStep', 'SameStep', 'Disabled'\], got 'no'"
    ):
        make(2, autoreset_mode="no")


def test_the_vector_environment_has_a_task_and_a_floor_too():
    class Deep:
        floor = -10.0

        def __call__(self, crystals):
            return np.full(len(crystals), -10.0)

    env = make(3, reward=Deep(), bins=48)
    env.reset(seed=0)
    assert env.step(np.zeros(3, int))[1].tolist() == [-10.0] * 3
    task = env.unwrapped.crystal_task
    assert (task.bins, task.invalid_reward, task.scorer.floor) == (48, -10.0, -10.0)


def test_bad_options_leave_every_episode_as_it_was():
    env = make(3)
    before, _ = env.reset(seed=0)
    for options in ({"colour": "red"}, 5, [1]):
        with pytest.raises(ValueError, match="options of reset"):
            env.reset(options=options)
    assert np.array_equal(env.states.observations, before)


def test_one_bad_crystal_keeps_the_rewards_of_the_others():
    calls = []

    def breaks_on_salt(crystals):
        calls.append(len(crystals))
        if any(crystal.formula == "NaCl" for crystal in crystals):
            raise ArithmeticError("salt")
        return np.ones(len(crystals))

    salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
    lime = Crystal.from_string("225-a-Ca-0-0-0-b-O-1/2-1/2-1/2-X-4.8-4.8-4.8-90-90-90")
    env = make(3, reward=breaks_on_salt, space_group=225, invalid_reward=-5.0)
    env.reset()
    for actions in np.stack([lime.to_actions(), salt.to_actions(), lime.to_actions()], axis=1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            _, rewards, terminated, _, info = env.step(actions)
    assert terminated.all()
    assert rewards.tolist() == [1.0, -5.0, 1.0]
    assert info["reward_failure"].tolist() == [None, "ArithmeticError: salt", None]
    assert [crystal.formula for crystal in info["crystal"]] == ["CaO", "NaCl", "CaO"]
    assert calls == [3, 1, 1, 1]


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, True])
def test_number_of_copies_must_be_positive(num_envs):
    with pytest.raises(ValueError, match="num_envs must be a positive integer"):
        crystal_env.CrystalGenVectorEnv(num_envs)


def test_rendering_gives_a_frame_for_every_copy():
    env = make(2, render_mode="ansi", space_group=[194])
    env.reset()
    assert env.render() == ("194-...", "194-...")
    env = make(2, render_mode="rgb_array")
    env.reset()
    assert [frame.shape[2] for frame in env.render()] == [3, 3]
