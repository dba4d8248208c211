"""Global state that a reward or potential must not change: torch's settings, random states, the current folder."""

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_OF_IMPORTS = "the warning filters"  # libraries change them when they are imported


def global_state() -> dict[str, Any]:
    """Return name -> value of the settings that all code of a process shares; torch's only if it is imported."""
    state: dict[str, Any] = {
        "numpy's random state": str(np.random.get_state()),  # noqa: NPY002  the shared one is meant
        "Python's random state": random.getstate(),
        "numpy's handling of floating-point errors": np.geterr(),
        "the current folder": os.getcwd(),
        "the files of the current folder": _files(),
        _OF_IMPORTS: list(warnings.filters),
    }
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        state |= {
            "torch's default dtype": torch.get_default_dtype(),
            "torch's number of threads": torch.get_num_threads(),
            "torch's float32 matmul precision": torch.get_float32_matmul_precision(),
            "torch's gradient mode": torch.is_grad_enabled(),
            "torch's random state": torch.random.get_rng_state().tolist(),
        }
    return state


@contextmanager
def unchanged_state(what: str, warm: bool = True) -> Iterator[None]:
    """Make sure that the code of a ``with`` block changes no global state.

    Args:
        what: name of the code in the message.
        warm: False where libraries may be imported inside, which may add filters for warnings.

    Raises:
        AssertionError: if it does; the message names the settings.
    """
    before = global_state()
    yield
    after = global_state()
    changed = [name for name in before if before[name] != after[name] and (warm or name != _OF_IMPORTS)]
    assert not changed, f"global state: {what} changed {', '.join(changed)}"


def _files() -> list[tuple[str, int]]:
    with os.scandir() as entries:
        return sorted((entry.name, entry.stat(follow_symlinks=False).st_mtime_ns) for entry in entries)
