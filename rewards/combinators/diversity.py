"""A diversity filter, against agents that sample one good crystal again and again."""

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward, without_failure
from crystal_env.symmetry.canonical import wyckoff_template
from rewards.combinators.aggregate import lower_floor, unused_label
from rewards.hull.formulas import reduced_formula

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

Bucket = Literal["formula", "template", "structure"]


class Diversity:
    """A reward that falls with the number of crystals of the same kind scored before.

    The total is ``floor + w (reward - floor)``, or the reward where that is below the floor. The weight w of a crystal
    before which n others of its bucket were scored is 1 up to n = ``free`` and falls linearly to 0 at n = ``full``, as
    in Augmented Hill-Climb (Thomas et al., J. Cheminform. 14, 68 (2022)) and MatInvent. Crystals of a bucket that
    come in one batch all get the mean weight, so that their order does not matter; the sum of the weights does not
    depend on how crystals are divided into batches. Crystals that cannot be scored are not counted. The terms are those
    of the reward, with ``diversity``, the weight, and ``diversity/reward``, the reward.

    The memory is part of copies and pickles, and of `state_dict`; environments that are made from copies of the reward
    have a memory each. A cache belongs inside, ``Diversity(Cached(reward))``, never around.

    Args:
        reward: any reward.
        bucket: what counts as one kind: the reduced ``"formula"``; the Wyckoff ``"template"`` of group and letters, see
            `wyckoff_template`; or the ``"structure"``, that is `Crystal.key`: group, letters, elements.
        free: number of crystals of a bucket up to which the reward is paid in full.
        full: number of crystals of a bucket beyond which the reward is 0.
        floor: the total of a full bucket, and of a crystal for which the reward raises.
        size: buckets remembered; beyond, those not seen for longest are forgotten.

    Attributes:
        floor: the lowest total: the argument, or the reward's own floor where it is lower.

    Raises:
        ValueError: if ``bucket`` is unknown, not 0 <= ``free`` < ``full``, ``size`` is not positive, ``floor`` is not
            finite, or ``reward`` is not a reward.
    """

    def __init__(
        self,
        reward: Reward | str,
        bucket: Bucket = "formula",
        free: int = 3,
        full: int = 6,
        floor: float = 0.0,
        size: int = 100_000,
    ) -> None:
        if bucket not in get_args(Bucket):
            raise InputError(f"bucket must be one of {get_args(Bucket)}, got {bucket!r}")
        self.free, self.full = integer("free", free, least=0), integer("full", full, least=1)
        if not self.free < self.full:
            raise InputError(f"free must be below full = {full}, got {free}")
        self.scorer = Scorer(resolve_reward(reward), finite_number("floor", floor))
        self.bucket, self.size = bucket, integer("size", size, least=1)
        self._seen: dict[str, int] = {}  # the bucket seen last is the last one

    @property
    def floor(self) -> float:
        """The lowest total; see the class."""
        return lower_floor(self.scorer.floor, self.scorer.reward)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals, and remember them; see the class for the terms."""
        crystals = as_batch(crystals)
        result = self.scorer(crystals)
        rows = without_failure(result.failures)
        keys = self._keys(crystals[rows])
        counts = Counter(keys)
        weights = {key: self._weights(self._seen.get(key, 0) + np.arange(n)).mean() for key, n in counts.items()}
        weight = np.ones(len(crystals))
        weight[rows] = [weights[key] for key in keys]
        self._remember(counts)
        above = np.maximum(result.total - self.scorer.floor, 0.0)
        total = result.total - (1 - weight) * above
        label = unused_label("diversity", result.terms)
        return RewardResult(total, {**result.terms, label: weight, f"{label}/reward": result.total}, result.failures)

    def state_dict(self) -> dict[str, Any]:
        """Return the memory, of numbers and texts only, to be saved with an agent."""
        return {"bucket": self.bucket, "seen": dict(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the memory of `state_dict`.

        Raises:
            ValueError: if it is not such a memory, or of another kind of bucket.
        """
        if state.keys() != {"bucket", "seen"} or state["bucket"] != self.bucket:
            raise InputError(
                f"state must be that of buckets {self.bucket!r}, got {state.get('bucket')!r} in {list(state)}"
            )
        self._seen = dict(state["seen"])
        self._forget()

    def _weights(self, seen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights (n,) of crystals before which so many were seen."""
        return np.clip((self.full - seen) / (self.full - self.free), 0.0, 1.0)

    def _remember(self, counts: Counter[str]) -> None:
        for key in sorted(counts):
            self._seen[key] = self._seen.pop(key, 0) + counts[key]
        self._forget()

    def _forget(self) -> None:
        while len(self._seen) > self.size:
            del self._seen[next(iter(self._seen))]

    def _keys(self, crystals: CrystalBatch) -> list[str]:
        if self.bucket == "formula":
            return [reduced_formula(counts) for counts in crystals.composition()]
        return [wyckoff_template(crystal) if self.bucket == "template" else crystal.key() for crystal in crystals]
