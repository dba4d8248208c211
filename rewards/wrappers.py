"""Gymnasium wrappers that replace the reward of any environment that builds crystals."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch
from crystal_env.episodes import CrystalTask
from crystal_env.reward import Reward, Scorer, default_floor, resolve_reward


class CrystalReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Scores the finished crystal of a single environment.

    At the step that puts a ``Crystal`` into ``info["crystal"]`` the reward is the crystal's, and ``info`` gets
    ``reward_terms``, ``is_success`` and ``reward_failure``. All other steps are unchanged: an episode that an invalid
    action has ended keeps the environment's ``invalid_reward``. Of several such wrappers the outermost one counts.

    Args:
        env: an environment; its own reward is switched off if it is an attribute ``reward``.
        reward: a callable, or ``"module:attribute"``.
        floor: the reward of a crystal that cannot be scored, by default -1 or the reward's own floor where that is
            lower. An invalid action costs as much, unless the environment was given an ``invalid_reward``.

    Raises:
        ValueError: if ``reward`` is neither a callable nor the name of one, or ``floor`` is not finite.

    Example:
        >>> import gymnasium, crystal_env, rewards
        >>> env = rewards.CrystalReward(gymnasium.make("CrystalGen-v0"), rewards.EnergyAboveHull())
    """

    def __init__(self, env: gym.Env[Any, Any], reward: Reward | str, floor: float | None = None) -> None:
        RecordConstructorArgs.__init__(self, reward=reward, floor=floor, _disable_deepcopy=True)
        gym.Wrapper.__init__(self, env)
        self.scorer = _scorer(reward, floor)
        _delegate_reward(env.unwrapped, self.scorer.floor)

    @property
    def crystal_task(self) -> CrystalTask:
        """The task of the environment with this reward."""
        return replace(self.env.get_wrapper_attr("crystal_task"), scorer=self.scorer)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and score the crystal if it is finished."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if (terminated or truncated) and info.get("crystal") is not None:
            result = self.scorer(CrystalBatch.from_crystals([info["crystal"]]))
            reward, info = float(result.total[0]), {**info, **result.info(0)}
        return observation, reward, terminated, truncated, info


class VectorCrystalReward(gym.vector.VectorWrapper, RecordConstructorArgs):
    """Scores the finished crystals of a vector environment: those that end at one step in one call.

    The same as `CrystalReward` for every sub-environment, in all autoreset modes; in ``SAME_STEP`` the entries stand
    in ``info["final_info"]``, where the crystals are.

    Args:
        env: a vector environment; its own reward is switched off if it is an attribute ``reward``.
        reward: a callable, or ``"module:attribute"``.
        floor: the reward of a crystal that cannot be scored, by default -1 or the reward's own floor where that is
            lower. An invalid action costs as much, unless the environment was given an ``invalid_reward``.

    Raises:
        ValueError: if ``reward`` is neither a callable nor the name of one, or ``floor`` is not finite.
    """

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], reward: Reward | str, floor: float | None = None
    ) -> None:
        RecordConstructorArgs.__init__(self, reward=reward, floor=floor, _disable_deepcopy=True)
        gym.vector.VectorWrapper.__init__(self, env)
        self.scorer = _scorer(reward, floor)
        for base in (env.unwrapped, *(single.unwrapped for single in getattr(env.unwrapped, "envs", ()))):
            _delegate_reward(base, self.scorer.floor)

    @property
    def crystal_task(self) -> CrystalTask:
        """The task of the environment with this reward."""
        return replace(_task_of(self.env), scorer=self.scorer)

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Take a step in all sub-environments, and score the crystals that are finished."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        final = info.get("final_info", info)
        rows = np.flatnonzero(np.asarray(final.get("_crystal", False)) & (terminated | truncated))
        if len(rows):
            result = self.scorer(CrystalBatch.from_crystals(final["crystal"][rows]))
            rewards = np.array(rewards, np.float64)
            rewards[rows] = result.total
            final = {**final, **result.vector_info(rows, self.num_envs)}
            info = {**info, "final_info": final} if "final_info" in info else final
        return observations, rewards, terminated, truncated, info


def _scorer(reward: Reward | str, floor: float | None) -> Scorer:
    reward = resolve_reward(reward)
    return Scorer(reward, default_floor(reward) if floor is None else finite_number("floor", floor))


def _task_of(env: Any) -> CrystalTask:
    """Return the task of a vector environment, through wrappers that pass no attributes on."""
    while not hasattr(env, "crystal_task"):
        if not isinstance(env, gym.vector.VectorWrapper):
            task: CrystalTask = env.get_attr("crystal_task")[0]
            return task
        env = env.env
    found: CrystalTask = env.crystal_task
    return found


def _delegate_reward(env: Any, floor: float) -> None:
    """Switch off the reward of an environment; invalid actions cost no less than the floor of its replacement."""
    if hasattr(env, "delegate_reward"):
        env.delegate_reward(floor)
    elif hasattr(env, "reward"):
        env.reward = None
