"""The single environment: Gymnasium's and stable-baselines3's checks, and every promise of its documentation."""

import pickle
import warnings

import gymnasium as gym
import joblib
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import crystal_env
from crystal_env import Crystal, sample_masked
from crystal_env.vocabulary import N_SYMBOLS, STOP, Phase

IDS = ["CrystalGen-v0", "CrystalGen-Coarse-v0"]
SALT = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")


def count(crystals):
    """Return the number of sites as reward: cheap, and different from crystal to crystal."""
    return np.array([len(crystal.W) for crystal in crystals], float)


class Deep:
    """A reward that can be as low as -10."""

    floor = -10.0

    def __call__(self, crystals):
        return np.full(len(crystals), -10.0)


class High(Deep):
    floor = 3.0


def make(id_="CrystalGen-v0", **kwargs):
    return gym.make(id_, **{"reward": count, **kwargs})


def random_action(env, rng):
    return int(sample_masked(env.unwrapped.action_masks()[None], rng)[0])


def roll_out(env, rng, **reset):
    """Roll out one masked random episode; return all step results and the actions."""
    results, actions = [env.reset(**reset)], []
    while True:
        actions.append(random_action(env, rng))
        results.append(env.step(actions[-1]))
        if results[-1][2]:
            return results, actions


@pytest.mark.parametrize("id_", IDS)
def test_gymnasium_checker_has_no_complaint(id_):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(id_).unwrapped)
        check_env(gym.make(id_, space_group="agent").unwrapped, skip_render_check=True)


@pytest.mark.parametrize("id_", IDS)
def test_stable_baselines3_checker_has_no_complaint(id_):
    from stable_baselines3.common.env_checker import check_env as check

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(gym.make(id_), skip_render_check=False)


@pytest.mark.parametrize("id_", IDS)
def test_passive_checker_sees_whole_episodes_without_a_warning(id_):
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(f"crystal_env:{id_}", disable_env_checker=False)
        for seed in range(20):
            roll_out(env, rng, seed=seed)


def test_continuous_mode_passes_the_checker_but_for_box_advice():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(make(action_mode="continuous").unwrapped, skip_render_check=True)
    assert all("symmetric and normalized space" in str(warning.message) for warning in caught)


def test_same_seed_gives_the_same_episode_and_seeds_differ():
    def groups(seed):
        env, rng = make(), np.random.default_rng(7)
        first = roll_out(env, rng, seed=seed)
        return [first] + [roll_out(env, rng) for _ in range(5)]

    for (left, left_actions), (right, right_actions) in zip(groups(3), groups(3), strict=True):
        assert left_actions == right_actions
        assert all(np.array_equal(a[0], b[0]) for a, b in zip(left, right, strict=True))
        assert left[-1][4]["crystal"] == right[-1][4]["crystal"]
    sampled = {seed: [results[0][0][0] for results, _ in groups(seed)] for seed in (3, 4)}
    assert sampled[3] != sampled[4]


def test_pickle_in_mid_episode_continues_identically():
    env, rng = make(space_group="mp20"), np.random.default_rng(1)
    env.reset(seed=5)
    for _ in range(4):
        env.step(random_action(env, rng))
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(3):  # finish this episode and roll out more, so that the generators are compared too
        while True:
            action = random_action(env, rng)
            left, right = env.step(action), twin.step(action)
            assert np.array_equal(left[0], right[0])
            assert left[1:4] == right[1:4]
            assert np.array_equal(left[4]["action_mask"], right[4]["action_mask"])
            if left[2]:
                break
        assert left[4]["crystal"] == right[4]["crystal"]
        assert np.array_equal(env.reset()[0], twin.reset()[0])


def test_observation_is_group_phase_and_the_decisions_so_far():
    env = make(space_group=225)
    observation, _ = env.reset()
    for index, action in enumerate(SALT.to_actions()):
        assert observation[0] == 225
        assert observation[1] == env.unwrapped.states.phase[0]
        assert not observation[2 + index :].any()
        observation, *_ = env.step(action)
        assert observation[2 + index] == action + 1
    assert observation[1] == Phase.DONE


def test_replayed_crystal_comes_back_and_ends_with_everything_in_info():
    env = make(space_group=225)
    env.reset()
    for action in SALT.to_actions():
        observation, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated) == (2.0, True, False)
    assert type(reward) is float
    assert type(terminated) is bool
    crystal = info["crystal"]
    assert (crystal.formula, crystal.letters) == ("NaCl", "ab")
    assert np.array_equal(crystal.XYZ, SALT.XYZ)
    assert np.abs(crystal.L / SALT.L - 1).max() < 0.0022
    assert info["reward_terms"] == {}
    assert info["is_success"] is True
    assert info["reward_failure"] is None
    assert info["invalid_action"] is False
    assert info["action_mask"].dtype == np.int8
    assert np.flatnonzero(info["action_mask"]).tolist() == [STOP]
    assert env.observation_space.contains(observation)


def test_default_reward_reports_the_same_terms_for_every_crystal():
    env, rng = gym.make("CrystalGen-v0"), np.random.default_rng(0)
    keys = {tuple(roll_out(env, rng)[0][-1][4]["reward_terms"]) for _ in range(10)}
    assert len(keys) == 1
    assert {"structural", "compositional"} <= set(keys.pop())


def test_masks_are_fresh_copies():
    env = make()
    _, info = env.reset(seed=0)
    info["action_mask"][:] = 0
    env.unwrapped.action_masks()[:] = False
    assert env.unwrapped.action_masks().any()
    assert "action_mask" not in make(mask_in_info=False).reset()[1]


def test_space_groups_are_sampled_with_the_given_frequencies():
    weights = np.zeros(230)
    weights[[0, 224]] = 1, 3
    env = make(space_group=weights)
    sampled = [env.reset(seed=seed)[0][0] for seed in range(600)]
    assert set(sampled) == {1, 225}
    assert abs(sampled.count(225) - 450) < 5 * np.sqrt(600 * 0.75 * 0.25)


def test_numpy_numbers_are_numbers():
    env = make(space_group=np.array(225), bins=np.int64(48), max_sites=np.int32(2), exclude_radioactive=np.bool_(True))
    assert env.reset()[0][0] == 225
    assert env.action_space.n == N_SYMBOLS + 48


def test_copies_made_array_by_array_keep_the_constraints(tmp_path):
    env = make(formula="NaCl").unwrapped
    env.reset(seed=0)
    joblib.dump(env, tmp_path / "env")
    twin, rng = joblib.load(tmp_path / "env"), np.random.default_rng(0)
    terminated = False
    while not terminated:
        *_, terminated, _, info = twin.step(random_action(twin, rng))
    assert info["crystal"].formula == "NaCl"


def test_space_group_of_the_agent_cannot_be_set_at_reset():
    env = make(space_group="agent")
    with pytest.raises(ValueError, match=r"space_group = 225 has another action space than .* space_group = agent"):
        env.reset(options={"space_group": 225})


def test_agent_can_choose_the_space_group_by_230_more_ids():
    env = make(space_group="agent", max_atoms=1)
    assert env.action_space.n == N_SYMBOLS + 960 + 230
    observation, info = env.reset()
    assert observation[0] == 0
    allowed = np.flatnonzero(info["action_mask"]) - (N_SYMBOLS + 960) + 1
    assert 225 in allowed
    assert 227 not in allowed  # the smallest position of Fd-3m has two atoms in the primitive cell
    observation, *_ = env.step(N_SYMBOLS + 960 + 224)
    assert observation[0] == 225


def test_options_hold_for_one_episode():
    env, rng = make(), np.random.default_rng(0)
    results, _ = roll_out(env, rng, options={"space_group": 194, "formula": "MoS2"})
    assert results[-1][4]["crystal"].G == 194
    assert results[-1][4]["crystal"].formula == "MoS2"
    formulas = {roll_out(env, rng)[0][-1][4]["crystal"].formula for _ in range(5)}
    assert formulas != {"MoS2"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"bins": 50}, "multiple of 24, got 50"),
        ({"bins": 0}, "got 0"),
        ({"action_mode": "both"}, "action_mode must be 'discrete' or 'continuous', got 'both'"),
        ({"invalid_action": "ignore"}, "invalid_action must be 'terminate' or 'raise', got 'ignore'"),
        ({"invalid_reward": float("nan")}, "invalid_reward must be a finite number or None, got nan"),
        ({"invalid_reward": True}, "invalid_reward must be a finite number or None, got True"),
        ({"reward": "no_such_module:reward", "reward_kwargs": 3}, "reward_kwargs must be a dict"),
        ({"reward": 3}, "reward must be callable, got 3"),
        ({"reward_kwargs": 3}, "reward_kwargs must be a dict of keyword arguments, got 3"),
        ({"reward": Deep, "reward_kwargs": {"depth": 3}}, r"reward_kwargs \{'depth': 3\} do not fit reward"),
        ({"reward_kwargs": {"depth": 3}}, r"reward_kwargs \{'depth': 3\} do not fit reward"),
        ({"space_group": 227, "max_atoms": 1}, "space_group = 227 meets the constraints max_atoms = 1"),
        ({"space_group": [225, 227], "max_atoms": 1}, "impossible are \\[227\\]"),
        ({"wyckoff_letters": "aa", "space_group": 225}, "wyckoff_letters = aa"),
        ({"formula": "SrTiO3", "max_atoms": 5000}, "too many to tabulate"),
        ({"required_elements": list(range(1, 31))}, "too many to tabulate"),
        (
            {"site_elements": [[z] for z in range(1, 21)], "tied_sites": [[2 * i, 2 * i + 1] for i in range(10)]},
            "too many",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_unknown_render_modes_are_refused():
    for kind in (crystal_env.CrystalGenEnv, crystal_env.CrystalGenVectorEnv):
        with pytest.raises(ValueError, match=r"render_mode must be None or in .*, got 'film'"):
            kind(render_mode="film")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, "options of reset must be among .* got \\['colour'\\]"),
        ([225], r"options of reset must be a dict of constraints, got \[225\]"),
        ({"space_group": 999}, "got 999"),
        ({"space_group": "agent"}, "space_group = agent has another action space"),
        ({"formula": "NaCl", "space_group": 227, "max_atoms": 2}, "no crystal in space_group = 227"),
    ],
)
def test_bad_options_are_refused_and_the_episode_continues(options, message):
    env = make()
    before, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)
    assert np.array_equal(env.unwrapped.states.observations[0], before)
    env.step(random_action(env, np.random.default_rng(0)))


@pytest.mark.parametrize("action", [1.0, np.array([1]), "a", None, True, np.zeros(2, int)])
def test_actions_of_wrong_dtype_or_shape_change_nothing(action):
    env = make().unwrapped
    before, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="action must be integers of shape"):
        env.step(action)
    assert np.array_equal(env.states.observations[0], before)


@pytest.mark.parametrize("action", [STOP, 500, -1, 10**6])
def test_action_that_is_not_allowed_ends_the_episode(action):
    env = make(invalid_reward=-3.0).unwrapped
    before, _ = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated) == (-3.0, True, False)
    assert info["invalid_action"] is True
    assert info["is_success"] is False
    assert "crystal" not in info
    assert np.array_equal(observation, before)
    assert info["action_mask"].any()
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(1)
    env.reset()
    assert env.step(1)[2] is False


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"reward": Deep()}, -10.0),
        ({"reward": f"{__name__}:Deep"}, -10.0),
        ({"reward": High()}, -1.0),
        ({"reward": count}, -1.0),
        ({"reward": None}, -1.0),
        ({"reward": Deep(), "invalid_reward": 2}, 2.0),
        ({"reward": f"{__name__}:Deep", "invalid_reward": -0.5}, -0.5),
    ],
)
def test_an_invalid_action_earns_no_more_than_the_floor(kwargs, expected):
    env = make(**kwargs)
    env.reset(seed=0)
    assert env.step(STOP)[1] == expected
    task = env.get_wrapper_attr("crystal_task")
    assert task.invalid_reward == expected
    assert task.scorer is None or task.scorer.floor == expected


def test_a_reward_given_by_name_is_resolved_for_its_floor():
    env = make(reward="no_such_module:reward")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="reward 'no_such_module:reward' cannot be imported"):
        env.step(STOP)


def test_raise_mode_names_the_action_and_changes_nothing():
    env = make(invalid_action="raise", space_group=225).unwrapped
    env.reset()
    with pytest.raises(
        ValueError, match="action 500 is not allowed in environment 0 at phase LETTER; allowed are the 12"
    ):
        env.step(500)
    assert env.step(1)[2] is False


def test_step_before_reset_and_after_the_end_ask_for_reset():
    env = make()
    with pytest.raises(ResetNeeded):
        env.unwrapped.step(1)
    roll_out(env, np.random.default_rng(0))
    with pytest.raises(ResetNeeded):
        env.step(STOP)


def fails(crystals):
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("reward", "reason"),
    [
        (fails, "RuntimeError: out of order"),
        (lambda crystals: np.full(len(crystals), np.nan), "the reward is nan"),
        (lambda crystals: np.zeros(len(crystals) + 1), "shape"),
    ],
)
def test_failing_reward_gives_the_floor_and_a_reason(reward, reason):
    env = make(reward=reward, invalid_reward=-2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        results, _ = roll_out(env, np.random.default_rng(0))
        _, value, terminated, _, info = results[-1]
    assert (value, terminated) == (-2.0, True)
    assert reason in info["reward_failure"]
    assert info["is_success"] is False
    assert isinstance(info["crystal"], Crystal)


def test_reward_strings_are_resolved_when_first_needed():
    env = make(reward="no_such_module:reward", space_group=225)
    env.reset()
    actions = SALT.to_actions()
    for action in actions[:-1]:
        env.step(action)
    with pytest.raises(ValueError, match="reward 'no_such_module:reward' cannot be imported"):
        env.step(actions[-1])


def test_reward_none_leaves_crystals_unscored():
    env = make(reward=None)
    info = roll_out(env, np.random.default_rng(0))[0][-1][4]
    assert "reward_terms" not in info
    assert isinstance(info["crystal"], Crystal)


def test_continuous_mode_keeps_the_exact_numbers():
    crystal = Crystal.from_string("14-e-Fe-0.123456-0.234567-0.345678-e-O-0.4-0.9-0.7-X-5.1-6.2-7.3-90-101.7-90")
    env = make(action_mode="continuous", space_group=14)
    env.reset()
    for action in crystal.to_actions(env.unwrapped.vocabulary):
        observation, _, terminated, _, info = env.step(action)
        assert env.observation_space.contains(observation)
    assert terminated
    assert np.abs(info["crystal"].XYZ - crystal.XYZ).max() < 1e-6
    assert np.abs(info["crystal"].L / crystal.L - 1).max() < 1e-6


@pytest.mark.parametrize("action", [[1, np.nan], [np.nan, 0.5], [1, 1.5]])
def test_continuous_values_out_of_bounds_are_not_allowed(action):
    env = make(action_mode="continuous", space_group=1).unwrapped
    env.reset()
    env.step(np.array([1, 0], np.float32))
    env.step(np.array([28, 0], np.float32))
    assert env.states.phase[0] == Phase.X
    *_, info = env.step(np.array(action, np.float32))
    assert info.get("invalid_action", False) == (not 0 <= action[1] <= 1)


def test_continuous_gamma_is_bounded_so_that_the_cell_exists():
    env = make(action_mode="continuous", space_group=1).unwrapped
    env.reset()
    for action in [
        (1, 0),
        (28, 0),
        (0, 0.1),
        (0, 0.1),
        (0, 0.1),
        (0, 0),
        (0, 0.5),
        (0, 0.5),
        (0, 0.5),
        (0, 0.1),
        (0, 0.1),
    ]:
        env.step(np.array(action, np.float32))
    low, high = env.value_bounds()
    assert env.states.phase[0] == Phase.GAMMA
    assert 0 <= low < high < 1
    for u, refused in ((low, False), (high, False), (low - 1e-3, True), (high + 1e-3, True)):
        twin = pickle.loads(pickle.dumps(env))
        assert twin.step(np.array([0, u], np.float32))[4]["invalid_action"] is refused


def test_import_is_light():
    import subprocess
    import sys

    heavy = ("torch", "stable_baselines3", "pymatgen", "scipy", "matplotlib")
    code = f"import crystal_env, sys; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_specs_can_be_written_as_json():
    spec = gym.make("CrystalGen-v0", formula="SrTiO3").spec
    again = gym.make(gym.envs.registration.EnvSpec.from_json(spec.to_json()))
    assert again.spec.kwargs["formula"] == "SrTiO3"
    assert crystal_env.CrystalGenEnv.__doc__
