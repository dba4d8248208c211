"""The base model with relaxation: its samples, relaxed to a nearby minimum of CHGNet's energy."""

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

_LEARNING = 1  # separates the random numbers of spending from others of the same seed


@dataclass(frozen=True)
class BaseModelRelaxed:
    """Samples from the base model and relaxes the samples with CHGNet, symmetry preserved.

    A relaxation evaluates the potential once a step, which other baselines cannot do where the potential is the
    oracle. While the budget is spent, a crystal is therefore charged ``steps + 1`` calls: at most
    ``budget // (steps + 1)`` crystals are sampled, relaxed and scored. Samples for the score are relaxed too, outside
    the budget (`RelaxedSampler.evaluations` counts them): read the result as what relaxation adds, not as an entry of
    the same budget.

    A crystal whose relaxation leaves the requested space group or the task's constraints stays unrelaxed.

    Attributes:
        model: Base model: ``"mp20"``, which ships with the package, or a path.
        steps: Maximum steps of a relaxation.
        fmax: Force at convergence in eV/Å.
        batch_size: Crystals sampled and relaxed in parallel.
        device: Device such as ``"cuda"``; ``"auto"`` takes a GPU if there is one. CHGNet stays on the CPU.
    """

    model: str = "mp20"
    steps: int = 50
    fmax: float = 0.1
    batch_size: int = 128
    device: str = "auto"

    def train(self, session: Session) -> "RelaxedSampler":
        """Spend the budget, relaxations included, and return the sampler."""
        relaxation = Relaxation(steps=self.steps, fmax=self.fmax)
        sampler = RelaxedSampler(ModelSampler(load_model(self.model, self.device), session.task), relaxation, session)
        rng = np.random.default_rng([session.seed, _LEARNING])
        groups = grammar_of(session.task).sample_groups(session.task.budget // (self.steps + 1), rng)
        for start in range(0, len(groups), self.batch_size):
            session.score(sampler.sample(groups[start : start + self.batch_size], rng))
        return sampler


class RelaxedSampler:
    """Samples and relaxes.

    Attributes:
        evaluations: force evaluations so far.
    """

    def __init__(self, sampler: ModelSampler, relaxation: Relaxation, session: Session) -> None:
        self.sampler, self.relaxation, self.task, self.evaluations = sampler, relaxation, session.task, 0

    def sample(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        crystals = self.sampler.sample(space_groups, seed)
        (relaxed, failures), paths = self.relaxation.with_paths(crystals)
        self.evaluations += int((paths.steps + 1).sum())
        fits = np.array([failure is None for failure in failures], bool) & (space_groups == relaxed.G)
        fits[fits] = keeps(relaxed[fits], self.task)
        return CrystalBatch.concatenate([crystals, relaxed])[np.arange(len(crystals)) + len(crystals) * fits]
