"""What an environment asks for, read off its wrappers: whole crystals are drawn and scored without playing it."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from agents.crystalformer.decoder import walk
from agents.crystalformer.distribution import Distribution
from agents.sb3.vec_env import CrystalVecEnv
from crystal_env.crystal import CrystalBatch
from crystal_env.episodes import CrystalEnvBase
from crystal_env.errors import InputError
from crystal_env.grammar.state import CrystalStates
from crystal_env.reward import RewardResult, Scorer, stateful_parts
from crystal_env.vocabulary import Vocabulary
from crystal_env.wyckoff import tables

_SHOW_ONLY = (
    gym.wrappers.OrderEnforcing,
    gym.wrappers.PassiveEnvChecker,
    gym.wrappers.RecordEpisodeStatistics,
    gym.wrappers.TimeLimit,
    gym.wrappers.vector.RecordEpisodeStatistics,
    Monitor,
)
"""Wrappers that override ``step`` and leave the reward as it is."""


class CrystalTask:
    """Grammar, space groups, bins and reward of an environment.

    What is drawn and scored here has the distribution and the rewards that stepping through the environment would
    have, its constraints and reward wrappers included.

    Args:
        env: a stable-baselines3 environment around ``CrystalGen-v0``, in this process.

    Attributes:
        grammar: what the crystals must be like.
        bins: numeric bins of the discrete environment, 0 on the continuous one.

    Raises:
        ValueError: if it is no such environment, has no reward, lets the agent choose the space group, or has a wrapper
            that changes rewards step by step.
    """

    def __init__(self, env: VecEnv) -> None:
        layers = list(_layers(env))
        base = layers[-1]
        if not isinstance(base, CrystalEnvBase):
            raise InputError(
                f"env must be CrystalGen-v0 or a variant of it in this process, wrapped or not, got {env}: "
                "KLPPO draws whole crystals instead of playing it step by step"
            )
        if base.vocabulary.chooses_group:
            raise InputError("space_group of the environment must not be 'agent': the network does not choose it")
        self.grammar, self.bins = base.grammar, base.vocabulary.bins
        self._monitors = [layer for layer in layers if isinstance(layer, VecMonitor | Monitor)]
        self._owner, self._transforms = _reward_of(layers)

    @property
    def distribution(self) -> Distribution:
        """How crystals are drawn, the network apart."""
        return Distribution(self.grammar, bins=self.bins)

    def score(self, crystals: CrystalBatch) -> RewardResult:
        """Return what crystals (B,) are worth; equal ones are scored once."""
        first, place = crystals.distinct()
        result = self._owner.scorer(crystals[first])
        total = result.total
        for transform in self._transforms:
            total = transform(total)
        return result._replace(total=np.asarray(total, np.float64)).take(place)

    def reward_state(self) -> dict[str, Any]:
        """Return what the reward remembers, such as the buckets of `rewards.Diversity`, by place in it."""
        return {place: part.state_dict() for place, part in stateful_parts(self._owner.scorer).items()}

    def load_reward_state(self, state: dict[str, Any]) -> None:
        """Let the reward remember what `reward_state` gave; parts that it does not have are passed over."""
        for place, part in stateful_parts(self._owner.scorer).items():
            if place in state:
                part.load_state_dict(state[place])

    def masks(self, observations: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return the ids (N, V) that the constraints allow after observations (N, 2 + T), None where they say nothing.

        Where an observation itself is outside them, as that of a reset with other constraints, all ids are allowed.
        """
        if not set(self.grammar.constraints.in_words()) - {"space_group"}:
            return None
        states = CrystalStates(len(observations), Vocabulary(self.bins))
        rows, phase = np.arange(len(observations)), observations[:, 1].astype(np.int64)
        groups = observations[:, 0].astype(np.int64)
        inside = self.grammar.probabilities[groups] > 0
        states.reset(rows[inside], self.grammar, groups[inside])
        for part, tokens, units in walk(states, rows[inside], observations[inside, 2:], phase[inside]):
            allowed = states.step(part, tokens, units)
            inside[part[~allowed]] = False
            if not allowed.all():
                break
        return np.where((inside & (states.phase == phase))[:, None], states.masks, True)

    def record(self, crystals: CrystalBatch, rewards: NDArray[np.float64], seconds: float) -> list[dict[str, Any]]:
        """Tell the monitors of episodes (B,) that were not played; return what they would have put into the infos."""
        lengths = n_decisions(crystals)
        entries = [
            {"r": round(float(r), 6), "l": int(n), "t": round(seconds, 6)}
            for r, n in zip(rewards, lengths, strict=True)
        ]
        for monitor in self._monitors:
            if monitor.results_writer is not None:
                for entry in entries:
                    monitor.results_writer.write_row(entry)
        return entries


def n_decisions(crystals: CrystalBatch) -> NDArray[np.int64]:
    """Return the number of decisions (B,) that crystals consist of: the steps of their episodes."""
    T = tables()
    coordinates = T.free_coordinates[crystals.G[:, None], crystals.W].sum((1, 2))
    decisions: NDArray[np.int64] = 2 * crystals.n_sites() + 1 + coordinates + T.free_lattice[crystals.G].sum(1)
    return decisions


def _layers(env: VecEnv) -> Iterator[Any]:
    """Yield the wrappers of an environment from the outermost to the bare environment."""
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        if not isinstance(layer, VecMonitor):
            raise InputError(f"env must have no wrapper {type(layer).__name__}: KLPPO does not play it step by step")
        yield layer
        layer = layer.venv
    if isinstance(layer, CrystalVecEnv):
        layer = layer.env
    elif isinstance(layer, DummyVecEnv):
        layer = layer.envs[0]
    while isinstance(layer, gym.Wrapper | gym.vector.VectorWrapper):
        yield layer
        layer = layer.env
    yield layer


def _reward_of(layers: list[Any]) -> tuple[Any, list[Callable[[Any], Any]]]:
    """Return the layer whose ``scorer`` the environment ends with, and what is done to its total, in this order."""
    transforms: list[Callable[[Any], Any]] = []
    for layer in layers[:-1]:
        scorer = getattr(layer, "scorer", None)
        if isinstance(scorer, Scorer):
            return layer, transforms[::-1]
        if isinstance(layer, gym.RewardWrapper | gym.vector.VectorRewardWrapper):
            transforms.append(_transform(layer))
        elif not isinstance(layer, (VecMonitor, *_SHOW_ONLY)) and _overrides_step(layer):
            raise InputError(
                f"env must have no wrapper {type(layer).__name__}, whose effect on the reward of a whole crystal is "
                "not known: use rewards.CrystalReward, rewards.VectorCrystalReward or a RewardWrapper"
            )
    base = layers[-1]
    if base.reward is None:
        raise InputError("env must have a reward, its reward is None")
    return base, transforms[::-1]


def _transform(layer: Any) -> Callable[[Any], Any]:
    """Return a reward wrapper's map of the rewards of finished crystals (B,)."""
    if isinstance(layer, VectorEnv):
        transform: Callable[[Any], Any] = layer.rewards  # type: ignore[attr-defined]
    else:

        def transform(rewards: Any) -> Any:
            return np.array([layer.reward(float(reward)) for reward in rewards], np.float64)

    if np.any(np.asarray(transform(np.zeros(1))) != 0):
        raise InputError(f"env must keep the reward 0 of unfinished crystals, {type(layer).__name__} changes it")
    return transform


def _overrides_step(layer: Any) -> bool:
    plain = (gym.Wrapper, gym.ObservationWrapper, gym.ActionWrapper)
    plain += (gym.vector.VectorWrapper, gym.vector.VectorObservationWrapper)  # type: ignore[assignment]
    return all(type(layer).step is not wrapper.step for wrapper in plain)
