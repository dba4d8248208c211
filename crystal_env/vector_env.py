"""The natively batched ``CrystalGen-v0``: N crystals advanced by one set of array operations."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from crystal_env.episodes import CrystalEnvBase, EpisodeOptions, Episodes, StepResult, check_actions
from crystal_env.errors import InputError
from crystal_env.render import frames


class CrystalGenVectorEnv(CrystalEnvBase, VectorEnv):
    """N independent copies of `CrystalGenEnv`, stepped together: equal to `SyncVectorEnv` over them, and much faster.

    Observations, rewards and infos have the layout of Gymnasium's own vector environments. Each copy has a generator of
    its own: ``reset(seed=s)`` seeds copy i with s + i. All crystals that are finished by one step are scored in one
    call of the reward.

    Args:
        num_envs: number of copies.
        autoreset_mode: ``NEXT_STEP`` (the step after the last one resets, ignores the action and gives 0),
            ``SAME_STEP`` (the last step resets; its observation and info are ``final_obs`` and ``final_info``) or
            ``DISABLED`` (the user calls ``reset(options={"reset_mask": ended})``).
        max_episode_steps: accepted for `gymnasium.make_vec` and ignored; every episode ends by itself.

    The other arguments are those of `CrystalGenEnv`; ``render_mode`` is ``"ansi"`` or ``"rgb_array"``.

    Raises:
        ValueError: as `CrystalGenEnv`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        mask_in_info: bool = True,
        render_mode: str | None = None,
        **options: Unpack[EpisodeOptions],
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise InputError(f"num_envs must be a positive integer, got {num_envs!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise InputError(f"render_mode must be None or in {self.metadata['render_modes']}, got {render_mode!r}")
        self.num_envs = int(num_envs)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.mask_in_info = mask_in_info
        self._episodes = Episodes(self.num_envs, **options)
        self.single_action_space = self._episodes.action_space
        self.single_observation_space = self._episodes.observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._rows = np.arange(self.num_envs)
        self._generators: list[np.random.Generator] = []
        self._seeds: list[int] = []

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override,misc]
        """The generators of the copies."""
        self._seed([None] * self.num_envs)
        return tuple(self._generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override,misc]
        """The seeds of the copies."""
        self._seed([None] * self.num_envs)
        return tuple(self._seeds)

    def reset(  # type: ignore[override]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start new crystals.

        Args:
            seed: an integer s seeds copy i with s + i; a list has a seed or None for each copy.
            options: constraints as in `CrystalGenEnv.reset`, and ``reset_mask`` (N,), the copies to reset, by default
                all.

        Raises:
            ValueError: if an option is unknown or malformed, or the number of seeds is not N.
        """
        mask = None
        if isinstance(options, Mapping):
            options = dict(options)
            mask = options.pop("reset_mask", None)
        rows, grammar, seeds = self._masked_rows(mask), self._episodes.grammar_for(options), self._listed(seed)
        chosen = set(rows.tolist())
        self._seed([seed if row in chosen else None for row, seed in enumerate(seeds)])
        self._episodes.start(rows, [self._generators[row] for row in rows], grammar)
        return self._observations(), self._info(rows)

    def step(
        self, actions: Any
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one decision in every copy.

        Args:
            actions: (N,) ids, or (N, 2) in continuous mode.

        Returns:
            Observations (N, T), rewards (N,), terminated (N,), truncated (N,) and infos.

        Raises:
            ValueError: if the actions have the wrong dtype or shape, or one is not allowed under
                ``invalid_action="raise"``. Nothing has changed then.
            gymnasium.error.ResetNeeded: if an episode has ended that is not reset automatically.
        """
        array = check_actions(actions, self.single_action_space, self.num_envs)
        if not self._generators:
            raise gym.error.ResetNeeded("call reset before step")
        resting = self._episodes.ended if self.autoreset_mode == AutoresetMode.NEXT_STEP else np.zeros(0, bool)
        over = np.flatnonzero(resting)
        rows = np.flatnonzero(~resting) if len(over) else self._rows
        result = self._episodes.step(rows, array[rows])
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        rewards[rows], terminated[rows] = result.rewards, result.ended
        end_info = self._end_info(rows, result) if result.ended.any() else {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and end_info:
            over = np.flatnonzero(terminated)
            end_info = self._final_info(over, end_info)
        if len(over):
            self._episodes.start(over, [self._generators[row] for row in over], self._episodes.grammar)
        info = self._info(self._rows) | end_info
        return self._observations(), rewards, terminated, np.zeros(self.num_envs, bool), info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the allowed ids (N, V)."""
        return self._episodes.states.masks.copy()

    def value_bounds(self) -> NDArray[np.float64]:
        """Return the intervals (N, 2) of the normalised values u that are allowed next (continuous mode)."""
        return np.array([self._episodes.states.normalised_bounds(row) for row in range(self.num_envs)])

    def render(self) -> tuple[Any, ...] | None:
        """Return a text or a picture (H, W, 3) for every copy."""
        if self.render_mode is None:
            return None
        frame = frames.text_frame if self.render_mode == "ansi" else frames.picture_frame
        return tuple(frame(self._episodes.states, row) for row in range(self.num_envs))

    def _listed(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + i for i in range(self.num_envs)]
        seeds = list(seed) if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str) else None
        if seeds is None or len(seeds) != self.num_envs:
            given = repr(seed) if seeds is None else f"{len(seeds)} seeds"
            raise InputError(f"seed must be an integer or a list of {self.num_envs} seeds, got {given}")
        return seeds

    def _seed(self, seeds: Sequence[int | None]) -> None:
        """Seed generators; at first use, those without a seed from the system's entropy."""
        if not self._generators:
            self._generators, self._seeds = map(list, zip(*(np_random(seed) for seed in seeds), strict=True))
            return
        for row, seed in enumerate(seeds):
            if seed is not None:
                self._generators[row], self._seeds[row] = np_random(seed)

    def _masked_rows(self, mask: Any) -> NDArray[np.int64]:
        if mask is None:
            return self._rows
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise InputError(
                f"reset_mask must be bools of shape ({self.num_envs},), at least one True, got {mask.dtype} of shape "
                f"{mask.shape}"
            )
        return np.flatnonzero(mask)

    def _observations(self) -> NDArray[Any]:
        return self._episodes.states.observations.copy()

    def _info(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        if not self.mask_in_info:
            return {}
        present = np.zeros(self.num_envs, bool)
        present[rows] = True
        masks = self._episodes.states.masks.view(np.int8).copy()
        if len(rows) < self.num_envs:
            masks[~present] = 0
        return {"action_mask": masks, "_action_mask": present}

    def _end_info(self, rows: NDArray[np.int64], result: StepResult) -> dict[str, Any]:
        ended, finished = rows[result.ended], rows[result.finished]
        info: dict[str, Any] = {}
        info["invalid_action"], info["_invalid_action"] = (np.zeros(self.num_envs, bool) for _ in range(2))
        info["invalid_action"][rows] = result.invalid
        info["_invalid_action"][ended] = True
        if len(finished):
            info["crystal"], info["_crystal"] = np.full(self.num_envs, None), np.zeros(self.num_envs, bool)
            info["crystal"][finished], info["_crystal"][finished] = list(result.crystals), True
        if result.scores is not None:
            info |= result.scores.vector_info(finished, self.num_envs)
        if result.invalid.any():
            success, present = (info.get(key, np.zeros(self.num_envs, bool)) for key in ("is_success", "_is_success"))
            present[rows[result.invalid]] = True
            info |= {"is_success": success, "_is_success": present}
        return info

    def _final_info(self, over: NDArray[np.int64], end_info: dict[str, Any]) -> dict[str, Any]:
        """Return the last observations and infos of ended rows (n,), as ``final_obs`` and ``final_info``."""
        present = np.zeros(self.num_envs, bool)
        present[over] = True
        observations = np.full(self.num_envs, None)
        for row in over:
            observations[row] = self._episodes.states.observations[row].copy()
        return {
            "final_obs": observations,
            "_final_obs": present,
            "final_info": self._info(over) | end_info,
            "_final_info": present.copy(),
        }


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        names = [each.value for each in AutoresetMode]
        raise InputError(f"autoreset_mode must be one of {names}, got {mode!r}") from error
