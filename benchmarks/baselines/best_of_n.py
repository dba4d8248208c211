"""Best of n: what drawing more can do without learning."""

from dataclasses import dataclass

from benchmarks.baselines.base_model import load_model
from benchmarks.baselines.search import BestSeen, spend
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session


@dataclass(frozen=True)
class BestOfN:
    """Draws from the base model until the budget is spent, and keeps the best of each space group.

    n is the budget over the number of crystals that are drawn for the score, 20 in most tasks. It pays n calls of the
    oracle for each of these, where an agent that has learned pays none.

    Attributes:
        model: the base model: ``"mp20"``, which ships with the package, or a path.
        batch_size: crystals that the oracle is asked about at a time.
        device: such as ``"cuda"``; ``"auto"`` is a GPU where there is one.
    """

    model: str = "mp20"
    batch_size: int = 256
    device: str = "auto"

    def train(self, session: Session) -> BestSeen:
        """Spend the budget, and return what draws."""
        sampler = ModelSampler(load_model(self.model, self.device), session.task)
        spend(session, sampler, self.batch_size)
        return BestSeen(session, sampler)
