"""The common core of the single and the vector environment: spaces, constraints, space groups, steps and scores."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import ConstraintOptions, SpaceGroup, constraints
from crystal_env.grammar.feasibility import Grammar, compile_grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.reward import Reward, RewardResult, Scorer, check_kwargs, default_floor, resolve_reward
from crystal_env.vocabulary import Phase, Vocabulary
from crystal_env.wyckoff import N_GROUPS

ActionMode = Literal["discrete", "continuous"]
InvalidAction = Literal["terminate", "raise"]


_NO_CRYSTALS = CrystalBatch.empty()
_CONSTRAINTS = frozenset(inspect.signature(constraints).parameters)


class EpisodeOptions(ConstraintOptions, total=False):
    """The arguments that both environments take; `CrystalGenEnv` describes them."""

    reward: Reward | str | None
    reward_kwargs: dict[str, Any] | None
    action_mode: ActionMode
    bins: int
    invalid_action: InvalidAction
    invalid_reward: float | None
    space_group: SpaceGroup


@dataclass(frozen=True)
class CrystalTask:
    """The task of an environment: all that an agent needs to sample and score whole crystals without stepping.

    Attributes:
        grammar: the grammar under the environment's constraints, with the probabilities of its space groups.
        bins: numeric bins of the action space, 0 in continuous mode.
        scorer: scores finished crystals, None where there is no reward.
        invalid_reward: the reward of an action that is not allowed, and of a crystal that cannot be scored.
    """

    grammar: Grammar
    bins: int
    scorer: Scorer | None
    invalid_reward: float


class StepResult(NamedTuple):
    """The result of one step in n environments.

    Attributes:
        rewards (n,): 0 unless the episode ended.
        ended (n,): whether the episode ended.
        invalid (n,): whether the action was not allowed.
        finished (k,): which of the n completed their crystal.
        crystals: the k completed crystals.
        scores: of the k crystals, None without a reward.
    """

    rewards: NDArray[np.float64]
    ended: NDArray[np.bool_]
    invalid: NDArray[np.bool_]
    finished: NDArray[np.int64]
    crystals: CrystalBatch
    scores: RewardResult | None


class Episodes:
    """N episodes in parallel, the state behind `CrystalGenEnv` (N = 1) and `CrystalGenVectorEnv`.

    Raises:
        ValueError: if an argument is malformed, or no crystal meets the constraints.
    """

    def __init__(
        self,
        size: int,
        *,
        reward: Reward | str | None = "rewards:Validity",
        reward_kwargs: dict[str, Any] | None = None,
        action_mode: ActionMode = "discrete",
        bins: int = 960,
        invalid_action: InvalidAction = "terminate",
        invalid_reward: float | None = None,
        **constraint_kwargs: Any,
    ) -> None:
        if action_mode not in ("discrete", "continuous"):
            raise InputError(f"action_mode must be 'discrete' or 'continuous', got {action_mode!r}")
        if invalid_action not in ("terminate", "raise"):
            raise InputError(f"invalid_action must be 'terminate' or 'raise', got {invalid_action!r}")
        if invalid_reward is not None and not _is_finite(invalid_reward):
            raise InputError(f"invalid_reward must be a finite number or None, got {invalid_reward!r}")
        check_kwargs(reward_kwargs)
        if action_mode == "discrete" and bins == 0:
            raise InputError("bins must be a positive multiple of 24, got 0")
        self._constraint_kwargs = constraint_kwargs
        self.grammar = compile_grammar(constraints(**constraint_kwargs))
        chooses_group = self.grammar.constraints.chooses_group
        self.vocabulary = Vocabulary(bins if action_mode == "discrete" else 0, chooses_group)
        self.states = CrystalStates(size, self.vocabulary)
        self.ended = np.ones(size, bool)
        self._invalid_action = invalid_action
        self._invalid_reward = None if invalid_reward is None else float(invalid_reward)
        self._wrapper_floor: float | None = None  # of a wrapper that scores the crystals
        self._reward, self._reward_kwargs = reward, reward_kwargs
        self._scorer: Scorer | None = None
        if not isinstance(reward, str):
            self._load_reward()

    @property
    def reward(self) -> Reward | str | None:
        """The reward of finished crystals; None leaves them unscored."""
        return self._reward

    @reward.setter
    def reward(self, reward: Reward | str | None) -> None:
        self._reward, self._reward_kwargs, self._scorer, self._wrapper_floor = reward, None, None, None

    @property
    def reward_kwargs(self) -> dict[str, Any]:
        """Arguments of a reward that is given by its name."""
        return dict(self._reward_kwargs or {})

    def delegate_reward(self, floor: float) -> None:
        """Leave crystals unscored, for a wrapper that scores them and gives ``floor`` to those that fail."""
        self.reward = None
        self._wrapper_floor = float(floor)

    @property
    def invalid_reward(self) -> float:
        """The reward of an action that is not allowed: as given, else -1 or the reward's floor if that is lower."""
        if self._invalid_reward is not None:
            return self._invalid_reward
        if self._wrapper_floor is not None:
            return min(-1.0, self._wrapper_floor)
        return -1.0 if self.scorer is None else self.scorer.floor

    @property
    def action_space(self) -> spaces.Space[Any]:
        """``Discrete(V)``, or ``Box(2,)`` of token id and normalised value in continuous mode."""
        if self.vocabulary.bins:
            return spaces.Discrete(self.vocabulary.size)
        return spaces.Box(np.zeros(2, np.float32), np.array([self.vocabulary.size - 1, 1], np.float32))

    @property
    def observation_space(self) -> spaces.Box:
        """The one-dimensional box of space group, phase and the decisions so far."""
        high = np.full(2 + self.vocabulary.max_decisions, self.vocabulary.size)
        high[:2] = N_GROUPS, Phase.DONE
        dtype = self.states.observations.dtype
        return spaces.Box(np.zeros(len(high), dtype), high.astype(dtype), dtype=dtype.type)

    def grammar_for(self, options: dict[str, Any] | None) -> Grammar:
        """Return the grammar of an episode whose ``reset`` was given options.

        Raises:
            ValueError: if an option is unknown or malformed, or no crystal meets the constraints.
        """
        if options is not None and not isinstance(options, Mapping):
            raise InputError(f"options of reset must be a dict of constraints, got {options!r}")
        if not options:
            return self.grammar
        if unknown := sorted(set(options) - _CONSTRAINTS):
            raise InputError(f"options of reset must be among {sorted(_CONSTRAINTS)}, got {unknown}")
        grammar = compile_grammar(constraints(**{**self._constraint_kwargs, **options}))
        if grammar.constraints.chooses_group != self.vocabulary.chooses_group:
            made, wanted = self.grammar.constraints.in_words(), grammar.constraints.in_words()
            raise InputError(
                f"space_group = {wanted.get('space_group', 'mp20')} has another action space than the environment's "
                f"space_group = {made.get('space_group', 'mp20')}: it can only be set when the environment is made"
            )
        return grammar

    def start(self, rows: NDArray[np.int64], generators: list[np.random.Generator], grammar: Grammar) -> None:
        """Start new episodes in ``rows`` (n,), their space groups sampled with one generator each."""
        if self.vocabulary.chooses_group:
            groups = np.zeros(len(rows), np.int64)
        elif grammar.only_group:
            groups = np.full(len(rows), grammar.only_group)
        else:
            uniform = [generator.random() for generator in generators]
            groups = np.searchsorted(grammar.cumulative, uniform, side="right")
        self.states.reset(rows, grammar, groups)
        self.ended[rows] = False

    def step(self, rows: NDArray[np.int64], actions: NDArray[Any]) -> StepResult:
        """Take one decision in each of ``rows`` (n,), with actions (n,) or (n, 2) from `check_actions`.

        Raises:
            ResetNeeded: if an episode has ended.
            ValueError: if an action is not allowed and ``invalid_action`` is ``"raise"``. Nothing has changed then.
        """
        if self.ended[rows].any():
            raise ResetNeeded(f"environments {rows[self.ended[rows]].tolist()} have ended: call reset before step")
        tokens, normalised = _split(actions)
        if self._invalid_action == "raise":
            self._raise_invalid(rows, tokens, normalised)
        valid = self.states.step(rows, tokens, normalised)
        finished = np.flatnonzero(valid & (self.states.phase[rows] == Phase.DONE))
        rewards = np.zeros(len(rows)) if valid.all() else np.where(valid, 0.0, self.invalid_reward)
        ended = ~valid
        ended[finished] = True
        self.ended[rows] = ended
        crystals = self.states.crystals(rows[finished]) if len(finished) else _NO_CRYSTALS
        scores = self.score(crystals) if len(finished) else None
        if scores is not None:
            rewards[finished] = scores.total
        return StepResult(rewards, ended, ~valid, finished, crystals, scores)

    def score(self, crystals: CrystalBatch) -> RewardResult | None:
        """Score finished crystals (B,); None without a reward."""
        scorer = self.scorer
        return None if scorer is None else scorer(crystals)

    @property
    def scorer(self) -> Scorer | None:
        """The scorer of finished crystals, None without a reward."""
        if self._scorer is None:
            self._load_reward()
        return self._scorer

    def _load_reward(self) -> None:
        if self._reward is not None:
            reward = resolve_reward(self._reward, self._reward_kwargs)
            self._scorer = Scorer(
                reward, default_floor(reward) if self._invalid_reward is None else self._invalid_reward
            )

    def _raise_invalid(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64], normalised: NDArray[np.float64] | None
    ) -> None:
        invalid = np.flatnonzero(~self.states.allowed(rows, tokens, normalised))
        if len(invalid):
            first = invalid[0]
            row = rows[first]
            shown = tokens[first] if normalised is None else (tokens[first], normalised[first])
            allowed = np.flatnonzero(self.states.masks[row])
            raise InputError(
                f"action {shown} is not allowed in environment {row} at phase {Phase(self.states.phase[row]).name}; "
                f"allowed are the {len(allowed)} ids {np.array2string(allowed, threshold=20)}"
            )


class CrystalEnvBase:
    """The properties that `CrystalGenEnv` and `CrystalGenVectorEnv` have beside Gymnasium's."""

    _episodes: Episodes

    @property
    def vocabulary(self) -> Vocabulary:
        """The meaning of the action ids."""
        return self._episodes.vocabulary

    @property
    def states(self) -> CrystalStates:
        """The state machine, one row per copy; read-only."""
        return self._episodes.states

    @property
    def grammar(self) -> Grammar:
        """The compiled constraints, with the probabilities of the space groups."""
        return self._episodes.grammar

    @property
    def crystal_task(self) -> CrystalTask:
        """The task of this environment; a reward given by name is resolved.

        Reward wrappers override it with their own scorer: use ``env.get_wrapper_attr("crystal_task")``.
        """
        episodes = self._episodes
        return CrystalTask(episodes.grammar, episodes.vocabulary.bins, episodes.scorer, episodes.invalid_reward)

    @property
    def invalid_reward(self) -> float:
        """The reward of an action that is not allowed, and of a crystal that cannot be scored."""
        return self._episodes.invalid_reward

    def delegate_reward(self, floor: float) -> None:
        """Leave crystals unscored, for a wrapper that scores them and gives ``floor`` to those that fail.

        An invalid action then earns -1, or ``floor`` if that is lower, unless ``invalid_reward`` was given.
        """
        self._episodes.delegate_reward(floor)

    def score(self, crystals: CrystalBatch) -> RewardResult | None:
        """Score finished crystals (B,) outside of any episode; None without a reward."""
        return self._episodes.score(crystals)

    @property
    def scorer(self) -> Scorer | None:
        """The scorer of finished crystals, None without a reward."""
        return self._episodes.scorer

    @property
    def reward(self) -> Reward | str | None:
        """The reward of finished crystals, which may be replaced at any time; None leaves them unscored."""
        return self._episodes.reward

    @reward.setter
    def reward(self, reward: Reward | str | None) -> None:
        self._episodes.reward = reward

    @property
    def reward_kwargs(self) -> dict[str, Any]:
        """Arguments of a reward that is given by its name."""
        return self._episodes.reward_kwargs


def check_actions(actions: ArrayLike, space: spaces.Space[Any], size: int | None) -> NDArray[Any]:
    """Return actions as an array (n,) of ids, or (n, 2) of id and normalised value in continuous mode.

    Args:
        actions: of ``size`` environments, or of a single one if ``size`` is None.
        space: the action space of one environment.
        size: number of environments.

    Raises:
        ValueError: if the dtype or the shape is wrong. Values that the space does not contain pass: they are actions
            that are not allowed.
    """
    array = np.asarray(actions)
    shape = (() if size is None else (size,)) + space.shape  # type: ignore[operator]
    kinds, wanted = ("iu", "integers") if isinstance(space, spaces.Discrete) else ("iuf", "numbers")
    if array.dtype.kind not in kinds or array.shape != shape:
        raise InputError(f"action must be {wanted} of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array if size is not None else array[None]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def _split(actions: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    if actions.ndim == 1:
        return actions.astype(np.int64), None
    numbers = actions.astype(np.float64)
    whole = np.clip(np.nan_to_num(numbers[:, 0], nan=-1.0), -1, 1e6)
    return np.rint(whole).astype(np.int64), numbers[:, 1]
