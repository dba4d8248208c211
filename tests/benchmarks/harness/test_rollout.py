import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from agents import KLPPO, CrystalVecEnv
from benchmarks.harness.rollout import Drawn, draw, keeps
from benchmarks.harness.session import Session
from benchmarks.tasks import Task, find_task
from crystal_env import Crystal, CrystalBatch, sample_masked

TASK = find_task("validity").resized(budget=50, size=40)


class Random:
    def __init__(self, **env_kwargs):
        self.env_kwargs, self.rng, self.seen = env_kwargs, np.random.default_rng(0), []

    def seed(self, seed):
        self.rng = np.random.default_rng(seed)

    def act(self, observations, masks):
        self.seen.append((len(observations), masks.shape))
        return sample_masked(masks, self.rng)


class Stopper(Random):
    """Does what is not allowed in every second row."""

    def act(self, observations, masks):
        actions = super().act(observations, masks)
        return np.where(observations[:, 0] % 2, actions, 0)


def test_one_episode_is_played_in_each_attempt_in_the_group_that_was_requested():
    player = Random(bins=48)
    drawn = draw(player, TASK, seed=3)
    assert len(drawn.crystals) == len(drawn.rows) == len(drawn.requested) == 40
    assert drawn.crystals.G.tolist() == drawn.requested[drawn.rows].tolist()
    assert player.seen[0] == (40, (40, 146 + 48))
    assert player.seen[-1][0] < 40
    again = draw(Random(bins=48), TASK, seed=3)
    assert [str(a) for a in drawn.crystals] == [str(b) for b in again.crystals]
    other = draw(Random(bins=48), TASK, seed=4)
    assert other.requested.tolist() != drawn.requested.tolist()


def test_requested_groups_do_not_depend_on_who_plays():
    class Drawer:
        def sample(self, space_groups, seed):
            return draw(Random(), TASK, seed=3).crystals

    assert draw(Drawer(), TASK, seed=3).requested.tolist() == draw(Random(), TASK, seed=3).requested.tolist()


def test_actions_that_are_not_allowed_are_failures_and_harm_no_other_attempt():
    drawn = draw(Stopper(), TASK, seed=0)
    odd = drawn.requested % 2 == 1
    assert set(drawn.rows.tolist()) == set(np.flatnonzero(odd).tolist())
    assert [failure is None for failure in drawn.failures] == odd.tolist()
    assert drawn.failures[np.flatnonzero(~odd)[0]] == "action 0 is not allowed"


def test_crystals_of_other_groups_and_against_the_constraints_are_failures():
    task = Task("CrystalGen-X-v1", 0, "", "rewards:Validity", "S.U.N.", constraints={"elements": ["Na", "Cl"]}, size=3)
    texts = ["225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5-5-5-90-90-90", "225-a-Mg-0-0-0-b-O-1/2-1/2-1/2-X-4-4-4-90-90-90"]
    batch = CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])
    assert keeps(batch, task).tolist() == [True, False]
    drawn = draw(batch, task, seed=0)
    assert drawn.rows.tolist() == [0]
    assert drawn.failures.tolist() == [None, "the crystal does not meet the task's constraints", "missing"]

    class Wrong:
        def sample(self, space_groups, seed):
            return CrystalBatch.concatenate([batch[:1]] * len(space_groups))

    wrong = draw(Wrong(), task, seed=0)
    assert set(wrong.rows) == set(np.flatnonzero(wrong.requested == 225))
    assert all("requested was" in failure for failure in wrong.failures if failure)


def test_what_was_drawn_is_read_back(tmp_path):
    drawn = draw(Stopper(), TASK, seed=0)
    drawn.save(tmp_path / "crystals.npz")
    read = Drawn.load(tmp_path / "crystals.npz")
    assert [str(a) for a in drawn.crystals] == [str(b) for b in read.crystals]
    assert read.failures.tolist() == drawn.failures.tolist()
    assert read.rows.tolist() == drawn.rows.tolist()
    assert len(CrystalBatch.load(tmp_path / "crystals.npz")) == len(drawn.crystals)


def test_files_name_the_rows_that_are_no_crystals(tmp_path):
    path = tmp_path / "made.csv"
    good = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5-5-5-90-90-90").to_structure().to(fmt="cif")
    import pandas as pd

    pd.DataFrame({"cif": [good, "nonsense", good]}).to_csv(path, index=False)
    drawn = draw(path, TASK.resized(size=4), seed=0)
    assert drawn.rows.tolist() == [0, 2]
    assert drawn.failures[1] not in (None, "missing")
    assert drawn.failures[3] == "missing"


def test_stock_agents_play_with_masks_if_they_know_them_and_fail_without(recwarn):
    session = Session(TASK)
    make = lambda: CrystalVecEnv(session.make_vec(8, bins=24))  # noqa: E731
    kwargs = {"n_steps": 32, "batch_size": 256, "n_epochs": 1, "device": "cpu", "seed": 0}
    masked = MaskablePPO("MlpPolicy", make(), **kwargs).learn(10_000, callback=session.callback())
    assert session.oracle.spent
    drawn = draw(masked, TASK, seed=0)
    assert len(drawn.rows) == 40
    again = draw(masked, TASK, seed=0)
    assert [str(a) for a in drawn.crystals] == [str(b) for b in again.crystals]
    blind = draw(PPO("MlpPolicy", make(), **kwargs), TASK, seed=0)
    assert len(blind.rows) < 40


def test_klppo_draws_in_the_requested_groups_and_tells_its_likelihoods():
    session = Session(TASK)
    agent = KLPPO("CrystalFormerPolicy", session.make_vec(1), batch_size=8, policy_kwargs={"model": "mp20"}, seed=0)
    drawn = draw(agent, TASK.resized(size=6), seed=0)
    assert drawn.crystals.G.tolist() == drawn.requested.tolist()
    assert np.isfinite(drawn.log_prob).all()


@pytest.mark.parametrize("kwargs", [{"space_group": 1}, {"reward": None}, {"invalid_reward": 0.0}])
def test_session_does_not_let_an_agent_change_the_task(kwargs):
    session = Session(find_task("groups"))
    with pytest.raises(ValueError, match=r"fixed by CrystalGen-Groups-v1"):
        session.make(**kwargs)
    with pytest.raises(ValueError, match="of one case"):
        Session(find_task("structure-prediction"))


def test_session_makes_environments_around_one_oracle():
    session = Session(TASK)
    env, vec = session.make(bins=48), session.make_vec(2)
    assert isinstance(env.action_space, gym.spaces.Discrete)
    assert env.unwrapped._episodes.scorer.reward is vec.unwrapped._episodes.scorer.reward is session.oracle
    session.score([Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5-5-5-90-90-90")])
    assert session.oracle.calls == 1


def test_nothing_that_can_play_is_refused_with_what_can():
    with pytest.raises(ValueError, match=r"act\(observations, masks\).*got 7"):
        draw(7, TASK, seed=0)
