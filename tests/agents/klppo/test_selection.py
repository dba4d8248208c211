"""What is sampled and not scored."""

import numpy as np
import pytest
import torch
from tiny_agent import agent, learn, weights_of
from tiny_grammar import environment, every_symbol, reward

from agents.klppo.selection import select
from crystal_env import Crystal, CrystalBatch

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
CRYSTALS = CrystalBatch.from_crystals(
    Crystal.from_string(SALT.format(*parts))
    for parts in (
        ("H", "H", 0.8), ("Na", "Cl", 5.6), ("Cl", "Na", 5.7), ("K", "Br", 6.6), ("Li", "F", 2.4), ("Li", "F", 4.0),
        ("H", "H", 0.7),
    )
)  # fmt: skip
BOTH = ("contact", "repeat")


@pytest.mark.parametrize(
    ("size", "filters", "known", "rows", "contact", "repeat"),
    [
        (7, (), {"225-a-K-b-Br"}, range(7), [], []),
        (2, (), set(), range(2), [], []),
        (7, BOTH, set(), [1, 3, 5], [0, 4, 6], [2]),
        (7, ("contact",), set(), [1, 2, 3, 5], [0, 4, 6], []),
        (7, ("repeat",), set(), [0, 1, 3, 4], [], [2, 5, 6]),
        (7, BOTH, {"225-a-K-b-Br"}, [1, 5], [0, 4, 6], [2, 3]),
        (2, BOTH, set(), [1, 3], [0], [2]),
        (1, BOTH, set(), [1], [0], []),
        (3, BOTH, {"225-a-Na-b-Cl", "225-a-K-b-Br", "225-a-Li-b-F"}, [], [0, 4, 6], [1, 2, 3, 5]),
    ],
)
def test_filters_take_the_first_that_pass(size, filters, known, rows, contact, repeat):
    ours, rejected = select(CRYSTALS, size, filters, known)
    assert ours.tolist() == list(rows)
    expected = {"contact": contact, "repeat": repeat}
    assert {name: which.tolist() for name, which in rejected.items()} == {name: expected[name] for name in filters}


def test_no_crystals_are_selected_from_none():
    rows, rejected = select(CrystalBatch.empty(), 3, BOTH, set())
    assert len(rows) == len(rejected["contact"]) == len(rejected["repeat"]) == 0


def test_without_filters_nothing_is_rejected():
    one = agent(loss="topr")
    learn(one, 2, log_interval=0)
    assert len(one.buffer) == 128
    assert len(one.buffer.keys()) < 30
    assert not any(name.startswith("rejected") for name in one.logger.name_to_value)


class Counting:
    """The reward, and the keys that it was asked for."""

    def __init__(self):
        self.keys = []

    def __call__(self, crystals):
        self.keys += [crystal.key() for crystal in crystals]
        return reward(crystals)


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_what_filters_reject_is_kept_without_a_call(mode):
    counting = Counting()
    one = agent(
        environment(reward=counting, action_mode=mode), loss="topr", batch_size=8, oversampling=4.0, filters=BOTH
    )
    learn(one, 1, log_interval=0)
    data = one.buffer.data
    assert len(counting.keys) == len(set(counting.keys)) == (data.rewards >= 0).sum() + len(one._pending)
    is_rejected = np.array([str(failure).startswith("rejected: ") for failure in data.result.failures])
    assert (data.rewards[is_rejected] == -1).all()
    assert not data.result.success()[is_rejected].any()
    assert one.buffer.keys() == set(counting.keys[: (~is_rejected).sum()])  # a rejected crystal is not known
    logged, failures = one.logger.name_to_value, data.result.failures.tolist()
    for name in BOTH:
        assert logged[f"rejected/{name}"] == failures.count(f"rejected: {name}") > 0
    assert one.num_timesteps > 30 * 4  # decisions of all that were sampled


@pytest.mark.parametrize("loss", ["topr", "balance"])
def test_an_iteration_in_which_all_are_rejected_goes_by(loss):
    counting = Counting()
    one = agent(environment(reward=counting), loss=loss, batch_size=8, oversampling=2.0, filters=("repeat",))
    assert one.add_to_buffer(every_symbol()) == 33
    scored, before = len(counting.keys), weights_of(one.model)
    one.learn(total_timesteps=100, log_interval=0)
    assert one.iteration >= 1
    assert one.num_timesteps >= 100
    assert len(counting.keys) == scored
    assert len(one.buffer) == 33 + 16 * one.iteration
    assert one.logger.name_to_value["rejected/repeat"] == 16
    assert torch.equal(weights_of(one.model), before)
    numbers = [value for value in one.logger.name_to_value.values() if not isinstance(value, str)]
    assert np.isfinite(numbers).all()


def test_an_empty_buffer_goes_by_when_nothing_is_usable():
    one = agent(loss="topr")
    one._pending = learn(one, 0)[0]
    one._pending.rewards[:] = np.nan
    before = weights_of(one.model)
    one.train()
    assert len(one.buffer) == 0
    assert torch.equal(weights_of(one.model), before)
