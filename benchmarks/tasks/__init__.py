"""The benchmark's tasks: environments with a frozen definition, whose oracle is metered."""

from typing import Any

import gymnasium as gym

import crystal_env  # noqa: F401  registers the environments that the tasks are variants of
from benchmarks.tasks.catalogue import TASKS
from benchmarks.tasks.oracle import Oracle
from benchmarks.tasks.task import Task
from crystal_env.errors import InputError

__all__ = ["TASKS", "Oracle", "Task", "env_kwargs", "find_task"]


def find_task(name: str) -> Task:
    """Return the task of an id or a short name, such as ``"CrystalGen-Stability-v1"`` or ``"stability"``.

    Raises:
        ValueError: if there is none.
    """
    for task in TASKS:
        if name in (task.id, task.name):
            return task
    raise InputError(
        f"task must be one of {[task.name for task in TASKS]} or an id such as {TASKS[0].id}, got {name!r}"
    )


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
