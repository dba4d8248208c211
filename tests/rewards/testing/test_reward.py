"""Broken rewards are caught with the name of the promise, and what is done on purpose can be allowed."""

import functools
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import rewards
from crystal_env.reward import RewardResult
from rewards.screen import Screen
from rewards.testing.reward import check_lazy_loading, check_reward, examples, garbage
from rewards.uniqueness import Uniqueness


def volume(crystals):
    return crystals.volume_per_atom()


def result_of(total, **terms):
    return RewardResult(total, terms, np.full(len(total), None, object))


class Counting:
    """It adds the number of calls before, which it keeps in neither pickles nor deep copies."""

    def __init__(self):
        self.calls = 0

    def __call__(self, crystals):
        self.calls += 1
        return volume(crystals) + self.calls

    def __reduce__(self):
        return type(self), ()


class Uncopied(Counting):
    """The same, but it keeps them in pickles."""

    def __reduce__(self):
        return _restored, (self.calls,)

    def __deepcopy__(self, memo):
        return Uncopied()


class Unreadable(Counting):
    """Its pickles cannot be read."""

    def __reduce__(self):
        return int, ("nothing",)


def _restored(calls):
    reward = Uncopied()
    reward.calls = calls
    return reward


def changes_inputs(crystals):
    crystals.L[:] = 5.0
    return volume(crystals)


def changes_dtype(crystals):
    torch.set_default_dtype(torch.float64)
    return volume(crystals)


def changes_threads(crystals):
    torch.set_num_threads(2)
    return volume(crystals)


def changes_precision(crystals):
    torch.set_float32_matmul_precision("medium")
    return volume(crystals)


def samples_from_torch(crystals):
    torch.rand(1)
    return volume(crystals)


def samples_from_numpy(crystals):
    np.random.rand()  # noqa: NPY002
    return volume(crystals)


def samples_from_python(crystals):
    random.random()
    return volume(crystals)


def writes_a_file(crystals):
    Path("left.txt").write_text("")
    return volume(crystals)


def goes_elsewhere(crystals):
    os.chdir("/")
    return volume(crystals)


def silences_numpy(crystals):
    np.seterr(all="ignore")
    return volume(crystals)


def noisy(crystals):
    return volume(crystals) + np.random.default_rng().normal(size=len(crystals))


def raises_on_large_cells(crystals):
    if crystals.n_atoms().max(initial=0) > 1000:
        raise MemoryError("too large")
    return volume(crystals)


def raises_without_crystals(crystals):
    return volume(crystals) + crystals.G.max()


def fails_together(crystals):
    broken = crystals.volume_per_atom().min(initial=10.0) < 1
    failures = np.full(len(crystals), "something is too small" if broken else None, object)
    return RewardResult(np.zeros(len(crystals)), {}, failures)


def other_terms_for_gases(crystals):
    gas = {"gas": volume(crystals)} if 2 in crystals.A else {}
    return result_of(volume(crystals), **gas)


def names_a_term_total(crystals):
    return RewardResult(volume(crystals), {"total": volume(crystals)}, np.full(len(crystals), None, object))


class Falling:
    """A reward that states a floor and gives less to garbage."""

    floor = -1.0

    def __call__(self, crystals):
        return -crystals.volume_per_atom()


def seen_apart(crystals):
    return result_of(volume(crystals), error=volume(crystals) / volume(crystals).max(initial=1.0))


BROKEN_REWARDS = {
    "sorted": (lambda crystals: np.sort(volume(crystals)), "order"),
    "turned round": (lambda crystals: volume(crystals)[::-1], "order"),
    "relative to the batch": (lambda crystals: volume(crystals) - volume(crystals).sum() / 10, "batch equals singles"),
    "a term relative to the batch": (seen_apart, "batch equals singles: term error"),
    "other terms for some": (other_terms_for_gases, "batch equals singles: the terms differ"),
    "one breaks all": (fails_together, "batch equals singles: other crystals fail"),
    "NaN for some": (lambda crystals: np.where(crystals.A[:, 0] == 118, np.nan, 1.0), "finite: total is nan"),
    "an infinite term": (lambda crystals: result_of(volume(crystals), x=1 / (crystals.G - 1 + 0.0)), "finite: term x"),
    "an exception": (raises_on_large_cells, "never raises: MemoryError: too large"),
    "no empty batch": (raises_without_crystals, "never raises: ValueError"),
    "one number": (lambda crystals: 1.0, "form: total has shape"),
    "one number too many": (lambda crystals: np.zeros(len(crystals) + 1), "form: total has shape"),
    "success in between": (lambda crystals: result_of(volume(crystals), success=0.5 * crystals.G), "form: the term"),
    "a term called total": (names_a_term_total, "form: no term"),
    "failures of another kind": (lambda crystals: result_of(volume(crystals))._replace(
        failures=np.zeros(len(crystals))), "form: a failure is None or a text"),
    "changed inputs": (changes_inputs, "inputs: the reward changed L"),
    "less than its floor": (Falling(), "floor: a total is -.*, below the reward's floor of -1.0"),
    "noise": (noisy, "repeat"),
    "the origin": (lambda crystals: crystals.XYZ.sum((1, 2)), "equivalent descriptions"),
    "the letters": (lambda crystals: (crystals.W == 1).sum(1), "equivalent descriptions"),
    "a hidden memory": (Counting(), "repeat"),
    "torch's dtype": (changes_dtype, "global state: .* torch's default dtype"),
    "torch's threads": (changes_threads, "global state: .* torch's number of threads"),
    "torch's precision": (changes_precision, "global state: .* torch's float32 matmul precision"),
    "torch's random state": (samples_from_torch, "global state: .* torch's random state"),
    "numpy's random state": (samples_from_numpy, "global state: .* numpy's random state"),
    "Python's random state": (samples_from_python, "global state: .* Python's random state"),
    "numpy's errors": (silences_numpy, "global state: .* numpy's handling"),
    "a file": (writes_a_file, "global state: .* the files of the current folder"),
    "another folder": (goes_elsewhere, "global state: .* the current folder"),
}  # fmt: skip


class Wrapped:
    """Any function, so that what pickle cannot find by name can be copied: the function itself is looked up here."""

    def __init__(self, name):
        self.name = name

    def __call__(self, crystals):
        return BROKEN_REWARDS[self.name][0](crystals)


@pytest.fixture
def restored(tmp_path, monkeypatch):
    """Undo what broken rewards do."""
    monkeypatch.chdir(tmp_path)
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    precision, errors = torch.get_float32_matmul_precision(), np.geterr()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    np.seterr(**errors)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", BROKEN_REWARDS)
def test_a_broken_reward_is_caught_with_the_name_of_its_promise(name, restored):
    reward, message = BROKEN_REWARDS[name]
    with pytest.raises(AssertionError, match=f"^{message}"):
        check_reward(reward if isinstance(reward, Counting | Falling) else Wrapped(name))


def test_what_cannot_be_copied_is_caught():
    with pytest.raises(AssertionError, match=r"^pickling: .*lambda"):
        check_reward(lambda crystals: volume(crystals))
    with pytest.raises(AssertionError, match=r"^pickling: total"):
        check_reward(Counting(), stateful=True)
    with pytest.raises(AssertionError, match=r"^deep copy: total"):
        check_reward(Uncopied(), stateful=True)


def test_what_is_done_on_purpose_can_be_allowed(restored):
    with pytest.raises(AssertionError, match=r"^batch equals singles"):
        check_reward(Wrapped("relative to the batch"), examples()[:5])
    check_reward(Wrapped("noise"), stochastic=True)
    with pytest.raises(AssertionError, match=r"^finite"):
        check_reward(Wrapped("NaN for some"), stochastic=True)
    crystals = examples()[[0, 1, 0]]
    with pytest.raises(AssertionError, match=r"^batch equals singles"):
        check_reward(Uniqueness(), crystals)
    check_reward(Uniqueness(), crystals, relative=True)
    with pytest.raises(AssertionError, match=r"^isolation: other crystals fail"):
        check_reward(Wrapped("one breaks all"), relative=True)


def test_lazy_loading_is_checked_in_a_subprocess():
    check_lazy_loading(rewards.EnergyAboveHull())
    with pytest.raises(AssertionError, match=r"^lazy loading: torch imported before the first score"):
        check_lazy_loading(functools.partial(torch.asarray))
    with pytest.raises(AssertionError, match=r"^lazy loading: it cannot be unpickled"):
        check_lazy_loading(Unreadable())


def test_examples_are_sound_and_distinct_and_garbage_is_what_it_says():
    sound, bad = examples(), garbage()
    assert set(Screen()(sound)) == {None}
    assert rewards.Validity()(sound).total.all()
    assert len({crystal.formula for crystal in sound}) == len(sound)
    assert {crystal.G for crystal in sound} >= {2, 14, 62, 167, 186, 225}
    assert bad.n_atoms().max() == 1536
    assert bad.L[:, :3].min() < 0.71
    assert bad.L[:, :3].max() == 40
    assert bad.A.max() == 118
    assert (bad.min_distance() == 0).any()
    assert sum(reason is not None for reason in Screen()(bad)) > 8
