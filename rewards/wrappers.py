"""Gymnasium wrappers that replace the reward of any environment that builds crystals."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.reward import Reward, Scorer, resolve_reward


class CrystalReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Scores the finished crystal of a single environment.

    At the step that puts a ``Crystal`` into ``info["crystal"]`` the reward is the crystal's, and ``info`` gets
    ``reward_terms``, ``is_success`` and ``reward_failure``. All other steps stay as they are: in particular an episode
    that an invalid action has ended keeps its reward.

    Args:
        env: an environment; its own reward is switched off if it is an attribute ``reward``.
        reward: a callable, or ``"module:attribute"``.
        floor: the reward of a crystal that cannot be scored.

    Raises:
        ValueError: if ``reward`` is neither a callable nor the name of one.

    Example:
        >>> import gymnasium, crystal_env, rewards
        >>> env = rewards.CrystalReward(gymnasium.make("CrystalGen-v0"), rewards.EnergyAboveHull())
    """

    def __init__(self, env: gym.Env[Any, Any], reward: Reward | str, floor: float = -10.0) -> None:
        RecordConstructorArgs.__init__(self, reward=reward, floor=floor, _disable_deepcopy=True)
        gym.Wrapper.__init__(self, env)
        self.scorer = Scorer(resolve_reward(reward), floor)
        _switch_off_reward(env.unwrapped)

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
        floor: the reward of a crystal that cannot be scored.

    Raises:
        ValueError: if ``reward`` is neither a callable nor the name of one.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], reward: Reward | str, floor: float = -10.0) -> None:
        RecordConstructorArgs.__init__(self, reward=reward, floor=floor, _disable_deepcopy=True)
        gym.vector.VectorWrapper.__init__(self, env)
        self.scorer = Scorer(resolve_reward(reward), floor)
        for base in (env.unwrapped, *(single.unwrapped for single in getattr(env.unwrapped, "envs", ()))):
            _switch_off_reward(base)

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


def _switch_off_reward(env: Any) -> None:
    if hasattr(env, "reward"):
        env.reward = None
