"""The base model as it is: what pretraining on known crystals can do without a reward."""

from dataclasses import dataclass

from stable_baselines3.common.utils import get_device

from agents import CrystalFormer
from benchmarks.baselines.search import spend
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session


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

    def train(self, session: Session) -> ModelSampler:
        """Spend the budget, and return what draws."""
        sampler = ModelSampler(load_model(self.model, self.device), session.task)
        spend(session, sampler, self.batch_size)
        return sampler


def load_model(name_or_path: str, device: str) -> CrystalFormer:
    """Return a trained model on a device."""
    return CrystalFormer.from_pretrained(name_or_path).to(get_device(device))
