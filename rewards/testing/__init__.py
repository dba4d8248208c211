"""Contract tests for rewards and potentials, also for a user's own: `check_reward` and `check_potential`."""

from rewards.testing.potential import check_potential
from rewards.testing.reward import check_lazy_loading, check_reward, examples, garbage

__all__ = ["check_lazy_loading", "check_potential", "check_reward", "examples", "garbage"]
