"""Supervised fine-tuning in rounds: maximum likelihood of the best crystals that the model itself has drawn."""

from dataclasses import dataclass

import numpy as np
import torch

from agents import CrystalFormer
from agents.crystalformer.distribution import Distribution
from agents.crystalformer.likelihood import score
from agents.training.micro_batches import epoch_order, micro_batches
from agents.training.optimiser import adam
from benchmarks.baselines.base_model import load_model
from benchmarks.baselines.search import best_of_groups, grammar_of
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session

_PATIENCE = 20  # batches without a new crystal, after which a round ends
_TOKENS = 2000  # in memory at once


@dataclass(frozen=True)
class SupervisedFineTuning:
    """Expert iteration: the model learns the best of what it draws, and draws again.

    The budget is shared out to the rounds. After each, the best ``share`` of all crystals so far, space group by space
    group, is learned by maximum likelihood; the next round draws from the model that has learned. With one round it is
    the paper's supervised fine-tuning (arXiv:2504.02367, Appendix A), with more the cross-entropy method. Chosen is the
    best share, and not what passes a threshold, because in some tasks nothing that the base model draws does.

    Attributes:
        model: the base model: ``"mp20"``, which ships with the package, or a path.
        rounds: times that crystals are drawn and learned.
        share: of the crystals of a space group that are learned.
        epochs: passes over them in a round.
        batch_size: crystals of an optimiser step.
        learning_rate: of Adam.
        max_gradient: norm to which longer gradients are cut.
        sample_batch_size: crystals that the oracle is asked about at a time.
        device: such as ``"cuda"``; ``"auto"`` is a GPU where there is one.
    """

    model: str = "mp20"
    rounds: int = 4
    share: float = 0.25
    epochs: int = 3
    batch_size: int = 100
    learning_rate: float = 1e-4
    max_gradient: float = 1.0
    sample_batch_size: int = 128
    device: str = "auto"

    def train(self, session: Session) -> ModelSampler:
        """Spend the budget, and return what has learned."""
        sampler = ModelSampler(load_model(self.model, self.device), session.task)
        optimiser = adam(sampler.model, self.learning_rate)
        rng = np.random.default_rng(session.seed)
        for round_ in range(self.rounds):
            session.progress(f"round {round_ + 1} of {self.rounds}")
            self._draw(session, sampler, session.task.budget * (round_ + 1) // self.rounds, rng)
            self._learn(session, sampler.model, optimiser, round_)
        return sampler

    def _draw(self, session: Session, sampler: ModelSampler, calls: int, rng: np.random.Generator) -> None:
        """Ask the oracle about crystals of the model until so many calls are made."""
        oracle, grammar, idle = session.oracle, grammar_of(session.task), 0
        while oracle.calls < calls and idle < _PATIENCE:
            before, size = oracle.calls, min(self.sample_batch_size, calls - oracle.calls)
            session.score(sampler.sample(grammar.sample_groups(size, rng), rng))
            idle = 0 if oracle.calls > before else idle + 1

    def _learn(self, session: Session, model: CrystalFormer, optimiser: torch.optim.Optimizer, round_: int) -> None:
        """Take the optimiser steps of a round."""
        best, distribution = best_of_groups(session, self.share), Distribution(grammar_of(session.task))
        for epoch in range(self.epochs if len(best) else 0):
            order = epoch_order(len(best), session.seed, round_ * self.epochs + epoch)
            for rows in np.array_split(order, -(-len(best) // self.batch_size)):
                optimiser.zero_grad()
                for part in micro_batches(best[rows].n_sites(), _TOKENS):
                    loss = -score(model, best[rows[part]], distribution).total.sum() / len(rows)
                    torch.autograd.backward(loss)
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), self.max_gradient)
                if torch.isfinite(norm):  # else one bad batch would spoil the weights for good
                    optimiser.step()
