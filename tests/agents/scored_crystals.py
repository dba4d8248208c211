"""Scored crystals of the tiny grammar, and how two lists of them are compared."""

import numpy as np
from tiny_grammar import every_crystal, reward

from agents.training.replay_buffer import ReplayBuffer
from agents.training.transitions import Transitions
from crystal_env.reward import RewardResult


def transitions(rows, iteration=0, **changes):
    """Return crystals of the tiny grammar with made-up numbers, which differ between any two."""
    rows = np.asarray(rows)
    crystals = every_crystal()[rows]
    total = reward(crystals)
    failures = np.array([*("no energy" if row % 7 == 3 else None for row in rows), None], object)[:-1]
    terms = {"success": (total > 0.5).astype(float), "e": rows / 3}
    numbers = np.sin(rows[:, None] + np.arange(4))
    values = {
        "crystals": crystals, "rewards": np.clip(total, 0.2, 0.8), "result": RewardResult(total, terms, failures),
        "log_prob": numbers, "reference_log_prob": numbers**3, "iteration": np.full(len(rows), iteration),
        "is_sampled": rows % 2 == 0,
    }  # fmt: skip
    return Transitions(**{**values, **changes})


def full(*parts, size=1000):
    buffer = ReplayBuffer(size)
    for part in parts:
        buffer.add(part)
    return buffer


def assert_same(one, other):
    """Assert that two buffers or lists of transitions hold the same, bit for bit."""
    one, other = (getattr(each, "data", each) for each in (one, other))
    for name in ("rewards", "log_prob", "reference_log_prob", "iteration", "is_sampled"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for ours, theirs in zip(one.crystals.arrays, other.crystals.arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(one.result.total, other.result.total)
    assert one.result.failures.tolist() == other.result.failures.tolist()
    assert set(one.result.terms) == set(other.result.terms)
    for name, values in one.result.terms.items():
        np.testing.assert_array_equal(values, other.result.terms[name])
