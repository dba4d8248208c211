"""Supervised fine-tuning in rounds: maximum likelihood of the best samples of the model itself."""

from dataclasses import dataclass

import numpy as np
import torch

from agents import CrystalFormer
from agents.crystalformer.distribution import Distribution
from agents.crystalformer.likelihood import score
from agents.training.micro_batches import epoch_order, micro_batches
from agents.training.optimiser import adam, optimiser_step
from benchmarks.baselines.base_model import load_model
from benchmarks.baselines.search import best_of_groups, grammar_of
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session

_PATIENCE = 20  # batches in a row without a new crystal, after which a round ends
_TOKENS = 2000  # in memory at once


@dataclass(frozen=True)
class SupervisedFineTuning:
    """Expert iteration: the model is trained on its best samples, and sampled again.

    The budget is split into rounds. After each, the model is trained by maximum likelihood on the best ``fraction`` of
    all crystals so far, space group by space group; the next round samples from the trained model. One round is the
    paper's supervised fine-tuning (arXiv:2504.02367, Appendix A), several are the cross-entropy method. A fraction is
    selected, and not what passes a threshold, because in some tasks no sample of the base model does.

    Attributes:
        model: Base model: ``"mp20"``, which ships with the package, or a path.
        rounds: Rounds of sampling and training.
        fraction: Fraction of the crystals of a space group that are trained on.
        epochs: Passes over them in a round.
        batch_size: Crystals in an optimiser step.
        learning_rate: Adam learning rate.
        max_grad_norm: Norm that longer gradients are clipped to.
        sample_batch_size: Crystals per oracle query.
        device: Device such as ``"cuda"``; ``"auto"`` takes a GPU if there is one.
    """

    model: str = "mp20"
    rounds: int = 4
    fraction: float = 0.25
    epochs: int = 3
    batch_size: int = 100
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
    sample_batch_size: int = 128
    device: str = "auto"

    def train(self, session: Session) -> ModelSampler:
        """Spend the budget and return the trained sampler."""
        sampler = ModelSampler(load_model(self.model, self.device), session.task)
        optimiser = adam(sampler.model, self.learning_rate)
        rng = np.random.default_rng(session.seed)
        for round_ in range(self.rounds):
            session.progress(f"round {round_ + 1} of {self.rounds}")
            self._spend(session, sampler, session.task.budget * (round_ + 1) // self.rounds, rng)
            self._fit(session, sampler.model, optimiser, round_)
        return sampler

    def _spend(self, session: Session, sampler: ModelSampler, calls: int, rng: np.random.Generator) -> None:
        """Query the oracle for samples of the model until so many calls are made."""
        oracle, grammar, idle = session.oracle, grammar_of(session.task), 0
        while oracle.calls < calls and idle < _PATIENCE:
            before, size = oracle.calls, min(self.sample_batch_size, calls - oracle.calls)
            session.score(sampler.sample(grammar.sample_groups(size, rng), rng))
            idle = 0 if oracle.calls > before else idle + 1

    def _fit(self, session: Session, model: CrystalFormer, optimiser: torch.optim.Optimizer, round_: int) -> None:
        """Take the optimiser steps of a round."""
        best, distribution = best_of_groups(session, self.fraction), Distribution(grammar_of(session.task))
        for epoch in range(self.epochs if len(best) else 0):
            order = epoch_order(len(best), session.seed, round_ * self.epochs + epoch)
            for rows in np.array_split(order, -(-len(best) // self.batch_size)):
                batch = best[rows]
                losses = (
                    -score(model, batch[part], distribution).total.sum() / len(rows)
                    for part in micro_batches(batch.n_sites(), _TOKENS)
                )
                optimiser_step(model, optimiser, losses, self.max_grad_norm)
