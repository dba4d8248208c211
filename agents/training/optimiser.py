"""What all training runs have in common: the optimiser and its step, and the log."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from agents.crystalformer.network import Network


def adam(
    model: Network, learning_rate: float, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0
) -> torch.optim.AdamW:
    """Return an optimiser of all weights, the decay being of matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)


def optimiser_step(
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: Iterable[Tensor],
    max_grad_norm: float,
    all_reduce: Callable[[], None] | None = None,
) -> float:
    """Take a step down the sum of losses; return the norm of its gradient before clipping.

    A step whose gradient is not finite is skipped: one bad batch would spoil the weights for good.

    Args:
        model: whose gradients are clipped.
        optimiser: of its weights.
        losses: scalars with gradient, of one micro-batch each, computed one after the other: only one graph is in
            memory at a time.
        max_grad_norm: norm that longer gradients are clipped to.
        all_reduce: sums the gradients over several processes.
    """
    optimiser.zero_grad()
    for loss in losses:
        loss.backward()
    if all_reduce is not None:
        all_reduce()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm))
    if math.isfinite(norm):
        optimiser.step()
    return norm


class Log:
    """Writes scalars for TensorBoard, in the first process."""

    def __init__(self, run: Path, step: int, rank: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step) if rank == 0 else None

    def __call__(self, name: str, value: float, step: int) -> None:
        """Write a scalar of a step."""
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is pending."""
        if self._writer is not None:
            self._writer.close()


@contextlib.contextmanager
def writer(run: Path, step: int, rank: int = 0) -> Iterator[Log]:
    """Open the log of a run that resumes at a step; what was logged after it is dropped."""
    log = Log(run, step, rank)
    try:
        yield log
    finally:
        log.close()
