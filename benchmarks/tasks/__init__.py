"""The benchmark's tasks: environments with a frozen definition, whose oracle is metered.

`task` is the definition, `catalogue` holds all of them, `oracle` is the reward that counts its calls; `targets` and
`perovskites` are rewards that only tasks use. Importing this package registers the tasks with Gymnasium.
"""

from typing import Any

import gymnasium as gym

import crystal_env  # noqa: F401  registers the environments that the tasks are variants of
from benchmarks.tasks.catalogue import TASKS, find_task
from benchmarks.tasks.oracle import Oracle
from benchmarks.tasks.task import Task

__all__ = ["TASKS", "Oracle", "Task", "env_kwargs", "find_task"]


def env_kwargs(task: Task) -> dict[str, Any]:
    """Return the arguments of `crystal_env.CrystalGenEnv` that make a task's environment, its reward apart."""
    return {**task.constraints, "invalid_reward": task.floor}


for _task in TASKS:
    gym.register(
        id=_task.id,
        entry_point="crystal_env.env:CrystalGenEnv",
        vector_entry_point="crystal_env.vector_env:CrystalGenVectorEnv",
        kwargs={
            **env_kwargs(_task.case(0)),
            "reward": "benchmarks.tasks.oracle:Oracle",
            "reward_kwargs": {"task": _task.id},
        },
    )
