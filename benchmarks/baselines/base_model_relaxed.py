"""The base model with relaxation: its crystals, brought to a nearby minimum of CHGNet's energy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.base_model import load_model
from benchmarks.baselines.search import grammar_of
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.rollout import keeps
from benchmarks.harness.session import Session
from crystal_env.crystal import CrystalBatch
from rewards.relaxation.relax import Relaxation

_LEARNING = 1  # tells the random numbers of spending from others of the same seed


@dataclass(frozen=True)
class BaseModelRelaxed:
    """Draws from the base model and relaxes what it has drawn by CHGNet, the symmetry kept.

    A relaxation asks the potential once a step, and where the potential is the oracle this is help that others do not
    have. While the budget is spent, every crystal is therefore charged ``steps + 1`` calls: no more than
    ``budget // (steps + 1)`` crystals are drawn, relaxed and scored. What is drawn for the score is relaxed too, which
    no meter sees (`RelaxedSampler.evaluations` counts it): read the result as what relaxation adds, not as an entry of
    the same budget.

    A crystal whose relaxation leaves the space group that was requested, or the task's constraints, stays as drawn.

    Attributes:
        model: the base model: ``"mp20"``, which ships with the package, or a path.
        steps: most steps of a relaxation.
        fmax: convergence in eV/Å.
        batch_size: crystals that are drawn and relaxed at a time.
        device: such as ``"cuda"``; ``"auto"`` is a GPU where there is one. CHGNet stays on the CPU.
    """

    model: str = "mp20"
    steps: int = 50
    fmax: float = 0.1
    batch_size: int = 128
    device: str = "auto"

    def train(self, session: Session) -> "RelaxedSampler":
        """Spend the budget, relaxation included, and return what draws."""
        relaxation = Relaxation(steps=self.steps, fmax=self.fmax)
        sampler = RelaxedSampler(ModelSampler(load_model(self.model, self.device), session.task), relaxation, session)
        rng = np.random.default_rng([session.seed, _LEARNING])
        groups = grammar_of(session.task).sample_groups(session.task.budget // (self.steps + 1), rng)
        for start in range(0, len(groups), self.batch_size):
            session.score(sampler.sample(groups[start : start + self.batch_size], rng))
        return sampler


class RelaxedSampler:
    """Draws and relaxes.

    Attributes:
        evaluations: structures whose forces the potential was asked for so far.
    """

    def __init__(self, sampler: ModelSampler, relaxation: Relaxation, session: Session) -> None:
        self.sampler, self.relaxation, self.task, self.evaluations = sampler, relaxation, session.task, 0

    def sample(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        drawn = self.sampler.sample(space_groups, seed)
        (relaxed, failures), paths = self.relaxation.with_paths(drawn)
        self.evaluations += int((paths.steps + 1).sum())
        fits = np.array([failure is None for failure in failures], bool) & (space_groups == relaxed.G)
        fits[fits] = keeps(relaxed[fits], self.task)
        return CrystalBatch.concatenate([drawn, relaxed])[np.arange(len(drawn)) + len(drawn) * fits]
