"""An environment of Gymnasium as a stable-baselines3 ``VecEnv``."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from crystal_env.errors import InputError

_NOT_COPIED = ("action_mask", "final_info", "final_obs")  # masks are asked for, last observations have another name
_OF_ONE_COPY = {"action_space": "single_action_space", "observation_space": "single_observation_space"}
_ONE_A_COPY = ("np_random", "np_random_seed")


class CrystalVecEnv(VecEnv):
    """Lets stable-baselines3 train on ``gym.make_vec("CrystalGen-v0", num_envs=64)`` or ``gym.make("CrystalGen-v0")``.

    Environments come as they are, wrapped or not and in any autoreset mode: where the last step of an episode does not
    reset it (``SAME_STEP``), the copies that have ended are reset right after. With the natively batched environment
    every step is one set of array operations, and all crystals that end in it are scored in one call. An info is
    filled only where an episode ends. `MaskablePPO` finds the masks by itself.

    Args:
        env: a vector environment or a single one.

    Raises:
        ValueError: if it is neither.
    """

    def __init__(self, env: gym.Env | VectorEnv) -> None:
        if isinstance(env, gym.Env):
            single = env
            env = SyncVectorEnv([lambda: single], autoreset_mode=AutoresetMode.DISABLED)
        if not isinstance(env, VectorEnv):
            raise InputError(f"env must be a gymnasium.Env or a gymnasium.vector.VectorEnv, got {type(env).__name__}")
        self.env = env
        self._resets_itself = env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
        self._actions: NDArray[Any] | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Start new episodes with the seeds and options that were set; return observations (N, T)."""
        if all(options == self._options[0] for options in self._options):
            seed: Any = list(self._seeds) if self._seeds[0] is not None else None
            observations, _ = self.env.reset(seed=seed, options=dict(self._options[0]))
        else:
            for row, (one_seed, options) in enumerate(zip(self._seeds, self._options, strict=True)):
                reset_mask = np.arange(self.num_envs) == row
                seeds: Any = [one_seed] * self.num_envs
                observations, _ = self.env.reset(seed=seeds, options={**options, "reset_mask": reset_mask})
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions (N,) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Take the actions; return observations, rewards (N,), who is done (N,) and the infos."""
        observations, rewards, terminated, truncated, info = self.env.step(self._actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(done):
            infos[row] = _row_of(info, int(row))
            if self._resets_itself:
                infos[row] |= _row_of(info["final_info"], int(row))
                infos[row]["terminal_observation"] = info["final_obs"][row]
            else:
                infos[row]["terminal_observation"] = _observation_of(observations, int(row))
            infos[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        if done.any() and not self._resets_itself:
            observations, _ = self.env.reset(options={"reset_mask": done.copy()})
        return observations, np.asarray(rewards, np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the copies asked for, as the outermost layer that has it gives it."""
        rows = self._indices(indices)
        layer = self._layer_with(attr_name)
        if layer is None:
            values = self.env.unwrapped.get_attr(attr_name)  # type: ignore[attr-defined]
            return [values[row] for row in rows]
        value = getattr(layer, _OF_ONE_COPY.get(attr_name, attr_name))
        return [value[row] for row in rows] if attr_name in _ONE_A_COPY else [value] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the copies asked for; all copies of the natively batched environment share theirs.

        Raises:
            ValueError: if only some copies are meant that share it.
        """
        rows, base = self._indices(indices), self.env.unwrapped
        if isinstance(base, SyncVectorEnv):
            for row in rows:
                base.envs[row].set_wrapper_attr(attr_name, value)
            return
        if len(rows) != self.num_envs:
            raise InputError(f"indices must be None: {attr_name} belongs to all copies together, got {indices}")
        setattr(base, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method that returns one entry a copy, such as ``action_masks``; return the entries asked for."""
        layer = self._layer_with(method_name)
        if layer is None:
            result: Any = self.env.unwrapped.call(method_name, *args, **kwargs)  # type: ignore[attr-defined]
        else:
            method: Callable[..., Sequence[Any]] = getattr(layer, method_name)
            result = method(*args, **kwargs)
        return [result[row] for row in self._indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether the vector environment, or a copy inside it, has a wrapper, for every copy asked for."""
        rows = self._indices(indices)
        if any(isinstance(layer, wrapper_class) for layer in self._layers()):
            return [True] * len(rows)
        copies = getattr(self.env.unwrapped, "envs", None)
        return [copies is not None and is_wrapped(copies[row], wrapper_class) for row in rows]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return a picture of every copy, where the render mode is "rgb_array"."""
        frames: Any = self.env.render()
        return frames or [None] * self.num_envs

    def _layers(self) -> Iterator[Any]:
        layer: Any = self.env
        while layer is not layer.unwrapped:
            yield layer
            layer = layer.env
        yield layer

    def _layer_with(self, name: str) -> Any:
        """Return the outermost layer that has an attribute, None where each copy has its own."""
        layer = next((layer for layer in self._layers() if hasattr(layer, name)), self.env.unwrapped)
        return None if not hasattr(layer, name) and hasattr(layer, "call") else layer

    def _indices(self, indices: VecEnvIndices) -> list[int]:
        return list(self._get_indices(indices))


def _row_of(info: dict[str, Any], row: int) -> dict[str, Any]:
    """Return the info of one copy out of the batched one."""
    single = {}
    for key, value in info.items():
        present = info.get(f"_{key}")  # wrappers of Gymnasium's leave it out inside their own entries
        if not key.startswith("_") and key not in _NOT_COPIED and (present is None or present[row]):
            single[key] = _row_of(value, row) if isinstance(value, dict) else value[row]
    return single


def _observation_of(observations: Any, row: int) -> Any:
    """Return the observation of one copy out of the batched one."""
    if isinstance(observations, dict):
        return {name: _observation_of(part, row) for name, part in observations.items()}
    return observations[row].copy()
