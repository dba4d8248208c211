"""The interface of rewards: their result, and the scorer that makes any reward safe for an environment."""

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError


class RewardResult(NamedTuple):
    """Rewards of B crystals, in their order.

    Attributes:
        total (B,): the reward, always finite.
        terms: name -> (B,) the numbers behind the total, always finite; ``"success"``, where present, is 1 or 0.
        failures (B,): object array of None, or the reason why a crystal could not be scored and got the floor.
    """

    total: NDArray[np.float64]
    terms: dict[str, NDArray[np.float64]]
    failures: NDArray[np.object_]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Whether each crystal (B,) could be scored."""
        return _is_none(self.failures)

    def success(self) -> NDArray[np.bool_]:
        """Return whether crystals (B,) succeeded: by the term ``"success"`` if the reward has one, else if scored."""
        return self.scored & (self.terms["success"] > 0) if "success" in self.terms else self.scored

    def take(self, rows: NDArray[np.int64]) -> "RewardResult":
        """Return the results of the given rows (n,), repeats allowed."""
        terms = {name: values[rows] for name, values in self.terms.items()}
        return RewardResult(self.total[rows], terms, self.failures[rows])

    @staticmethod
    def concatenate(results: Sequence["RewardResult"], floor: float, names: Iterable[str] = ()) -> "RewardResult":
        """Join results in order; no results give an empty one.

        Args:
            results: of B crystals together.
            floor: value of a term where a result lacks it; success is 0 there.
            names: terms that the joined result has in any case, before all others.
        """
        results = results or [RewardResult(np.zeros(0), {}, np.zeros(0, object))]
        terms = {}
        for name in dict.fromkeys([*names, *(name for result in results for name in result.terms)]):
            fill = 0.0 if name == "success" else floor
            columns = [result.terms.get(name, np.full(len(result.total), fill)) for result in results]
            terms[name] = np.concatenate(columns)
        totals, failures = ([getattr(result, name) for result in results] for name in ("total", "failures"))
        return RewardResult(np.concatenate(totals), terms, np.concatenate(failures))

    def info(self, row: int) -> dict[str, Any]:
        """Return the info entries of one crystal: ``reward_terms``, ``is_success`` and ``reward_failure``."""
        terms = {name: float(values[row]) for name, values in self.terms.items()}
        failure = self.failures[row]
        is_success = failure is None and terms.get("success", 1.0) > 0
        return {"reward_terms": terms, "is_success": is_success, "reward_failure": failure}

    def vector_info(self, rows: NDArray[np.int64], num_envs: int) -> dict[str, Any]:
        """Return the same entries for crystals that ended in the sub-environments ``rows``, as Gymnasium batches them.

        Every key holds an array over all ``num_envs`` sub-environments, and ``_key`` the mask of those that set it.
        """
        mask = np.zeros(num_envs, bool)
        mask[rows] = True

        def spread(values: NDArray[Any], fill: Any) -> NDArray[Any]:
            array = np.full(num_envs, fill, values.dtype)
            array[rows] = values
            return array

        terms: dict[str, Any] = {}
        for name, values in self.terms.items():
            terms[name], terms[f"_{name}"] = spread(values, 0.0), mask.copy()
        return {
            "reward_terms": terms,
            "_reward_terms": mask.copy(),
            "is_success": spread(self.success(), False),
            "_is_success": mask.copy(),
            "reward_failure": spread(self.failures, None),
            "_reward_failure": mask.copy(),
        }


def without_failure(failures: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return the rows without a reason of failure."""
    return np.flatnonzero(_is_none(failures))


def _is_none(failures: NDArray[np.object_]) -> NDArray[np.bool_]:
    return np.array([failure is None for failure in failures], bool)


Reward = Callable[[CrystalBatch], Any]
"""A callable from a batch of crystals to a `RewardResult`, or to an array of B floats."""


def resolve_reward(reward: Reward | str, kwargs: dict[str, Any] | None = None) -> Reward:
    """Return a reward from a callable, or from ``"module:attribute"`` and keyword arguments.

    A class is instantiated with the arguments, a function gets them bound.

    Raises:
        ValueError: if the string has another form, nothing of that name can be imported, it is not callable, or it
            does not take the arguments.
    """
    target = _imported(reward) if isinstance(reward, str) else reward
    if not callable(target):
        raise InputError(f"reward must be callable, got {target!r}")
    check_kwargs(kwargs)
    _check_signature(target, kwargs)
    if isinstance(target, type):
        target = target(**(kwargs or {}))
        if not callable(target):
            raise InputError(f"reward must be callable, but instances of {reward!r} are not")
        return target
    return partial(target, **kwargs) if kwargs else target


def _imported(name: str) -> Any:
    """Return the attribute of ``"module:attribute"``; an error inside the module keeps its traceback."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute) or module.startswith("."):
        raise InputError(f"reward must be a callable or 'module:attribute', got {name!r}")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(f"reward {name!r} cannot be imported: {error}") from error
    if not hasattr(imported, attribute):
        raise InputError(f"reward {name!r} cannot be imported: module {module!r} has no attribute {attribute!r}")
    return getattr(imported, attribute)


def check_kwargs(kwargs: Any) -> None:
    """Check that the keyword arguments of a reward are a mapping.

    Raises:
        ValueError: if it is neither None nor a mapping.
    """
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InputError(f"reward_kwargs must be a dict of keyword arguments, got {kwargs!r}")


def _check_signature(target: Callable[..., Any], kwargs: Mapping[str, Any] | None) -> None:
    """Check that a class or function takes the keyword arguments."""
    try:
        signature = inspect.signature(target)
    except (ValueError, TypeError):  # some builtins have none
        return
    bind = signature.bind if isinstance(target, type) else signature.bind_partial  # a function takes the crystals too
    try:
        bind(**(kwargs or {}))
    except TypeError as error:
        raise InputError(f"reward_kwargs {kwargs or {}} do not fit reward {target!r}: {error}") from error


def reward_floor(reward: Any) -> float | None:
    """Return the lowest total that a reward states it can give, its attribute ``floor``; None where it states none."""
    floor = getattr(reward, "floor", None)
    if isinstance(floor, bool) or not isinstance(floor, int | float | np.integer | np.floating):
        return None
    return float(floor) if np.isfinite(floor) else None


def default_floor(reward: Any) -> float:
    """Return the default reward of a failure: -1, or the floor of the reward if that is lower."""
    floor = reward_floor(reward)
    return -1.0 if floor is None else min(-1.0, floor)


def stateful_parts(reward: Any) -> dict[str, Any]:
    """Return the stateful parts of a reward, those with ``state_dict`` and ``load_state_dict``, by attribute path.

    Parts are found in the attributes of callable objects, and in dictionaries, lists and tuples that are public
    attributes; networks do not count.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def walk(part: Any, path: str) -> None:
        part = getattr(part, "__self__", part)  # the object of a bound method
        if id(part) in seen or isinstance(part, type | str | np.ndarray) or hasattr(part, "parameters"):
            return
        seen.add(id(part))
        inside: Iterable[tuple[Any, Any]]
        if isinstance(part, Mapping):
            inside = part.items()
        elif isinstance(part, list | tuple):
            inside = enumerate(part)
        elif callable(part) and hasattr(part, "__dict__"):
            if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
                found[path] = part
            inside = [(k, item) for k, item in vars(part).items() if callable(item) or not k.startswith("_")]
        else:
            return
        for name, item in list(inside):
            walk(item, f"{path}.{name}".lstrip("."))

    walk(reward, "")
    return found


class Scorer:
    """Scores batches with a reward and guarantees the contract of `RewardResult`, whatever the reward does.

    A reward that raises or returns the wrong number of values is called again crystal by crystal, so that only the
    crystals at fault get the floor. A crystal with a total or a term that is not finite gets the floor too. The reason
    is in ``failures``, the reward's own where it gives one, and each new kind of error is also a `RuntimeWarning`.
    Missing terms of a failed crystal are the floor, but success is 0; before any crystal was scored, the names of the
    terms are unknown.

    Args:
        reward: a callable from a batch of crystals to a `RewardResult` or B floats.
        floor: the total of a crystal that cannot be scored.
    """

    def __init__(self, reward: Reward, floor: float) -> None:
        self.reward = reward
        self.floor = float(floor)
        self._terms: list[str] = []
        self._warned: set[str] = set()

    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        """Score B crystals; an empty batch gives an empty result without a call."""
        if not len(crystals):
            return self._complete([])
        try:
            return self._complete([self._checked(crystals)])
        except Exception as error:  # noqa: BLE001  a user's reward may raise anything
            if len(crystals) == 1:
                return self._complete([self._failed(error)])
        results = []
        for row in range(len(crystals)):
            try:
                results.append(self._checked(crystals[row : row + 1]))
            except Exception as error:  # noqa: BLE001
                results.append(self._failed(error))
        return self._complete(results)

    def _checked(self, crystals: CrystalBatch) -> RewardResult:
        """Call the reward with a copy, which it may change, and return its numbers as arrays of the right shape."""
        result = self.reward(crystals[np.arange(len(crystals))])
        if not isinstance(result, RewardResult):
            total = np.asarray(result, np.float64)
            result = RewardResult(total, {}, np.full(total.shape, None, object))
        reasons = [None if failure is None else str(failure) for failure in result.failures]
        columns = {
            name: np.asarray(values, np.float64) for name, values in {"total": result.total, **result.terms}.items()
        }
        failures = np.array([*reasons, None], object)[:-1]  # an array of objects, whatever their number
        for name, column in {**columns, "failures": failures}.items():
            if column.shape != (len(crystals),):
                raise ValueError(f"reward returned {name} of shape {column.shape} for {len(crystals)} crystals")
        return RewardResult(columns.pop("total"), columns, failures)

    def _failed(self, error: Exception) -> RewardResult:
        reason = f"{type(error).__name__}: {error}"
        if type(error).__name__ not in self._warned:
            self._warned.add(type(error).__name__)
            with suppress(RuntimeWarning):  # even where warnings are errors, the other crystals are scored
                warnings.warn(f"the reward failed, a crystal gets {self.floor}: {reason}", RuntimeWarning, stacklevel=2)
        return RewardResult(np.array([self.floor]), {}, np.array([reason], object))

    def _complete(self, results: list[RewardResult]) -> RewardResult:
        """Join results and give all the same terms; a crystal with a number that is not finite fails."""
        joined = RewardResult.concatenate(results, self.floor, self._terms)
        self._terms = list(joined.terms)
        columns = {"the reward": joined.total, **joined.terms}
        if all(np.isfinite(values).all() for values in columns.values()):
            return joined
        failures, bad = joined.failures.copy(), np.zeros(len(joined.total), bool)
        for name, values in columns.items():
            broken = ~np.isfinite(values)
            for row in np.flatnonzero(broken & _is_none(failures)):
                failures[row] = f"{name} is {values[row]}"
            bad |= broken
        terms = {
            name: np.where(bad, 0.0, values) if name == "success" else np.where(np.isfinite(values), values, self.floor)
            for name, values in joined.terms.items()
        }
        return RewardResult(np.where(bad, self.floor, joined.total), terms, failures)
