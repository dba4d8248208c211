import copy
import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import crystal_env  # noqa: F401  registers CrystalGen-v0
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult
from rewards import CrystalReward, Density, Validity, VectorCrystalReward


class CountSites:
    """The number of sites, with a term; it refuses crystals that hold hydrogen, and counts its calls."""

    def __init__(self):
        self.batches = []

    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        self.batches.append(len(crystals))
        sites = crystals.n_sites().astype(float)
        failures = np.full(len(crystals), None, object)
        failures[crystals.composition()[:, 1] > 0] = "hydrogen"
        return RewardResult(sites, {"twice": 2 * sites, "success": (sites > 1) * 1.0}, failures)


def allowed(mask, rng):
    return (mask * rng.random(mask.shape)).argmax(-1)


def play(env, rng, seed=None):
    """Play one episode with random allowed actions; return the last step."""
    _, info = env.reset(seed=seed)
    while True:
        step = env.step(int(allowed(info["action_mask"], rng)))
        info = step[4]
        if step[2] or step[3]:
            return step
        assert step[1] == 0
        assert "reward_terms" not in info


def test_finished_crystal_gets_the_reward_and_its_entries():
    reward, rng = CountSites(), np.random.default_rng(0)
    env = CrystalReward(gym.make("CrystalGen-v0"), reward)
    for seed in range(5):
        _, value, terminated, _, info = play(env, rng, seed)
        sites = len(info["crystal"].W)
        assert terminated
        assert value == sites
        assert info["reward_terms"] == {"twice": 2.0 * sites, "success": float(sites > 1)}
        assert info["reward_failure"] == ("hydrogen" if 1 in info["crystal"].A else None)
        assert info["is_success"] == (sites > 1 and 1 not in info["crystal"].A)
    assert reward.batches == [1] * 5


def test_reward_of_the_wrapped_environment_is_not_computed():
    inner = CountSites()
    env = CrystalReward(gym.make("CrystalGen-v0", reward=inner), CountSites())
    play(env, np.random.default_rng(0), 0)
    assert inner.batches == []


def test_episode_ended_by_an_invalid_action_keeps_its_reward():
    env = CrystalReward(gym.make("CrystalGen-v0", invalid_reward=-3.0), CountSites())
    _, info = env.reset(seed=0)
    _, value, terminated, _, info = env.step(int(np.flatnonzero(info["action_mask"] == 0)[0]))
    assert terminated
    assert value == -3.0
    assert info["invalid_action"]


def test_crystal_that_cannot_be_scored_gets_the_floor_and_a_reason():
    def broken(crystals):
        raise RuntimeError("no")

    env = CrystalReward(gym.make("CrystalGen-v0"), broken, floor=-7.0)
    with pytest.warns(RuntimeWarning, match="RuntimeError: no"):
        _, value, _, _, info = play(env, np.random.default_rng(0), 0)
    assert value == -7.0
    assert info["reward_failure"] == "RuntimeError: no"


def test_plain_function_and_name_are_rewards_too():
    rng = np.random.default_rng(0)
    env = CrystalReward(gym.make("CrystalGen-v0"), lambda crystals: -crystals.volume_per_atom())
    _, value, _, _, info = play(env, rng, 0)
    assert value == pytest.approx(-info["crystal"].to_batch().volume_per_atom()[0])
    env = CrystalReward(gym.make("CrystalGen-v0"), "rewards:Validity")
    _, value, _, _, info = play(env, rng, 0)
    assert value == Validity()([info["crystal"]]).total[0]


def test_wrong_reward_is_a_value_error():
    with pytest.raises(ValueError, match="reward must be callable, got 3"):
        CrystalReward(gym.make("CrystalGen-v0"), 3)
    with pytest.raises(ValueError, match="cannot be imported"):
        VectorCrystalReward(gym.make_vec("CrystalGen-v0", num_envs=2), "rewards:Nothing")


def test_wrapped_environment_has_a_spec_that_makes_it_again():
    env = CrystalReward(gym.make("CrystalGen-v0"), "rewards:Validity", floor=-2.0)
    wrapper = env.spec.additional_wrappers[-1]
    assert wrapper.kwargs == {"reward": "rewards:Validity", "floor": -2.0}
    assert json.loads(env.spec.to_json())
    again = gym.make(env.spec)
    play(again, np.random.default_rng(0), 0)


def test_reward_is_not_copied_with_the_arguments():
    class Uncopyable(CountSites):
        def __deepcopy__(self, memo):
            raise AssertionError

    CrystalReward(gym.make("CrystalGen-v0"), Uncopyable())
    VectorCrystalReward(gym.make_vec("CrystalGen-v0", num_envs=2), Uncopyable())


def test_wrapped_environment_can_be_copied():
    env = CrystalReward(gym.make("CrystalGen-v0"), Validity())
    other = copy.deepcopy(env)
    rng = [np.random.default_rng(0) for _ in range(2)]
    first, second = play(env, rng[0], 0), play(other, rng[1], 0)
    assert first[1] == second[1]
    assert first[4]["crystal"] == second[4]["crystal"]


def final_entries(info):
    return info.get("final_info", info)


@pytest.fixture(params=["native", "sync"])
def make_vector(request):
    """A function from an autoreset mode and keyword arguments to a vector environment, native or Gymnasium's own."""

    def make(mode, **kwargs):
        if request.param == "native":
            return gym.make_vec("CrystalGen-v0", num_envs=4, autoreset_mode=mode, **kwargs)
        makers = [lambda: gym.make("CrystalGen-v0", **kwargs)] * 4
        return gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)

    return make


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_crystals_that_end_at_one_step_are_scored_in_one_call(mode, make_vector):
    reward, rng = CountSites(), np.random.default_rng(0)
    venv = VectorCrystalReward(make_vector(mode), reward)
    _, info = venv.reset(seed=0)
    ended = []
    for _ in range(250):
        calls = len(reward.batches)
        _, values, terminated, _, info = venv.step(allowed(info["action_mask"], rng))
        assert values.shape == (4,)
        assert values[~terminated].tolist() == [0.0] * int((~terminated).sum())
        if not terminated.any():
            assert len(reward.batches) == calls
            continue
        final = final_entries(info)
        assert reward.batches[calls:] == [int(terminated.sum())]
        ended.append(int(terminated.sum()))
        for row in np.flatnonzero(terminated):
            crystal = final["crystal"][row]
            assert values[row] == len(crystal.W) == final["reward_terms"]["twice"][row] / 2
            assert final["reward_failure"][row] == ("hydrogen" if 1 in crystal.A else None)
        for name in ("_reward_terms", "_is_success", "_reward_failure"):
            assert np.array_equal(final[name], terminated)
        assert np.array_equal(final["reward_terms"]["_twice"], terminated)
    assert len(ended) > 10


def test_reward_of_the_wrapped_vector_environment_is_not_computed(make_vector):
    inner, rng = CountSites(), np.random.default_rng(0)
    venv = VectorCrystalReward(make_vector(AutoresetMode.SAME_STEP, reward=inner), CountSites())
    _, info = venv.reset(seed=0)
    for _ in range(60):
        *_, info = venv.step(allowed(info["action_mask"], rng))
    assert inner.batches == []


def test_invalid_actions_in_a_batch_keep_their_reward(make_vector):
    venv = VectorCrystalReward(make_vector(AutoresetMode.SAME_STEP, invalid_reward=-3.0), CountSites())
    _, info = venv.reset(seed=0)
    actions = info["action_mask"].argmax(1)
    actions[2] = info["action_mask"][2].argmin()
    _, values, terminated, _, _ = venv.step(actions)
    assert terminated.tolist() == [False, False, True, False]
    assert values.tolist() == [0, 0, -3, 0]


def test_single_and_vector_wrapper_give_the_same_rewards():
    rng = np.random.default_rng(0)
    venv = VectorCrystalReward(
        gym.make_vec("CrystalGen-v0", num_envs=3, autoreset_mode=AutoresetMode.DISABLED), Validity()
    )
    venv.reset(seed=0)
    single = Validity()
    finished = 0
    for _ in range(120):
        _, values, terminated, _, info = venv.step(allowed(venv.unwrapped.action_masks(), rng))
        for row in np.flatnonzero(terminated):
            assert values[row] == single([info["crystal"][row]]).total[0]
            finished += 1
        if terminated.any():
            venv.reset(options={"reset_mask": terminated})
    assert finished > 3


def invalid_step(env):
    """The reward of an action that is not allowed."""
    _, info = env.reset(seed=0)
    mask = info["action_mask"]
    action = mask.argmin(-1)
    return np.atleast_1d(env.step(int(action) if mask.ndim == 1 else action)[1])[0]


WRAPPED = {
    "single": lambda reward, **options: CrystalReward(gym.make("CrystalGen-v0", **options), reward),
    "vector": lambda reward, **options: VectorCrystalReward(
        gym.wrappers.vector.RecordEpisodeStatistics(gym.make_vec("CrystalGen-v0", num_envs=2, **options)), reward
    ),
    "copies": lambda reward, **options: VectorCrystalReward(
        gym.vector.SyncVectorEnv([lambda: gym.make("CrystalGen-v0", **options)] * 2), reward
    ),
}


def task_of(env):
    return env.get_wrapper_attr("crystal_task") if isinstance(env, gym.Env) else env.crystal_task


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_an_invalid_action_costs_the_floor_of_the_reward(wrap):
    assert invalid_step(wrap(Density(clip=4.0))) == task_of(wrap(Density(clip=4.0))).invalid_reward == -4.0
    assert invalid_step(wrap(Validity())) == -1.0
    assert invalid_step(wrap(CountSites())) == -1.0
    assert invalid_step(wrap(Density(clip=4.0), invalid_reward=-2.5)) == -2.5


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_the_task_of_a_wrapped_environment_has_its_scorer(wrap):
    reward = Density(clip=4.0)
    env = wrap(reward, formula="NaCl", bins=48)
    task = task_of(env)
    assert task.scorer is env.scorer
    assert task.scorer.reward is reward
    assert task.scorer.floor == -4.0
    assert (task.bins, task.grammar.constraints.in_words()["formula"]) == (48, "NaCl")


def test_of_several_rewards_the_outermost_counts():
    inner, outer = Density(clip=4.0), Density(clip=2.0)
    env = CrystalReward(gym.wrappers.RecordEpisodeStatistics(CrystalReward(gym.make("CrystalGen-v0"), inner)), outer)
    assert env.get_wrapper_attr("crystal_task").scorer.reward is outer
    vector = gym.make_vec("CrystalGen-v0", num_envs=2)
    venv = VectorCrystalReward(VectorCrystalReward(vector, inner), outer)
    assert venv.crystal_task.scorer.reward is outer
    assert invalid_step(env) == invalid_step(venv) == -2.0
    above = gym.wrappers.TimeLimit(env, 100)
    assert above.get_wrapper_attr("crystal_task").scorer.reward is outer


@pytest.mark.parametrize("floor", [np.nan, np.inf, "low"])
def test_a_floor_is_a_finite_number(floor):
    with pytest.raises(InputError, match="floor must be a finite number, got"):
        CrystalReward(gym.make("CrystalGen-v0"), Validity(), floor=floor)
