"""The crystals of highest reward so far, for replay."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch


@dataclass
class TopKBuffer:
    """Keeps the crystals of highest reward, one of each `Crystal.key`, so that no single one fills it.

    Attributes:
        size: capacity; a smaller one takes effect with the next `add`.
        crystals: those kept, the best first.
        rewards (n,): theirs.
    """

    size: int
    crystals: CrystalBatch = field(default_factory=CrystalBatch.empty)
    rewards: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, crystals: CrystalBatch, rewards: NDArray[np.float64]) -> None:
        """Add those of crystals (B,) with rewards (B,) that are among the best."""
        if len(self.rewards) >= self.size:
            better = rewards > self.rewards[self.size - 1]
            crystals, rewards = crystals[better], rewards[better]
        every = CrystalBatch.concatenate([self.crystals, crystals])
        values = np.concatenate([self.rewards, rewards])
        order = np.argsort(-values, kind="stable")
        seen: set[str] = set()
        kept = []
        for row in order:
            if (key := every[int(row)].key()) not in seen:
                seen.add(key)
                kept.append(row)
        rows = np.array(kept[: self.size], np.int64)
        self.crystals, self.rewards = every[rows], values[rows]

    def sample(self, size: int, rng: np.random.Generator) -> CrystalBatch:
        """Return up to ``size`` of the crystals in random order, each at most once."""
        return self.crystals[rng.permutation(len(self.rewards))[:size]]
