"""A memory of what has been rewarded, against agents that draw one good crystal again and again."""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward
from rewards.matching import reduced_formulas

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

Bucket = Literal["formula", "prototype", "structure"]


class Diversity:
    """A reward that falls for crystals of a bucket that is already full, linearly from ``free`` to ``full`` of them.

    The total is ``floor + (reward - floor) * w``, with w = 1 for the first ``free`` crystals of a bucket and 0 from the
    ``full``-th on, as in Augmented Hill-Climb (Thomas et al., J. Cheminform. 14, 68 (2022)) and MatInvent. All crystals
    of a batch that share a bucket get the weight of their middle one, so that their order does not matter. Only
    crystals whose reward is at least ``at_least`` fill buckets. The terms are those of the reward, with ``reward``,
    ``weight`` and ``seen`` (how many were in the bucket before). Agents that ask only once for exactly equal crystals,
    as `KLPPO` does, fill a bucket once with them.

    Args:
        reward: any reward.
        bucket: what is counted: the reduced formula, the prototype (group, letters and elements), or the structure (the
            canonical description, coordinates to 0.01 and lengths to 1 %).
        free: crystals of a bucket that are rewarded in full.
        full: crystals from which on nothing is rewarded.
        floor: what the reward falls to.
        at_least: lowest reward that fills a bucket.
        size: buckets remembered; the one not seen for longest is forgotten.

    Raises:
        ValueError: if an argument is impossible.
    """

    def __init__(
        self,
        reward: Reward | str,
        bucket: Bucket = "formula",
        free: int = 3,
        full: int = 6,
        floor: float = 0.0,
        at_least: float = -np.inf,
        size: int = 100_000,
    ) -> None:
        if bucket not in get_args(Bucket):
            raise ValueError(f"bucket must be one of {get_args(Bucket)}, got {bucket!r}")
        if not 1 <= free < full:
            raise ValueError(f"free must be at least 1 and below full = {full}, got {free}")
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        self.scorer = Scorer(resolve_reward(reward), float(floor))
        self.bucket, self.free, self.full, self.floor = bucket, int(free), int(full), float(floor)
        self.at_least, self.size = float(at_least), int(size)
        self._seen: OrderedDict[str, int] = OrderedDict()

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals, and remember them."""
        crystals = as_batch(crystals)
        result = self.scorer(crystals)
        keys = self._keys(crystals)
        scored = np.array([failure is None for failure in result.failures], bool)
        filling = scored & (result.total >= self.at_least)
        seen = np.array([self._seen.get(key, 0) for key in keys], np.float64)
        fresh: dict[str, int] = {}
        for row in np.flatnonzero(filling):
            fresh[keys[row]] = fresh.get(keys[row], 0) + 1
        middle = seen + np.array([(fresh.get(key, 0) + 1) / 2 for key in keys])
        weight = np.where(filling, np.clip((self.full - middle) / (self.full - self.free), 0.0, 1.0), 1.0)
        total = np.where(scored, self.floor + (result.total - self.floor) * weight, result.total)
        for key, count in fresh.items():
            self._seen[key] = self._seen.pop(key, 0) + count
        while len(self._seen) > self.size:
            self._seen.popitem(last=False)
        terms = {**result.terms, "reward": result.total, "weight": weight, "seen": seen}
        return RewardResult(total, terms, result.failures)

    def state_dict(self) -> dict[str, Any]:
        """Return the memory, to be saved with an agent."""
        return {"bucket": self.bucket, "seen": list(self._seen.items())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a memory that `state_dict` gave.

        Raises:
            ValueError: if it is of another kind of bucket.
        """
        if state.get("bucket") != self.bucket:
            raise ValueError(f"the state is of buckets of {state.get('bucket')!r}, not {self.bucket!r}")
        self._seen = OrderedDict((str(key), int(count)) for key, count in state["seen"])

    def _keys(self, crystals: CrystalBatch) -> list[str]:
        if self.bucket == "formula":
            return [formula.hex() for formula in reduced_formulas(crystals)]
        if self.bucket == "prototype":
            return [crystal.key() for crystal in crystals]
        from rewards.cached import canonical_key

        return [canonical_key(crystal, coordinates=0.01, lengths=0.01) for crystal in crystals]
