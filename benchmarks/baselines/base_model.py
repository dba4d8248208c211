"""The base model as it is: what pretraining on known crystals can do without a reward."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.utils import get_device

from agents import CrystalFormer
from benchmarks.baselines.search import options_of, spend
from benchmarks.session import Session
from benchmarks.tasks import Task
from crystal_env.crystal import CrystalBatch

_AT_ONCE = 256  # crystals that are scored by the network


@dataclass(frozen=True)
class BaseModel:
    """Draws from the pretrained CrystalFormer under the task's constraints.

    It does not learn, and draws until the budget is spent, so that it has a learning curve to be compared with.

    Attributes:
        model: the base model: ``"mp20"``, which ships with the package, or a path.
        batch_size: crystals that the oracle is asked about at a time.
        device: such as ``"cuda"``; ``"auto"`` is a GPU where there is one.
    """

    model: str = "mp20"
    batch_size: int = 256
    device: str = "auto"

    def train(self, session: Session) -> "ModelPlayer":
        """Spend the budget, and return what draws."""
        player = ModelPlayer(load_model(self.model, self.device), session.task)
        spend(session, player, self.batch_size)
        return player


class ModelPlayer:
    """Draws from a network under a task's constraints."""

    def __init__(self, model: CrystalFormer, task: Task) -> None:
        self.model, self.options = model, options_of(task)

    def draw(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        return self.model.sample(space_groups, seed=seed, **self.options)

    @torch.inference_mode()
    def log_prob(self, crystals: CrystalBatch) -> NDArray[np.float64]:
        """Return the log-likelihoods (N,) of crystals that were drawn, in nats."""
        parts = [crystals[start : start + _AT_ONCE] for start in range(0, len(crystals), _AT_ONCE)]
        scores = [self.model.log_prob(part, **self.options).total.double().cpu().numpy() for part in parts]
        return np.concatenate([np.zeros(0), *scores])


def load_model(name_or_path: str, device: str) -> CrystalFormer:
    """Return a trained model on a device."""
    return CrystalFormer.from_pretrained(name_or_path).to(get_device(device))
