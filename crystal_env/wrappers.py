"""Observation wrappers: the crystal as a table, and the mask inside the observation; each has a vector version."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorObservationWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import DTypeLike, NDArray

from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import Phase
from crystal_env.wyckoff import MAX_SITES, N_ELEMENTS, N_GROUPS, N_LETTERS, tables

_TABLE_SPACE = spaces.Dict(
    {
        "space_group": spaces.Discrete(N_GROUPS + 1),
        "phase": spaces.Discrete(len(Phase)),
        "letters": spaces.Box(0, N_LETTERS - 1, (MAX_SITES,), np.int64),
        "elements": spaces.Box(0, N_ELEMENTS, (MAX_SITES,), np.int64),
        "multiplicities": spaces.Box(0, 192, (MAX_SITES,), np.int64),
        "coordinates": spaces.Box(0.0, 1.0, (MAX_SITES, 3), np.float32),
        "lattice": spaces.Box(0.0, 630.0, (6,), np.float32),
    }
)


class CrystalDictObservation(gym.ObservationWrapper, RecordConstructorArgs):
    """Observe the crystal so far as a table of its sites.

    The observation is a ``Dict`` of ``space_group``, ``phase``, ``letters (20,)``, ``elements (20,)``,
    ``multiplicities (20,)``, ``coordinates (20, 3)`` and ``lattice (6,)`` in Å and degrees; undecided entries are 0.

    Args:
        env: a `CrystalGenEnv`, wrapped or not.
    """

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self.observation_space = _TABLE_SPACE

    def observation(self, observation: Any) -> dict[str, Any]:
        """Return the table of the current state; the flat observation is not needed."""
        table = {key: value[0] for key, value in _table(self.unwrapped.states).items()}  # type: ignore[attr-defined]
        return table


class VectorCrystalDictObservation(VectorObservationWrapper):
    """Observe all crystals so far as tables of their sites, see `CrystalDictObservation`.

    As all of Gymnasium's vector observation wrappers, it takes the autoreset modes NEXT_STEP and DISABLED.

    Args:
        env: a `CrystalGenVectorEnv`, wrapped or not.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.single_observation_space = _TABLE_SPACE
        self.observation_space = batch_space(_TABLE_SPACE, self.num_envs)

    def observations(self, observations: Any) -> dict[str, Any]:
        """Return the tables of the current states, stacked."""
        return _table(self.unwrapped.states)  # type: ignore[attr-defined]


class MaskInObservation(gym.ObservationWrapper, RecordConstructorArgs):
    """Put the action mask into the observation, where RLlib, TorchRL and Tianshou look for it.

    RLlib wants ``obs_key="observations", dtype=np.float32``, Tianshou ``obs_key="obs", mask_key="mask", dtype=bool``,
    TorchRL ``dtype=bool``. A ``Dict`` observation gets the mask as one more key.

    Args:
        env: a `CrystalGenEnv`, wrapped or not.
        obs_key: key of the inner observation.
        mask_key: key of the mask (V,).
        dtype: of the mask.
    """

    def __init__(
        self,
        env: gym.Env,
        obs_key: str = "observation",
        mask_key: str = "action_mask",
        dtype: DTypeLike = np.int8,
    ) -> None:
        name = np.dtype(dtype).name  # a word, so that specs can be written as JSON
        RecordConstructorArgs.__init__(self, obs_key=obs_key, mask_key=mask_key, dtype=name)
        gym.ObservationWrapper.__init__(self, env)
        self._keys, self._dtype = (obs_key, mask_key), np.dtype(dtype)
        size = self.unwrapped.vocabulary.size  # type: ignore[attr-defined]
        self.observation_space = _with_mask_space(env.observation_space, size, *self._keys, self._dtype)

    def observation(self, observation: Any) -> dict[str, Any]:
        """Return the observation together with the current mask."""
        mask = self.unwrapped.action_masks().astype(self._dtype)  # type: ignore[attr-defined]
        return _with_mask(observation, mask, *self._keys)


class VectorMaskInObservation(VectorObservationWrapper):
    """Put the action masks (N, V) into the observations, see `MaskInObservation`.

    As all of Gymnasium's vector observation wrappers, it takes the autoreset modes NEXT_STEP and DISABLED.

    Args:
        env: a `CrystalGenVectorEnv`, wrapped or not.
        obs_key: key of the inner observations.
        mask_key: key of the masks.
        dtype: of the masks.
    """

    def __init__(
        self,
        env: VectorEnv,
        obs_key: str = "observation",
        mask_key: str = "action_mask",
        dtype: DTypeLike = np.int8,
    ) -> None:
        super().__init__(env)
        self._keys, self._dtype = (obs_key, mask_key), np.dtype(dtype)
        size = self.unwrapped.vocabulary.size  # type: ignore[attr-defined]
        space = _with_mask_space(env.single_observation_space, size, *self._keys, self._dtype)
        self.single_observation_space = space
        self.observation_space = batch_space(space, self.num_envs)

    def observations(self, observations: Any) -> dict[str, Any]:
        """Return the observations together with the current masks."""
        masks = self.unwrapped.action_masks().astype(self._dtype)  # type: ignore[attr-defined]
        return _with_mask(observations, masks, *self._keys)


def _table(states: CrystalStates) -> dict[str, NDArray[Any]]:
    crystals = states.crystals(np.arange(len(states)))
    W = crystals.W[:, :MAX_SITES]
    return {
        "space_group": crystals.G,
        "phase": states.phase.copy(),
        "letters": W,
        "elements": crystals.A[:, :MAX_SITES],
        "multiplicities": tables().multiplicity[crystals.G[:, None], W],
        "coordinates": crystals.XYZ[:, :MAX_SITES].astype(np.float32),
        "lattice": crystals.L.astype(np.float32),
    }


def _with_mask_space(
    space: spaces.Space[Any], size: int, obs_key: str, mask_key: str, dtype: np.dtype[Any]
) -> spaces.Dict:
    mask = spaces.MultiBinary(size) if dtype == np.int8 else spaces.Box(0, 1, (size,), dtype.type)
    inner = dict(space.spaces) if isinstance(space, spaces.Dict) else {obs_key: space}
    return spaces.Dict({**inner, mask_key: mask})


def _with_mask(observation: Any, mask: NDArray[Any], obs_key: str, mask_key: str) -> dict[str, Any]:
    inner = observation if isinstance(observation, dict) else {obs_key: observation}
    return {**inner, mask_key: mask}
