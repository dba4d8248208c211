"""Results of a reward in an SQLite file that several processes may share."""

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crystal_env.errors import InputError
from rewards.combinators.rows import Row

_BUSY = 60.0  # seconds to wait for other processes that write
_QUERY = 500  # keys of one query, below the limit of every SQLite
_OF_PARENTS: list[sqlite3.Connection] = []  # connections of before a fork, which may be neither used nor closed


class CacheFile:
    """Rows by key, through one connection a process, opened on demand.

    Copies, pickles and forked processes open connections of their own. A file that can no longer be read or written is
    a `RuntimeWarning`, since the reward can be evaluated without it.

    Args:
        path: the file, on a local disk (SQLite's write-ahead log needs shared memory); created if missing.
        name: name of the reward with its settings.
        key: kind of the keys.

    Raises:
        ValueError: if the file belongs to another reward or kind of keys, is not a cache, or cannot be created.
    """

    def __init__(self, path: str | Path, name: str, key: str) -> None:
        self.path, self.about = Path(path).absolute(), {"reward": name, "key": key, "format": "1"}
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            raise InputError(f"path {self.path} cannot be a cache of rewards: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        """Return the rows of the keys that are in the file."""
        found = {}
        with self._warning("read"):
            for start in range(0, len(keys), _QUERY):
                part = keys[start : start + _QUERY]
                query = f"SELECT * FROM results WHERE key IN ({','.join('?' * len(part))})"
                for key, total, terms, failure in self._connect().execute(query, part):
                    found[key] = Row(total, json.loads(terms), failure)
        return found

    def write(self, rows: dict[str, Row]) -> None:
        """Add rows, in one transaction."""
        values = [(key, row.total, json.dumps(row.terms), row.failure) for key, row in rows.items()]
        with self._warning("written"), self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", values)

    def close(self) -> None:
        """Close this process's connection."""
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
        elif self._connection is not None:
            _OF_PARENTS.append(self._connection)
        self._connection = None

    @contextmanager
    def _warning(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            warnings.warn(f"{self.path} could not be {done}: {error}", RuntimeWarning, stacklevel=5)

    def _connect(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self.close()
        if self._connection is None:
            connection = sqlite3.connect(self.path, timeout=_BUSY, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection, self._pid = connection, os.getpid()
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Create the tables of a new file, and check which reward a file belongs to."""
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                connection.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT)")
                connection.executemany("INSERT INTO about VALUES (?, ?)", self.about.items())
                connection.execute(
                    "CREATE TABLE results (key TEXT PRIMARY KEY, total REAL, terms TEXT, failure TEXT) WITHOUT ROWID"
                )
            about = dict(connection.execute("SELECT name, value FROM about"))
        for name, value in self.about.items():
            if about.get(name) != value:
                raise InputError(f"path {self.path} is a cache with {name} {about.get(name)!r}, not {value!r}")
        _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Allow reads during a write; SQLite does not wait for processes that have the file open, so retry."""
    end = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.01)
