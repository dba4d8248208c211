"""Contract tests for rewards and potentials, also for a user's own.

>>> import rewards
>>> check_reward(rewards.Validity())

A broken promise is an `AssertionError` whose message begins with the name of the promise.
"""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.elements import SYMBOLS
from crystal_env.equivalents import equivalents
from crystal_env.reward import Reward, RewardResult, reward_floor
from rewards.testing.global_state import unchanged_state
from rewards.testing.potential import check_potential

__all__ = ["check_lazy_loading", "check_potential", "check_reward", "examples", "garbage"]

_HEAVY = ("torch", "chgnet", "matgl", "orb_models", "ray", "pandas")
_EXAMPLES = (
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90",
    "221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.905-3.905-3.905-90-90-90",
    "186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.382-X-3.25-3.25-5.21-90-90-120",
    "229-a-Fe-0-0-0-X-2.87-2.87-2.87-90-90-90",
    "136-a-Ti-0-0-0-f-O-0.305-0.305-0-X-4.59-4.59-2.96-90-90-90",
    "167-c-Al-0-0-0.352-e-O-0.306-0-1/4-X-4.76-4.76-12.99-90-90-120",
    "62-a-Ti-0-0-0-c-Ca-0.008-1/4-0.536-c-O-0.571-1/4-0.484-d-O-0.789-0.537-0.213-X-5.38-7.64-5.44-90-90-90",
    "14-e-Zr-0.275-0.04-0.208-e-O-0.07-0.332-0.345-e-O-0.45-0.757-0.479-X-5.15-5.21-5.31-90-99.2-90",
    "2-i-Mg-0.2-0.3-0.1-i-S-0.7-0.6-0.4-X-4.1-4.6-5.3-82-98-105",
)
_GARBAGE = (
    "1-a-H-0.1-0.2-0.3-a-H-0.1-0.2-0.3-X-4-4-4-90-90-90",
    "1-a-Fe-0-0-0-a-Fe-0.001-0-0-X-4-4-4-90-90-90",
    "225-a-He-0-0-0-X-4.2-4.2-4.2-90-90-90",
    "221-a-Xe-0-0-0-b-Ne-1/2-1/2-1/2-X-4.5-4.5-4.5-90-90-90",
    "225-a-Og-0-0-0-b-Ts-1/2-1/2-1/2-X-7-7-7-90-90-90",
    "216-a-Pu-0-0-0-c-Rn-1/4-1/4-1/4-X-6-6-6-90-90-90",
    "229-a-Fe-0-0-0-X-0.7-0.7-0.7-90-90-90",
    "229-a-Fe-0-0-0-X-40-40-40-90-90-90",
    "1-a-Fe-0-0-0-X-40-40-0.7-90-90-90",
    "2-a-Fe-0-0-0-X-40-40-40-0.7-0.7-0.7",
    "2-a-O-0-0-0-i-Li-0.1-0.7-0.4-X-40-0.7-3-100-130-120",
)
_GENERAL = "-".join(f"l-{symbol}-0.{x}1-0.{x}37-0.{x}73" for x, symbol in enumerate("H C N O F P S K".split(), 1))
_CROWD = "-".join(
    f"a-{symbol}-0.{z}-0.{7 * z % 53:02}-0.{3 * z % 31:02}" for z, symbol in enumerate(SYMBOLS[60:80], 10)
)


def examples() -> CrystalBatch:
    """Return nine crystals of different formulas, from cubic to triclinic: eight real, one fictitious in P-1."""
    return CrystalBatch.from_crystals(Crystal.from_string(string) for string in _EXAMPLES)


def garbage() -> CrystalBatch:
    """Return unphysical crystals that the grammar allows.

    Coinciding atoms, noble gases, elements that no model knows, axes of 0.7 and 40 Å, flat and needle-like cells, 1,536
    atoms in three sizes, and twenty elements in a small cell.
    """
    strings = [*_GARBAGE, f"1-{_CROWD}-X-4-4-4-90-90-90"]
    strings += [f"225-{_GENERAL}-X-{a}-{a}-{a}-90-90-90" for a in (0.7, 28, 40)]
    return CrystalBatch.from_crystals(Crystal.from_string(string) for string in strings)


def check_reward(
    reward: Reward,
    crystals: CrystalBatch | None = None,
    *,
    stateful: bool = False,
    relative: bool = False,
    stochastic: bool = False,
    tolerance: float = 1e-4,
) -> None:
    """Make sure that a reward keeps the contract of `RewardResult`.

    Promises, by the names that messages begin with: ``pickling`` and ``deep copy`` (copies exist and score the same,
    including their memory), ``global state`` (nothing that a process shares changes), ``never raises``, ``form`` (B
    totals, terms and failures), ``finite``, ``inputs`` (they are not changed), ``empty batch``, ``floor`` (no total is
    below the attribute ``floor`` of the reward, if it has one), ``repeat`` (the same again), ``order``, ``batch equals
    singles``, ``isolation`` (garbage changes nothing for others) and ``equivalent descriptions`` (the same with another
    origin, axes and letters).

    Args:
        reward: a callable that returns a `RewardResult` or an array.
        crystals: crystals that it can score, no two of the same structure; by default `examples`.
        stateful: whether it remembers on purpose; each check then starts from a copy.
        relative: whether it compares crystals of a batch on purpose; batches are then not compared with singles.
        stochastic: whether it is random on purpose; no two values are then compared.
        tolerance: largest difference of two values that should be equal, relative where they are above 1.

    Raises:
        AssertionError: if a promise is broken.
    """
    crystals = examples() if crystals is None else crystals
    copies = {"pickling": _pickled(reward), "deep copy": _deep_copied(reward)}

    def score(batch: CrystalBatch) -> RewardResult:
        return _score(_deep_copied(reward) if stateful else reward, batch)

    with unchanged_state("the first score", warm=False):
        expected = score(crystals)
    with unchanged_state("a score"):
        again = score(crystals)
    bad = score(garbage())
    assert len(score(crystals[:0]).total) == 0, "empty batch: it has a score"
    for result in (expected, bad):
        _check_floor(result, reward_floor(reward))
    if stochastic:
        return
    compare = partial(_compare, tolerance=tolerance)
    compare("repeat", again, expected)
    order = np.random.default_rng(0).permutation(len(crystals))
    compare("order", score(crystals[order]), expected.take(order))
    if not relative:
        compare("batch equals singles", _joined(score, crystals), expected)
        compare("batch equals singles", _joined(score, garbage()), bad)
    mixed = score(CrystalBatch.concatenate([garbage(), crystals]))
    compare("isolation", mixed.take(np.arange(len(mixed.total))[-len(crystals) :]), expected)
    for seed in range(3):
        other = equivalents(crystals, np.random.default_rng(seed))
        compare("equivalent descriptions", score(other), expected)
    used = _deep_copied(reward)
    for promise, made in copies.items():
        compare(promise, _score(made, crystals), expected)
    _score(used, crystals)
    remembered = {"pickling": _pickled(used), "deep copy": _deep_copied(used)}
    expected = _score(used, crystals)
    for promise, made in remembered.items():
        compare(promise, _score(made, crystals), expected)


def check_lazy_loading(reward: Reward) -> None:
    """Make sure that a reward, or a potential, exists in a new process without any heavy library.

    Raises:
        AssertionError: if it cannot be unpickled there, or a library such as torch is imported with it.
    """
    script = "import pickle, sys; pickle.load(sys.stdin.buffer); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(reward), capture_output=True, env=environment, check=False
    )
    assert process.returncode == 0, f"lazy loading: it cannot be unpickled: {process.stderr.decode()}"
    loaded = sorted(set(_HEAVY) & set(process.stdout.decode().split()))
    assert not loaded, f"lazy loading: {', '.join(loaded)} imported before the first score"


def _score(reward: Reward, crystals: CrystalBatch) -> RewardResult:
    """Return the result of a reward for a copy of crystals, after a check of its form."""
    given = crystals[np.arange(len(crystals))]
    try:
        answer = reward(given)
    except Exception as error:
        raise AssertionError(f"never raises: {type(error).__name__}: {error}") from error
    for name in ("G", "W", "A", "XYZ", "L"):
        assert np.array_equal(getattr(given, name), getattr(crystals, name)), f"inputs: the reward changed {name}"
    if not isinstance(answer, RewardResult):
        total = np.asarray(answer, np.float64)
        answer = RewardResult(total, {}, np.full(total.shape, None, object))
    _check_form(answer, len(crystals))
    return answer


def _check_form(result: RewardResult, size: int) -> None:
    columns = {"total": result.total, **{f"term {name}": values for name, values in result.terms.items()}}
    assert "total" not in result.terms, "form: no term may be called total"
    for name, values in {**columns, "failures": result.failures}.items():
        shape = np.shape(values)
        assert shape == (size,), f"form: {name} has shape {shape} for {size} crystals"
    for name, values in columns.items():
        rows = np.flatnonzero(~np.isfinite(np.asarray(values, np.float64)))
        assert not len(rows), f"finite: {name} is {values[rows[0]]} for crystal {rows[0]} of {size}"
    wrong = [failure for failure in result.failures if not (failure is None or isinstance(failure, str))]
    assert not wrong, f"form: a failure is None or a text, got {wrong[:1]}"
    success = result.terms.get("success", np.zeros(0))
    assert np.isin(success, (0, 1)).all(), f"form: the term success is 0 or 1, got {success}"


def _check_floor(result: RewardResult, floor: float | None) -> None:
    lowest = result.total.min(initial=np.inf)
    assert floor is None or lowest >= floor, f"floor: a total is {lowest}, below the reward's floor of {floor}"


def _joined(score: Callable[[CrystalBatch], RewardResult], crystals: CrystalBatch) -> RewardResult:
    """Return the results of crystals that are scored one by one."""
    singles = [score(crystals[row : row + 1]) for row in range(len(crystals))]
    names = [sorted(single.terms) for single in singles]
    assert all(name == names[0] for name in names), f"batch equals singles: the terms differ, {names[0]} and others"
    return RewardResult.concatenate(singles, 0.0)


def _compare(promise: str, found: RewardResult, expected: RewardResult, tolerance: float) -> None:
    """Make sure that two results are the same."""
    names = sorted(found.terms), sorted(expected.terms)
    assert names[0] == names[1], f"{promise}: the terms are {names[0]} instead of {names[1]}"
    failed = np.array([[failure is not None for failure in result.failures] for result in (found, expected)], bool)
    differ = failed[0] != failed[1]
    assert not differ.any(), f"{promise}: other crystals fail, {_first(differ)}"
    columns: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {"total": (found.total, expected.total)}
    columns |= {f"term {name}": (found.terms[name], expected.terms[name]) for name in expected.terms}
    for name, (values, others) in columns.items():
        apart = np.abs(values - others) > tolerance * np.maximum(1, np.abs(others))
        assert not apart.any(), (
            f"{promise}: {name} is {values[apart][0]} instead of {others[apart][0]}, {_first(apart)}"
        )


def _first(wrong: NDArray[np.bool_]) -> str:
    return f"crystal {np.flatnonzero(wrong)[0]} of {len(wrong)}"


def _pickled(reward: Reward) -> Reward:
    try:
        copied: Reward = pickle.loads(pickle.dumps(reward))
    except Exception as error:
        raise AssertionError(f"pickling: {type(error).__name__}: {error}") from error
    return copied


def _deep_copied(reward: Reward) -> Reward:
    try:
        return copy.deepcopy(reward)
    except Exception as error:
        raise AssertionError(f"deep copy: {type(error).__name__}: {error}") from error
