"""Random policy: every allowed action has the same probability."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.session import Session
from crystal_env import sample_masked

_PATIENCE = 20  # times the budget that crystals are queried, repeats included


@dataclass(frozen=True)
class RandomPolicy:
    """Acts at random: the floor of every task.

    It does not learn. It acts until the budget is spent, so that its learning curve can be compared with others.

    Attributes:
        num_envs: Episodes in parallel.
        bins: Numeric bins of the environment.
    """

    num_envs: int = 256
    bins: int = 960

    def train(self, session: Session) -> "UniformPolicy":
        """Spend the budget and return the policy."""
        sampler = UniformPolicy(self.bins, session.seed)
        env = session.make_vec(self.num_envs, bins=self.bins)
        observations, info = env.reset(seed=session.seed)
        while not session.oracle.spent and session.oracle.queried < _PATIENCE * session.task.budget:
            observations, _, _, _, info = env.step(sampler.act(observations, info["action_mask"] > 0))
        return sampler


class UniformPolicy:
    """Samples uniformly from the allowed actions.

    Attributes:
        env_kwargs: arguments of the environment that it acts in.
    """

    def __init__(self, bins: int, seed: int) -> None:
        self.env_kwargs = {"bins": bins}
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Reset the random numbers."""
        self._rng = np.random.default_rng(seed)

    def act(self, observations: NDArray[Any], masks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return actions (N,) for masks (N, V)."""
        return sample_masked(masks, self._rng)
