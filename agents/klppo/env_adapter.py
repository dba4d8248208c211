"""What an environment asks for, read off its layers: whole crystals are sampled and scored without stepping it."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from agents.crystalformer.decoder import walk
from agents.crystalformer.distribution import Distribution
from agents.sb3.vec_env import CrystalVecEnv
from crystal_env.crystal import CrystalBatch
from crystal_env.env import CrystalGenEnv
from crystal_env.episodes import CrystalEnvBase, CrystalTask
from crystal_env.errors import InputError
from crystal_env.grammar.state import CrystalStates
from crystal_env.reward import RewardResult, stateful_parts
from crystal_env.vector_env import CrystalGenVectorEnv
from crystal_env.vocabulary import Vocabulary
from crystal_env.wyckoff import tables

_METHODS = (
    "reset", "step", "step_async", "step_wait", "action", "actions", "reward", "rewards", "observation", "observations",
)  # fmt: skip
"""Methods by which a layer can change what the agent sees, does or gets."""

_HONOURED: tuple[type, ...] = (
    gym.Env, gym.Wrapper, gym.RewardWrapper, VectorEnv, gym.vector.VectorWrapper, gym.vector.VectorRewardWrapper,
    CrystalEnvBase, CrystalGenEnv, CrystalGenVectorEnv, SyncVectorEnv,
    VecEnv, VecEnvWrapper, VecMonitor, VecCheckNan, CrystalVecEnv, DummyVecEnv, Monitor,
    gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker, gym.wrappers.RecordEpisodeStatistics,
    gym.wrappers.TimeLimit, gym.wrappers.RecordVideo, gym.wrappers.HumanRendering, gym.wrappers.RenderCollection,
    gym.wrappers.vector.RecordEpisodeStatistics, gym.wrappers.vector.RecordVideo, gym.wrappers.vector.HumanRendering,
)  # fmt: skip
"""Classes whose own methods change nothing of that, or what `EnvAdapter` knows of."""

_REWARD_WRAPPERS = (gym.RewardWrapper, gym.vector.VectorRewardWrapper)

_PROBE = np.array([0.0, 1.0, -2.5, 0.125])


class EnvAdapter:
    """The task of an environment: what its crystals must be like, and their rewards.

    What is sampled and scored here has the distribution and the rewards that stepping through the environment would
    have, its constraints and reward wrappers included. The task is asked for through ``crystal_task``, which an
    environment and every wrapper that scores crystals have; a layer that changes steps in any other way is refused.

    Args:
        env: a stable-baselines3 environment around ``CrystalGen-v0``, in this process.

    Attributes:
        grammar: what the crystals must be like.
        bins: numeric bins of the discrete environment, 0 on the continuous one.
        digest: hash of grammar, bins, reward and transforms, the same in every process; None if it cannot be told.

    Raises:
        ValueError: if it is no such environment, has no reward, lets the agent choose the space group, has a layer
            whose effect is not known, or copies that differ.
    """

    def __init__(self, env: VecEnv) -> None:
        outer, copies = _layers(env)
        stacks = [_read(layers) for layers in copies]
        for number, stack in enumerate(stacks):
            _check_same(stacks[0], stack, number)
        scored = stacks[0]
        for layer in reversed(outer):
            scored = _through(layer, scored)
        if scored.task.grammar.constraints.chooses_group:
            raise InputError("space_group of the environment must not be 'agent': the network does not choose it")
        if scored.task.scorer is None:
            raise InputError("env must have a reward, its reward is None")
        self.grammar, self.bins, self._scorer = scored.task.grammar, scored.task.bins, scored.task.scorer
        self._scored, self.digest = scored, scored.digest()
        self._monitors = [layer for layer in [*outer, *copies[0]] if isinstance(layer, VecMonitor | Monitor)]

    @property
    def distribution(self) -> Distribution:
        """How crystals are sampled, the network apart."""
        return Distribution(self.grammar, bins=self.bins)

    def score(self, crystals: CrystalBatch) -> RewardResult:
        """Return the scores of crystals (B,), their totals those that episodes end with."""
        result = self._scorer(crystals)
        total = result.total
        for transform in self._scored.transforms:
            total = np.asarray(transform.function(total), np.float64)
        return result._replace(total=total)

    def has_task_of(self, other: "EnvAdapter | None", digest: str | None) -> bool:
        """Return whether crystals get the same rewards here as in another environment, as far as can be told.

        Args:
            other: the adapter of the other environment, if it is in this process.
            digest: its digest.
        """
        if other is not None and not (self._scored.transforms or other._scored.transforms):
            mine, its = self._scored.task, other._scored.task
            if (mine.grammar.constraints, mine.bins) == (its.grammar.constraints, its.bins) and _is_one(mine, its):
                return True
        return digest is not None and digest == self.digest

    def reward_state(self) -> dict[str, Any]:
        """Return what the reward remembers, such as the buckets of `rewards.Diversity`, by place in it."""
        return {place: part.state_dict() for place, part in stateful_parts(self._scorer).items()}

    def load_reward_state(self, state: dict[str, Any]) -> None:
        """Let the reward remember what `reward_state` gave; parts that it does not have are passed over."""
        for place, part in stateful_parts(self._scorer).items():
            if place in state:
                part.load_state_dict(state[place])

    def masks(self, observations: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return the ids (N, V) that the constraints allow after observations (N, 2 + T), None without constraints.

        Where an observation itself is outside them, as that of a reset with other constraints, all ids are allowed.
        """
        if not set(self.grammar.constraints.in_words()) - {"space_group"}:
            return None
        states = CrystalStates(len(observations), Vocabulary(self.bins))
        rows, phase = np.arange(len(observations)), observations[:, 1].astype(np.int64)
        groups = observations[:, 0].astype(np.int64)
        inside = self.grammar.probabilities[groups] > 0
        states.reset(rows[inside], self.grammar, groups[inside])
        for part, tokens, values in walk(states, rows[inside], observations[inside, 2:], phase[inside]):
            allowed = states.step(part, tokens, values)
            inside[part[~allowed]] = False
            if not allowed.all():
                break
        return np.where((inside & (states.phase == phase))[:, None], states.masks, True)

    def record(self, crystals: CrystalBatch, rewards: NDArray[np.float64], seconds: float) -> list[dict[str, Any]]:
        """Report episodes (B,) that were not stepped to the monitors; return their entries of the infos."""
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


@dataclass(frozen=True)
class _Transform:
    """A reward wrapper's map of the rewards of finished crystals (B,)."""

    layer: Any
    function: Callable[[Any], Any]

    def about(self) -> Any:
        """Return what the map is made of."""
        parts = {name: value for name, value in vars(self.layer).items() if name != "env" and name[0] != "_"}
        return type(self.layer).__module__, type(self.layer).__qualname__, parts


@dataclass(frozen=True)
class _Scored:
    """Layers read so far, from the inside: their task, what happens to its rewards, and the classes of the wrappers."""

    task: CrystalTask
    transforms: tuple[_Transform, ...] = ()
    wrappers: tuple[type, ...] = ()

    def digest(self) -> str | None:
        scorer = self.task.scorer
        return _digest(
            (
                sorted(self.task.grammar.constraints.in_words().items()),
                self.task.bins,
                None if scorer is None else (scorer.floor, scorer.reward),
                [transform.about() for transform in self.transforms],
            )
        )


def _layers(env: VecEnv) -> tuple[list[Any], list[list[Any]]]:
    """Return the layers around all copies, and for each copy those inside, from the outermost to the bare one."""
    outer: list[Any] = []
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        outer.append(layer)
        layer = layer.venv
    outer.append(layer)
    if isinstance(layer, CrystalVecEnv):
        inner = list(_unwrapped(layer.env))
        if not isinstance(inner[-1], SyncVectorEnv):
            return outer, [inner]
        outer += inner
        layer = inner[-1]
    elif not isinstance(layer, DummyVecEnv):
        raise _no_crystals(layer)
    return outer, [list(_unwrapped(copy)) for copy in layer.envs]


def _unwrapped(layer: Any) -> Iterator[Any]:
    while isinstance(layer, gym.Wrapper | gym.vector.VectorWrapper):
        yield layer
        layer = layer.env
    yield layer


def _read(layers: list[Any]) -> _Scored:
    """Return what the layers of a copy, the outermost first, end with."""
    base = layers[-1]
    if not isinstance(base, CrystalGenEnv | CrystalGenVectorEnv):
        raise _no_crystals(base)
    _check_methods(base)
    scored = _Scored(base.crystal_task)
    for layer in reversed(layers[:-1]):
        scored = _through(layer, scored)
    return scored


def _through(layer: Any, inner: _Scored) -> _Scored:
    """Return what an environment ends with through one more layer.

    Raises:
        ValueError: if its effect is not known.
    """
    _check_methods(layer)
    if isinstance(layer, gym.wrappers.TimeLimit):
        _check_time_limit(layer, inner.task)
    wrappers = (*inner.wrappers, type(layer))
    if _owner(type(layer), "crystal_task") is not None:
        return _Scored(replace(inner.task, scorer=layer.crystal_task.scorer), (), wrappers)
    if isinstance(layer, _REWARD_WRAPPERS):
        return _Scored(inner.task, (*inner.transforms, _transform(layer)), wrappers)
    return replace(inner, wrappers=wrappers)


def _check_methods(layer: Any) -> None:
    """Refuse a layer that changes what the agent sees, does or gets in a way that is not known."""
    states_task = _owner(type(layer), "crystal_task")
    known = _HONOURED if states_task is None else (*_HONOURED, *states_task.__mro__)
    for name in _METHODS:
        owner, is_replaced = _owner(type(layer), name), callable(vars(layer).get(name))
        is_transform = isinstance(layer, _REWARD_WRAPPERS) and name in ("reward", "rewards")
        if owner is not None and (is_replaced or (owner not in known and not is_transform)):
            raise InputError(
                f"env must have no layer {type(layer).__name__}, whose {name} changes it in a way that KLPPO does not "
                "know: it samples and scores whole crystals. For rewards, use rewards.CrystalReward, "
                "rewards.VectorCrystalReward or a RewardWrapper"
            )


def _owner(kind: type, name: str) -> type | None:
    """Return the class that defines an attribute of a class."""
    return next((base for base in kind.__mro__ if name in vars(base)), None)


def _check_time_limit(layer: Any, task: CrystalTask) -> None:
    longest = 5 * task.grammar.constraints.max_sites + 7  # a letter, an element, 3 coordinates a site; STOP, 6 numbers
    if layer._max_episode_steps < longest:
        raise InputError(
            f"max_episode_steps of TimeLimit must be at least {longest}, the longest episode of the environment, got "
            f"{layer._max_episode_steps}: KLPPO samples whole crystals"
        )


def _transform(layer: Any) -> _Transform:
    """Return a reward wrapper's map, which must keep 0 and treat every reward by itself."""
    if isinstance(layer, VectorEnv):
        function: Callable[[Any], Any] = layer.rewards  # type: ignore[attr-defined]
    else:

        def function(rewards: Any) -> Any:
            return np.array([layer.reward(float(reward)) for reward in rewards], np.float64)

    together = np.asarray(function(_PROBE.copy()), np.float64)
    apart = [np.asarray(function(one.copy()), np.float64) for one in _PROBE[:, None]]
    if together.shape != _PROBE.shape or not np.array_equal(together, np.concatenate(apart), equal_nan=True):
        raise InputError(f"env must give each crystal its own reward, {type(layer).__name__} mixes those of a batch")
    if together[0] != 0:
        raise InputError(f"env must keep the reward 0 of unfinished crystals, {type(layer).__name__} changes it")
    return _Transform(layer, function)


def _check_same(first: _Scored, other: _Scored, number: int) -> None:
    """Refuse copies that differ: crystals are sampled and scored for all of them together."""
    pairs: dict[str, list[Any]] = {
        "constraints": [scored.task.grammar.constraints for scored in (first, other)],
        "bins": [scored.task.bins for scored in (first, other)],
        "wrappers": [[kind.__name__ for kind in scored.wrappers] for scored in (first, other)],
    }
    for name, (one, two) in pairs.items():
        if one != two:
            raise InputError(f"all copies of env must have the same {name}, copy 0 has {one}, copy {number} has {two}")
    if first is other or (not first.transforms and _is_one(first.task, other.task)):
        return
    if first.digest() is None or first.digest() != other.digest():
        raise InputError(f"all copies of env must have the same reward, those of copy 0 and copy {number} differ")


def _is_one(first: CrystalTask, other: CrystalTask) -> bool:
    """Return whether the rewards of two tasks are the same object with the same floor."""
    one, two = first.scorer, other.scorer
    if one is None or two is None:
        return one is two
    return one.reward is two.reward and one.floor == two.floor


def _digest(parts: Any) -> str | None:
    """Return a hash of what objects are made of, by value, or None if they cannot be pickled."""
    buffer = io.BytesIO()
    pickler = cloudpickle.Pickler(buffer)
    pickler.fast = True  # equal objects give equal bytes, whether or not they are one object
    try:
        pickler.dump(parts)
    except Exception:  # noqa: BLE001  a user's reward may hold anything
        return None
    return sha256(buffer.getvalue()).hexdigest()


def _no_crystals(env: Any) -> InputError:
    return InputError(
        f"env must be CrystalGen-v0 or a variant of it in this process, wrapped or not, got {type(env).__name__}: "
        "KLPPO samples whole crystals instead of stepping it"
    )
