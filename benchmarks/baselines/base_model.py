"""The base model without fine-tuning: what pre-training on known crystals achieves without a reward."""

from dataclasses import dataclass

from stable_baselines3.common.utils import get_device

from agents import CrystalFormer
from benchmarks.baselines.search import spend
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session


@dataclass(frozen=True)
class BaseModel:
    """Samples from the pre-trained CrystalFormer under the task's constraints.

    It does not learn. It samples until the budget is spent, so that its learning curve can be compared with others.

    Attributes:
        model: Base model: ``"mp20"``, which ships with the package, or a path.
        batch_size: Crystals per oracle query.
        device: Device such as ``"cuda"``; ``"auto"`` takes a GPU if there is one.
    """

    model: str = "mp20"
    batch_size: int = 256
    device: str = "auto"

    def train(self, session: Session) -> ModelSampler:
        """Spend the budget and return the sampler."""
        sampler = ModelSampler(load_model(self.model, self.device), session.task)
        spend(session, sampler, self.batch_size)
        return sampler


def load_model(name_or_path: str, device: str) -> CrystalFormer:
    """Return a pre-trained model on a device."""
    return CrystalFormer.from_pretrained(name_or_path).to(get_device(device))
