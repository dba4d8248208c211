import json
from dataclasses import asdict, replace

import gymnasium as gym
import pytest

from benchmarks.tasks import TASKS, find_task


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_each_task_is_an_environment_found_by_its_names(task):
    assert find_task(task.id) is find_task(task.name) is task
    assert json.loads(json.dumps(asdict(task))) == json.loads(json.dumps(asdict(replace(task))))
    spec = gym.spec(task.id)
    assert json.loads(spec.to_json())["id"] == task.id
    env = gym.make(task.id)
    observation, info = env.reset(seed=0)
    assert info["action_mask"].any()
    assert observation in env.observation_space


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"stability.*got 'stabilty'"):
        find_task("stabilty")
