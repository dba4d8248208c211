"""Best of n: what more samples achieve without learning."""

from dataclasses import dataclass

from benchmarks.baselines.base_model import load_model
from benchmarks.baselines.search import BestSeen, spend
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session


@dataclass(frozen=True)
class BestOfN:
    """Samples from the base model until the budget is spent, and returns the best of each space group.

    n is the budget over the number of crystals that are sampled for the score, 20 in most tasks. Each of these costs
    n calls of the oracle; those of an agent that has learned cost none.

    Attributes:
        model: Base model: ``"mp20"``, which ships with the package, or a path.
        batch_size: Crystals per oracle query.
        device: Device such as ``"cuda"``; ``"auto"`` takes a GPU if there is one.
    """

    model: str = "mp20"
    batch_size: int = 256
    device: str = "auto"

    def train(self, session: Session) -> BestSeen:
        """Spend the budget and return the best seen."""
        sampler = ModelSampler(load_model(self.model, self.device), session.task)
        spend(session, sampler, self.batch_size)
        return BestSeen(session, sampler)
