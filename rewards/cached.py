"""A memory of scores, so that no crystal is computed twice, in whatever description it comes."""

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

Key = Literal["canonical", "exact"]

_BUSY = 60.0  # seconds a process waits for another that writes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, total REAL NOT NULL, terms TEXT NOT NULL, failure TEXT);
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class _Score(NamedTuple):
    total: float
    terms: dict[str, float]
    failure: str | None


class Cached:
    """A reward that computes every crystal once.

    With ``key="canonical"`` all descriptions of a crystal are one: other origins and axes, atoms in another order;
    coordinates are told apart to 1e-4 and lengths to 1e-4 relatively. Finding the canonical description takes about
    1 ms (median, MP-20-like crystals; up to 0.1 s for many sites in a group of high symmetry); exactly equal crystals
    are found without it. For a reward cheaper than that take ``key="exact"``. A failure is remembered like a score.
    ``Cached(Metered(reward))`` counts what is really computed, ``Metered(Cached(reward))`` what is asked for.

    Attributes:
        hits: crystals that needed no computation.
        misses: crystals that were computed.

    Args:
        reward: any reward whose score depends on the crystal alone; not one with a memory, such as `Diversity`.
        size: scores kept in memory; those not used for longest are forgotten.
        path: a file that keeps all scores, by default none. Several processes may use it at once.
        name: what the scores of the file are; a file of another name is refused.
        key: what counts as the same crystal.
        floor: the total of a crystal that cannot be scored.

    Raises:
        ValueError: if ``size`` or ``key`` is impossible, or the file holds scores of another name or no scores.
    """

    def __init__(
        self,
        reward: Reward | str,
        size: int = 100_000,
        path: str | Path | None = None,
        name: str = "",
        key: Key = "canonical",
        floor: float = -10.0,
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        if key not in get_args(Key):
            raise ValueError(f"key must be one of {get_args(Key)}, got {key!r}")
        self.scorer = Scorer(resolve_reward(reward), float(floor))
        self.size, self.path, self.name, self.key = int(size), None if path is None else Path(path), name, key
        self.hits = self.misses = 0
        self._scores: OrderedDict[str, _Score] = OrderedDict()
        self._keys: OrderedDict[bytes, str] = OrderedDict()
        if self.path is not None:
            self._check_file()

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals, of which only those that are not known are computed."""
        crystals = as_batch(crystals)
        keys = [self._key(crystal) for crystal in crystals]
        known = {key: self._scores[key] for key in keys if key in self._scores}
        known |= self._read([key for key in dict.fromkeys(keys) if key not in known])
        new: dict[str, int] = {}
        for row, key in enumerate(keys):
            if key not in known:
                new.setdefault(key, row)
        self.misses += len(new)
        self.hits += len(keys) - len(new)
        if new:
            fresh = _scores(self.scorer(crystals[np.array(list(new.values()))]), list(new))
            known |= fresh
            self._write(fresh)
        for key in dict.fromkeys(keys):
            self._scores[key] = known[key]
            self._scores.move_to_end(key)
        while len(self._scores) > self.size:
            self._scores.popitem(last=False)
        return self._result([known[key] for key in keys])

    def _key(self, crystal: "Crystal") -> str:
        exact = b"".join(getattr(crystal, name).tobytes() for name in ("W", "A", "XYZ", "L")) + bytes([crystal.G])
        if self.key == "exact":
            return exact.hex()
        if exact not in self._keys:
            self._keys[exact] = canonical_key(crystal)
        self._keys.move_to_end(exact)
        while len(self._keys) > self.size:
            self._keys.popitem(last=False)
        return self._keys[exact]

    def _result(self, scores: list[_Score]) -> RewardResult:
        names = list(dict.fromkeys(name for _, terms, _ in scores for name in terms))
        total = np.array([score.total for score in scores], np.float64)
        terms = {name: np.array([self._term(score, name) for score in scores], np.float64) for name in names}
        return RewardResult(total, terms, _objects([failure for _, _, failure in scores]))

    def _term(self, score: _Score, name: str) -> float:
        return score.terms.get(name, 0.0 if name == "success" else self.scorer.floor)

    def _check_file(self) -> None:
        try:
            with self._database() as database:
                database.executescript(_SCHEMA)
                database.execute("INSERT OR IGNORE INTO about VALUES ('name', ?)", (self.name,))
                held = database.execute("SELECT value FROM about WHERE name = 'name'").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise ValueError(f"path {self.path} is no file of scores: {error}") from error
        if held != self.name:
            raise ValueError(f"path {self.path} holds scores of {held!r}, not of {self.name!r}")

    @contextmanager
    def _database(self) -> "Iterator[sqlite3.Connection]":
        """Open the file for one transaction: connections do not survive forks and pickles."""
        assert self.path is not None
        database = sqlite3.connect(self.path, timeout=_BUSY)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            with database:
                yield database
        finally:
            database.close()

    def _read(self, keys: list[str]) -> dict[str, _Score]:
        if self.path is None or not keys:
            return {}
        found: dict[str, _Score] = {}
        with self._database() as database:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                query = f"SELECT * FROM scores WHERE key IN ({','.join('?' * len(part))})"
                for key, total, terms, failure in database.execute(query, part):
                    found[key] = _Score(total, json.loads(terms), failure)
        return found

    def _write(self, scores: dict[str, _Score]) -> None:
        if self.path is None:
            return
        rows = [(key, total, json.dumps(terms), failure) for key, (total, terms, failure) in scores.items()]
        with self._database() as database:
            database.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?)", rows)


def canonical_key(crystal: "Crystal", coordinates: float = 1e-4, lengths: float = 1e-4) -> str:
    """Return a text that all descriptions of a crystal share.

    Rounding can tell two descriptions apart whose numbers differ by noise at the boundary of a step, but never takes
    crystals for one whose numbers differ by more than a step.

    Args:
        crystal: the crystal.
        coordinates: step of fractional coordinates.
        lengths: relative step of lengths; angles have steps of as many radians.
    """
    canonical = crystal.canonical()
    steps = max(round(1 / coordinates), 1)
    XYZ = np.rint(canonical.XYZ * steps).astype(int) % steps
    L = np.rint(np.concatenate([np.log(canonical.L[:3]), np.radians(canonical.L[3:])]) / lengths).astype(int)
    sites = zip(canonical.W.tolist(), canonical.A.tolist(), XYZ.tolist(), strict=True)
    return f"{canonical.G}|" + ";".join(f"{w},{a},{x[0]},{x[1]},{x[2]}" for w, a, x in sites) + "|" + repr(L.tolist())


def _scores(result: RewardResult, keys: list[str]) -> dict[str, _Score]:
    terms = [{name: float(values[row]) for name, values in result.terms.items()} for row in range(len(keys))]
    return {key: _Score(float(result.total[row]), terms[row], result.failures[row]) for row, key in enumerate(keys)}


def _objects(items: list[Any]) -> NDArray[np.object_]:
    return np.array([*items, None], object)[:-1]
