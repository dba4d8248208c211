"""One optimiser step: the gradient of the whole batch, clipped, and skipped where it is not finite."""

import pytest
import torch

from agents.training.optimiser import optimiser_step

TARGETS = torch.tensor([1.0, 2.0, 6.0])


def losses(weight):
    for part in TARGETS.split(2):
        yield (weight - part).square().sum() / len(TARGETS)


def line():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_micro_batches_add_up_to_the_gradient_of_the_batch():
    model, optimiser = line()
    norm = optimiser_step(model, optimiser, losses(model.weight), 1e9)
    assert norm == pytest.approx(6.0)  # 2 * mean(TARGETS)
    assert model.weight.item() == pytest.approx(0.6)


def test_a_long_gradient_is_clipped_and_its_norm_returned_whole():
    model, optimiser = line()
    assert optimiser_step(model, optimiser, losses(model.weight), 2.0) == pytest.approx(6.0)
    assert model.weight.item() == pytest.approx(0.2, rel=1e-5)


def test_gradients_of_an_earlier_step_do_not_count():
    model, optimiser = line()
    model.weight.grad = torch.full((1, 1), 100.0)
    assert optimiser_step(model, optimiser, losses(model.weight), 1e9) == pytest.approx(6.0)


@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(factor):
    model, optimiser = line()
    norm = optimiser_step(model, optimiser, (factor * loss for loss in losses(model.weight)), 1.0)
    assert not torch.isfinite(torch.tensor(norm))
    assert model.weight.item() == 0.0


def test_gradients_are_reduced_before_they_are_clipped():
    model, optimiser = line()

    def double():
        model.weight.grad *= 2

    assert optimiser_step(model, optimiser, losses(model.weight), 12.0, double) == pytest.approx(12.0)
    assert model.weight.item() == pytest.approx(1.2)
