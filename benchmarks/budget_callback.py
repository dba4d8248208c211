"""The end of learning with stable-baselines3: when the oracle has no calls left."""

from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.tasks import Oracle


class BudgetCallback(BaseCallback):
    """Ends learning when the oracle's budget is spent, or too many crystals were asked for.

    Args:
        oracle: the oracle.
        most: crystals, repeated ones included.
    """

    def __init__(self, oracle: Oracle, most: int) -> None:
        super().__init__()
        self.oracle, self.most = oracle, most

    def _on_step(self) -> bool:
        return not self.oracle.spent and self.oracle.asked < self.most
