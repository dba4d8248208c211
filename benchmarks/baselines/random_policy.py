"""Random play: every decision is any of those allowed, with the same probability."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.session import Session
from crystal_env import sample_masked

_PATIENCE = 20  # times the budget that crystals are asked for, repeated ones included


@dataclass(frozen=True)
class RandomPolicy:
    """Plays at random: the floor of every task.

    It does not learn. It plays until the budget is spent, so that it has a learning curve to be compared with.

    Attributes:
        num_envs: episodes side by side.
        bins: numeric bins of the environment.
    """

    num_envs: int = 256
    bins: int = 960

    def train(self, session: Session) -> "UniformPolicy":
        """Spend the budget, and return what plays."""
        sampler = UniformPolicy(self.bins, session.seed)
        env = session.make_vec(self.num_envs, bins=self.bins)
        observations, info = env.reset(seed=session.seed)
        while not session.oracle.spent and session.oracle.asked < _PATIENCE * session.task.budget:
            observations, _, _, _, info = env.step(sampler.act(observations, info["action_mask"] > 0))
        return sampler


class UniformPolicy:
    """Draws from the masks.

    Attributes:
        env_kwargs: of the environment that it plays.
    """

    def __init__(self, bins: int, seed: int) -> None:
        self.env_kwargs = {"bins": bins}
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start the random numbers anew."""
        self._rng = np.random.default_rng(seed)

    def act(self, observations: NDArray[Any], masks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return actions (N,) for masks (N, V)."""
        return sample_masked(masks, self._rng)
