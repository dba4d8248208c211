"""A cache of rewards by canonical key: bounded in memory, and on disk on request."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.geometry import angle_volume
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward
from rewards.combinators.aggregate import lower_floor
from rewards.combinators.cache_file import CacheFile
from rewards.combinators.rows import Row, join_rows, rows_of

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal

Key = Literal["canonical", "exact"]
_MAX_AXIS_RATIO = 30.0
_MIN_ANGLE_VOLUME = 0.01  # volume / abc

_Value = TypeVar("_Value")


def exact_keys(crystals: CrystalBatch) -> list[str]:
    """Return the keys of B crystals that are equal for exactly equal numbers only (microseconds)."""
    if not len(crystals):
        return []
    arrays = (crystals.G, crystals.W, crystals.A, crystals.XYZ, crystals.L)
    rows = np.concatenate([array.reshape(len(crystals), -1).astype(np.float64) for array in arrays], axis=1)
    return [blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows + 0.0]  # -0 is 0


def canonical_key(crystal: "Crystal", coordinates: float = 1e-4, lengths: float = 1e-4) -> str:
    """Return a key that is the same for all settings of a crystal, up to a rounding (about a millisecond).

    It hashes the group, letters, elements, coordinates and lattice of `Crystal.canonical`, so a mirror image has the
    same key. Crystals that differ by more than the rounding have different keys; noise next to a boundary of the
    rounding may give one crystal two keys. A crystal whose numbers are not finite gets an exact key, and so does one
    with a degenerate cell (flat, or one axis 30 times another), whose reduction could take minutes.

    Args:
        crystal: a crystal.
        coordinates: rounding of fractional coordinates.
        lengths: relative rounding of lengths; angles are rounded to the same number of radians.
    """
    if not (np.isfinite(crystal.XYZ).all() and _is_proper(crystal.L)):
        return exact_keys(CrystalBatch.from_crystals([crystal]))[0]
    one = crystal.canonical()
    steps = round(1 / coordinates)
    numbers = (
        [one.G, *one.W, *one.A],
        np.rint(one.XYZ.ravel() * steps) % steps,
        np.rint(np.log(one.L[:3]) / lengths),
        np.rint(np.radians(one.L[3:]) / lengths),
    )
    return blake2b(np.concatenate(numbers).astype(np.int64).tobytes(), digest_size=16).hexdigest()


def _is_proper(L: NDArray[np.float64]) -> bool:
    if not np.isfinite(L).all() or L[:3].min() <= 0:
        return False
    return bool(L[:3].max() <= _MAX_AXIS_RATIO * L[:3].min() and angle_volume(L[3:]) >= _MIN_ANGLE_VOLUME)


class Keys:
    """Keys of crystals, remembered for exactly equal ones, which then take microseconds.

    Args:
        kind: ``"canonical"`` (see `canonical_key`) or ``"exact"`` (see `exact_keys`).
        size: number of crystals remembered.

    Raises:
        ValueError: if ``kind`` is neither.
    """

    def __init__(self, kind: Key = "canonical", size: int = 100_000) -> None:
        if kind not in get_args(Key):
            raise InputError(f"key must be one of {get_args(Key)}, got {kind!r}")
        self.kind, self.size = kind, size
        self._known: OrderedDict[str, str] = OrderedDict()

    def __call__(self, crystals: CrystalBatch) -> list[str]:
        """Return the keys of B crystals."""
        exact = exact_keys(crystals)
        if self.kind == "exact":
            return exact
        keys = []
        for row, name in enumerate(exact):
            key = self._known.get(name) or canonical_key(crystals[row])
            keys.append(key)
            _remember(self._known, name, key, self.size)
        return keys


class Cached:
    """A reward that is evaluated once for every crystal, within the capacity of the cache.

    Total, terms and failures are those of the reward. Settings of one crystal (origin, axes, order of sites, mirror
    image) count as one, up to 1e-4 in coordinates and lengths; the first one seen is the one that is scored. A failure
    that the reward reports is a property of the crystal and cached; crystals for which it raises get ``floor`` and are
    scored again the next time. Do not wrap rewards that depend on more than the crystal, such as `Uniqueness`,
    `Diversity` or a `Metered` one with a budget.

    A canonical key takes about a millisecond, once for exactly equal crystals. ``Cached(Metered(reward))`` meters
    evaluations of the reward, ``Metered(Cached(reward))`` queries of the cache.

    Args:
        reward: any reward.
        size: capacity in memory; the crystal not seen for longest is evicted. A file keeps all.
        path: an SQLite file on a local disk, created if missing; several processes may share it at a time.
        name: name of the reward with its settings in the file.
        key: ``"canonical"``, or ``"exact"`` to identify exactly equal crystals only, for rewards that take less than a
            millisecond or that depend on the setting.
        floor: the total of a crystal for which the reward raises, or returns a number that is not finite.

    Attributes:
        hits: crystals answered from the cache.
        misses: crystals that the reward was evaluated for.
        floor: the lowest total: the argument, or the reward's own floor where it is lower.

    Raises:
        ValueError: if an argument is out of range, or the file belongs to another reward or is not a cache.

    Example:
        >>> import rewards
        >>> from crystal_env.crystal import Crystal
        >>> reward = Cached(rewards.Validity())
        >>> settings = ["225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2", "225-a-Cl-0-0-0-b-Na-1/2-1/2-1/2"]
        >>> result = reward([Crystal.from_string(f"{sites}-X-5.6-5.6-5.6-90-90-90") for sites in settings])
        >>> reward.hits, reward.misses
        (1, 1)
    """

    def __init__(
        self,
        reward: Reward | str,
        size: int = 100_000,
        path: str | Path | None = None,
        name: str | None = None,
        key: Key = "canonical",
        floor: float = -10.0,
    ) -> None:
        self.size = integer("size", size, least=1)
        if path is not None and not name:
            raise InputError("name must be given with path: the name of the reward in the file")
        self.reward = resolve_reward(reward)
        self.scorer = Scorer(self._evaluate, finite_number("floor", floor))
        self.keys = Keys(key, self.size)
        self.hits = self.misses = 0
        self._rows: OrderedDict[str, Row] = OrderedDict()
        self._terms: list[str] = []
        self._raised: set[str] = set()
        self._file = None if path is None else CacheFile(path, str(name), key)

    @property
    def floor(self) -> float:
        """The lowest total; see the class."""
        return lower_floor(self.scorer.floor, self.reward)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals, and cache their results."""
        crystals = as_batch(crystals)
        keys = self.keys(crystals)
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        found = self._recall(list(dict.fromkeys(keys)))
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        self._raised.clear()
        fresh = dict(zip(missing, rows_of(self.scorer(crystals[[first[key] for key in missing]])), strict=True))
        kept = {key: row for key, row in fresh.items() if row.failure not in self._raised}
        if self._file is not None and kept:
            self._file.write(kept)
        for key, row in (found | kept).items():
            _remember(self._rows, key, row, self.size)
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        answers = found | fresh
        result = join_rows([answers[key] for key in keys], self.scorer.floor, self._terms)
        self._terms = list(result.terms)
        return result

    def close(self) -> None:
        """Close the file; the next batch opens it again."""
        if self._file is not None:
            self._file.close()

    def _evaluate(self, crystals: CrystalBatch) -> Any:
        """Call the reward, and record what it raises."""
        try:
            return self.reward(crystals)
        except Exception as error:
            self._raised.add(f"{type(error).__name__}: {error}")
            raise

    def _recall(self, keys: Sequence[str]) -> dict[str, Row]:
        """Return the cached rows of distinct keys."""
        found = {key: self._rows[key] for key in keys if key in self._rows}
        if self._file is not None and len(found) < len(keys):
            found |= self._file.read([key for key in keys if key not in found])
        return found


def _remember(memory: OrderedDict[str, _Value], key: str, value: _Value, size: int) -> None:
    """Store a value as the latest, and evict the oldest beyond a size."""
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > size:
        memory.popitem(last=False)
