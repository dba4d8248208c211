"""Changes of what all code of a process shares are named, and nothing else is."""

import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from rewards.testing.global_state import global_state, unchanged_state


def samples_from_numpy():
    np.random.rand()  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (samples_from_numpy, "numpy's random state"),
        (random.random, "Python's random state"),
        (lambda: np.seterr(over="ignore"), "numpy's handling of floating-point errors"),
        (lambda: Path("left.txt").write_text(""), "the files of the current folder"),
    ],
)
def test_a_change_is_named(change, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        np.errstate(),
        pytest.raises(AssertionError, match=f"^global state: the code changed {name}$"),
        unchanged_state("the code"),
    ):
        change()


def test_code_with_a_generator_of_its_own_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with unchanged_state("the code"):
        np.random.default_rng(0).random(3)


def test_filters_may_be_added_by_the_first_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(), unchanged_state("an import", warm=False):
        warnings.simplefilter("ignore")
    with (
        warnings.catch_warnings(),
        pytest.raises(AssertionError, match="a score changed the warning filters"),
        unchanged_state("a score"),
    ):
        warnings.simplefilter("ignore")


def test_torch_counts_once_it_is_imported():
    import torch

    state = global_state()
    assert state["torch's number of threads"] == torch.get_num_threads()
    assert state["torch's default dtype"] == torch.float32
