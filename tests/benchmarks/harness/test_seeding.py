"""Global generators are seeded and restored."""

import random

import numpy as np
import torch

from benchmarks.harness.seeding import global_generators


def global_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def test_a_seed_repeats_and_puts_generators_back():
    before, draws = global_states(), []
    for _ in range(2):
        with global_generators(7):
            draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1]
    assert global_states() == before
