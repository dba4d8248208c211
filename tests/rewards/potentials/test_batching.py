"""Batches of graphs with a model in numpy: bounded, in order, with isolated failures."""

import numpy as np
import pytest
import torch
from ase import Atoms

from rewards.potentials.batching import GraphModel, checked_edges, library_defaults, run_in_batches


def build(atoms):
    if 79 in atoms.numbers:
        raise ValueError("no gold")
    return atoms.numbers, len(atoms)


def chain(symbols):
    return Atoms(symbols, positions=np.arange(3 * len(symbols)).reshape(-1, 3), cell=np.eye(3) * 9, pbc=True)


class Sums:
    """The sum of atomic numbers of each graph; it notes its batches, and fails on iron and silver."""

    def __init__(self):
        self.batches = []

    def __call__(self, graphs):
        self.batches.append([len(numbers) for numbers in graphs])
        if any(26 in numbers for numbers in graphs):
            raise RuntimeError("rust")
        return [np.nan if 47 in numbers else float(numbers.sum()) for numbers in graphs]


@pytest.mark.parametrize("workers", [0, 1])
def test_results_come_in_order_and_failures_stay_alone(workers):
    atoms = [chain(["H"] * n) for n in (3, 1, 5, 2)]
    atoms[2:2] = [chain(["Au"]), chain(["Fe", "H"]), chain(["Ag"])]
    results, failures = run_in_batches(
        atoms, lambda: GraphModel(build, Sums()), device="cpu", max_edges=6, graph_workers=workers
    )
    assert results == [3.0, 1.0, None, None, None, 5.0, 2.0]
    assert failures.tolist() == [
        None, None, "ValueError: no gold", "RuntimeError: rust",
        "the model gave a number that is not finite", None, None,
    ]  # fmt: skip


def test_batches_are_bounded_and_hold_the_largest_first():
    model = Sums()
    atoms = [chain(["H"] * n) for n in (1, 4, 2, 9, 3)]
    run_in_batches(atoms, lambda: GraphModel(build, model), device="cpu", max_edges=6)
    assert model.batches == [[9], [4], [3, 2, 1]]


def test_no_structures_need_no_batch():
    results, failures = run_in_batches([], lambda: GraphModel(build, Sums()), device="cpu", max_edges=6)
    assert (results, failures.tolist()) == ([], [])


def test_too_many_edges_are_a_value_error():
    assert checked_edges(200_000) == 200_000
    with pytest.raises(ValueError, match="the structure is too dense: 200001 edges"):
        checked_edges(200_001)


def _break_inside(threads):
    with library_defaults():
        assert torch.get_default_dtype() == torch.float32
        torch.set_num_threads(threads)
        torch.rand(3)
        raise ZeroDivisionError


def test_settings_of_torch_come_back_also_after_an_error():
    def settings():
        return torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()

    torch.set_default_dtype(torch.float64)
    try:
        before, state = settings(), torch.get_rng_state()
        with pytest.raises(ZeroDivisionError):
            _break_inside(before[1] + 1)
        assert settings() == before
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_default_dtype(torch.float32)
