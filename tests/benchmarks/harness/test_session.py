import gymnasium as gym
import pytest

from benchmarks.harness.session import Session
from benchmarks.tasks import find_task
from crystal_env import Crystal

TASK = find_task("validity").resized(budget=50, size=40)


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
