"""The layers of an environment, from the bare one outwards: what each does to crystals and their rewards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from agents.sb3.vec_env import CrystalVecEnv
from crystal_env.env import CrystalGenEnv
from crystal_env.episodes import CrystalEnvBase, CrystalTask
from crystal_env.errors import InputError
from crystal_env.integrity.digest import digest
from crystal_env.vector_env import CrystalGenVectorEnv

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
"""Classes whose own methods change nothing of that, or what is read here."""

_REWARD_WRAPPERS = (gym.RewardWrapper, gym.vector.VectorRewardWrapper)

_PROBE = np.array([0.0, 1.0, -2.5, 0.125])


@dataclass(frozen=True)
class RewardTransform:
    """A reward wrapper's map of the rewards of finished crystals (B,)."""

    layer: Any
    function: Callable[[Any], Any]

    def about(self) -> Any:
        """Return what the map is made of."""
        parts = {name: value for name, value in vars(self.layer).items() if name != "env" and name[0] != "_"}
        return type(self.layer).__module__, type(self.layer).__qualname__, parts


@dataclass(frozen=True)
class ScoredTask:
    """What crystals are and end with, inside a number of layers.

    Attributes:
        task: grammar, bins and scorer.
        reward: the reward, or its name and arguments.
        transforms: what happens to the scorer's totals, in this order.
        wrappers: classes of the layers, the innermost first.
    """

    task: CrystalTask
    reward: Any
    transforms: tuple[RewardTransform, ...] = ()
    wrappers: tuple[type, ...] = ()

    def apply(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rewards that episodes end with, whose crystals have these totals (B,)."""
        for transform in self.transforms:
            totals = np.asarray(transform.function(totals), np.float64)
        return totals

    def is_same(self, other: "ScoredTask") -> bool:
        """Return whether both are made of the same objects."""
        one, two = self.task, other.task
        is_one = (one.grammar.constraints, one.bins) == (two.grammar.constraints, two.bins) and _is_one(one, two)
        return is_one and not self.transforms and not other.transforms

    def digest(self) -> str | None:
        """Return a hash of all of it, the same in every process, or None if it cannot be pickled."""
        scorer = self.task.scorer
        return digest(
            (
                sorted(self.task.grammar.constraints.in_words().items()),
                self.task.bins,
                None if scorer is None else (scorer.floor, self.reward),
                [transform.about() for transform in self.transforms],
            )
        )


def read_layers(env: VecEnv) -> tuple[ScoredTask, list[Any]]:
    """Return what crystals are and end with in an environment, and its monitors.

    Raises:
        ValueError: if it is not `CrystalGen-v0` in this process, has a layer whose effect is not known, or copies that
            differ.
    """
    outer, copies = _layers(env)
    stacks = [_read(layers) for layers in copies]
    for number, stack in enumerate(stacks):
        _check_same(stacks[0], stack, number)
    scored = stacks[0]
    for layer in reversed(outer):
        scored = _through(layer, scored)
    return scored, [layer for layer in [*outer, *copies[0]] if isinstance(layer, VecMonitor | Monitor)]


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


def _read(layers: list[Any]) -> ScoredTask:
    """Return what the layers of a copy, the outermost first, end with."""
    base = layers[-1]
    if not isinstance(base, CrystalGenEnv | CrystalGenVectorEnv):
        raise _no_crystals(base)
    _check_methods(base)
    reward = (base.reward, base.reward_kwargs) if isinstance(base.reward, str) else base.reward
    scored = ScoredTask(base.crystal_task, reward)
    for layer in reversed(layers[:-1]):
        scored = _through(layer, scored)
    return scored


def _through(layer: Any, inner: ScoredTask) -> ScoredTask:
    """Return what an environment ends with through one more layer.

    Raises:
        ValueError: if its effect is not known.
    """
    _check_methods(layer)
    if isinstance(layer, gym.wrappers.TimeLimit):
        _check_time_limit(layer, inner.task)
    wrappers = (*inner.wrappers, type(layer))
    if _owner(type(layer), "crystal_task") is not None:
        scorer = layer.crystal_task.scorer
        return ScoredTask(replace(inner.task, scorer=scorer), getattr(scorer, "reward", None), (), wrappers)
    if isinstance(layer, _REWARD_WRAPPERS):
        return replace(inner, transforms=(*inner.transforms, _transform(layer)), wrappers=wrappers)
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


def _transform(layer: Any) -> RewardTransform:
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
    return RewardTransform(layer, function)


def _check_same(first: ScoredTask, other: ScoredTask, number: int) -> None:
    """Refuse copies that differ: crystals are sampled and scored for all of them together."""
    pairs: dict[str, list[Any]] = {
        "constraints": [scored.task.grammar.constraints for scored in (first, other)],
        "bins": [scored.task.bins for scored in (first, other)],
        "wrappers": [[kind.__name__ for kind in scored.wrappers] for scored in (first, other)],
    }
    for name, (one, two) in pairs.items():
        if one != two:
            raise InputError(f"all copies of env must have the same {name}, copy 0 has {one}, copy {number} has {two}")
    if first is other or first.is_same(other):
        return
    if first.digest() is None or first.digest() != other.digest():
        raise InputError(f"all copies of env must have the same reward, those of copy 0 and copy {number} differ")


def _is_one(first: CrystalTask, other: CrystalTask) -> bool:
    """Return whether the rewards of two tasks are the same object with the same floor."""
    one, two = first.scorer, other.scorer
    if one is None or two is None:
        return one is two
    return one.reward is two.reward and one.floor == two.floor


def _no_crystals(env: Any) -> InputError:
    return InputError(
        f"env must be CrystalGen-v0 or a variant of it in this process, wrapped or not, got {type(env).__name__}: "
        "KLPPO samples whole crystals instead of stepping it"
    )
