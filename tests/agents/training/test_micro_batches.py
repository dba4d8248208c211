"""Parts of a batch hold every crystal once, fit into the memory given, and waste as little as is possible."""

import itertools

import numpy as np
import pytest

from agents.training.micro_batches import _OVERHEAD, epoch_order, micro_batches


def cost(n_sites, parts):
    """Padded tokens of all parts, and a constant for each."""
    return sum(len(part) * (5 * n_sites[part].max() + 1) + _OVERHEAD for part in parts)


def fits(n_sites, part, max_tokens):
    return len(part) == 1 or len(part) * (5 * n_sites[part].max() + 1) <= max_tokens


def cheapest(n_sites, max_tokens):
    """Return the least cost of all ways to cut the crystals, in order of their length, into parts that fit."""
    order, best = np.argsort(n_sites), np.inf
    for cuts in itertools.product([False, True], repeat=len(n_sites) - 1):
        parts = np.split(order, np.flatnonzero(cuts) + 1)
        if all(fits(n_sites, part, max_tokens) for part in parts):
            best = min(best, cost(n_sites, parts))
    return best


def partitions(items):
    """Return all ways to put items into parts, in whatever order."""
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for i, part in enumerate(rest):
            yield [*rest[:i], [items[0], *part], *rest[i + 1 :]]


def batches():
    """Return random batches: lengths as in a data set, few different ones, a single one."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        size = int(rng.integers(1, 300))
        yield rng.integers(1, 21, size)
        yield rng.choice(rng.integers(1, 21, 2), size)
        yield np.full(size, rng.integers(1, 21))
        yield np.minimum(rng.geometric(0.3, size), 20)


@pytest.mark.parametrize("max_tokens", [1, 60, 250, 2_000, 10**9])
def test_every_crystal_is_in_one_part_that_fits(max_tokens):
    for n_sites in batches():
        parts = micro_batches(n_sites, max_tokens)
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(n_sites)))
        assert all(len(part) and fits(n_sites, part, max_tokens) for part in parts)


@pytest.mark.parametrize("max_tokens", [1, 70, 150, 400, 10**9])
def test_no_other_cuts_of_the_sorted_crystals_cost_less(max_tokens):
    rng = np.random.default_rng(1)
    for _ in range(15):
        size, longest = rng.integers(1, 11), rng.choice([3, 20, 100])
        n_sites = rng.integers(1, longest + 1, size)
        assert cost(n_sites, micro_batches(n_sites, max_tokens)) <= cheapest(n_sites, max_tokens)


@pytest.mark.parametrize("max_tokens", [150, 10**9])
def test_no_parts_of_any_kind_cost_less(max_tokens):
    rng = np.random.default_rng(2)
    for _ in range(4):
        n_sites = rng.integers(1, 60, 7)
        possible = ([np.array(part) for part in parts] for parts in partitions(list(range(7))))
        costs = [cost(n_sites, parts) for parts in possible if all(fits(n_sites, part, max_tokens) for part in parts)]
        assert cost(n_sites, micro_batches(n_sites, max_tokens)) <= min(costs)


def test_similar_lengths_stay_together_and_different_ones_do_not():
    assert len(micro_batches(np.array([3, 4, 3, 4]), 10**9)) == 1
    parts = micro_batches(np.array([1, 20] * 50), 10**9)
    assert sorted(map(len, parts)) == [50, 50]


def test_no_crystals_make_no_parts():
    assert micro_batches(np.zeros(0, np.int64), 100) == []


def test_an_epoch_holds_every_crystal_once_in_an_order_of_its_own():
    orders = [epoch_order(100, seed, epoch) for seed, epoch in itertools.product((0, 1), (0, 1))]
    assert all(np.array_equal(np.sort(order), np.arange(100)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 4
    assert np.array_equal(orders[3], epoch_order(100, 1, 1))
