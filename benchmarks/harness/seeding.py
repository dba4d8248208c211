"""The global random generators of Python, NumPy and torch, which libraries seed and use, left as they were found."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def global_generators(seed: int | None = None) -> Iterator[None]:
    """Put the global generators back to where they were at the end; seed them before, if a seed is given."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  what the libraries use
    with torch.random.fork_rng():
        try:
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002
                torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
