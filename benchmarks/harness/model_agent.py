"""A sampler of crystals from a CrystalFormer under a task's constraints."""

import numpy as np
import torch
from numpy.typing import NDArray

from agents import CrystalFormer
from agents.crystalformer.temperature import Temperature
from benchmarks.tasks import Task
from crystal_env.crystal import CrystalBatch

_BATCH = 256  # crystals whose likelihoods the network computes at once


class ModelSampler:
    """Samples from a network under a task's constraints, with likelihoods.

    Args:
        model: the network.
        task: the task.
        bins: numeric bins of the environment that it was trained in, 0 for none.
        temperature: of sampling and likelihood, one number or one for each part, whatever the model recommends.
    """

    def __init__(self, model: CrystalFormer, task: Task, bins: int = 0, temperature: Temperature = 1.0) -> None:
        self.model, self.options = model, {"bins": bins, "temperature": temperature, **task.options}

    def sample(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        return self.model.sample(space_groups, seed=seed, **self.options)

    @torch.inference_mode()
    def log_prob(self, crystals: CrystalBatch) -> NDArray[np.float64]:
        """Return the log-likelihoods (N,) of crystals in nats."""
        parts = [crystals[start : start + _BATCH] for start in range(0, len(crystals), _BATCH)]
        scores = [self.model.log_prob(part, **self.options).total.double().cpu().numpy() for part in parts]
        return np.concatenate([np.zeros(0), *scores])
