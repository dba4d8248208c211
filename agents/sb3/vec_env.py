"""The vector environment as a stable-baselines3 ``VecEnv``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from crystal_env.errors import InputError

_NOT_COPIED = ("action_mask", "final_info", "final_obs")  # masks are asked for, last observations have another name


class CrystalVecEnv(VecEnv):
    """Lets stable-baselines3 train on a natively batched `CrystalGenVectorEnv`, wrapped or not.

    Every step is one set of array operations, and all crystals that end in it are scored in one call. An info is
    filled only where an episode ends. `MaskablePPO` finds the masks by itself.

    Args:
        env: a vector environment with autoreset mode SAME_STEP, such as
            ``gym.make_vec("CrystalGen-v0", num_envs=64, autoreset_mode=AutoresetMode.SAME_STEP)``.

    Raises:
        ValueError: if the environment is not a vector environment or resets in another mode.
    """

    def __init__(self, env: VectorEnv) -> None:
        if not isinstance(env, VectorEnv) or env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise InputError(
                "env must be a gymnasium.vector.VectorEnv with autoreset_mode SAME_STEP, got "
                f"{type(env).__name__} with {getattr(env, 'metadata', {}).get('autoreset_mode')}"
            )
        self.env = env
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
            infos[row] = _row_of(info, int(row)) | _row_of(info["final_info"], int(row))
            infos[row]["terminal_observation"] = info["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return observations, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector environment, once for every copy asked for."""
        return [getattr(self.env.unwrapped, attr_name)] * len(self._indices(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment, which all copies share.

        Raises:
            ValueError: if only some copies are meant.
        """
        if len(self._indices(indices)) != self.num_envs:
            raise InputError(f"indices must be None: {attr_name} belongs to all copies together, got {indices}")
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method that returns one entry a copy, such as ``action_masks``; return the entries asked for."""
        method: Callable[..., Sequence[Any]] = getattr(self.env.unwrapped, method_name)
        result = method(*args, **kwargs)
        return [result[row] for row in self._indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether the vector environment has a wrapper, once for every copy asked for."""
        layer, found = self.env, False
        while layer is not layer.unwrapped and not found:
            found, layer = isinstance(layer, wrapper_class), layer.env  # type: ignore[attr-defined]
        return [found] * len(self._indices(indices))

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return a picture of every copy, where the render mode is "rgb_array"."""
        frames: Any = self.env.render()
        return frames or [None] * self.num_envs

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
