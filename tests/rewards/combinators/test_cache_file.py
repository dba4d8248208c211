"""The SQLite file of a cache: shared by processes, refused where it is another reward's, lost without harm."""

import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult
from rewards.combinators.cache import Cached
from rewards.combinators.cache_file import CacheFile
from rewards.combinators.rows import Row
from rewards.density import Density


@dataclass
class Volume:
    """The volume per atom; it refuses iron, raises for gold, and counts the crystals it scores."""

    seen: list[int] = field(default_factory=list)

    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        self.seen.append(len(crystals))
        if (crystals.A == 79).any():
            raise RuntimeError("gold")
        volume = crystals.volume_per_atom()
        iron = (crystals.A == 26).any(1)
        failures = np.where(iron, "iron", np.full(len(crystals), None, object))
        return RewardResult(np.where(iron, -5.0, volume), {"twice": 2 * volume, "success": (~iron) * 1.0}, failures)


def assert_equal(first: RewardResult, second: RewardResult) -> None:
    np.testing.assert_allclose(first.total, second.total, rtol=1e-9)
    assert first.terms.keys() == second.terms.keys()
    for name, values in first.terms.items():
        np.testing.assert_allclose(values, second.terms[name], rtol=1e-9)
    assert first.failures.tolist() == second.failures.tolist()


def test_file_is_read_by_another_program(tmp_path, crystals):
    path = tmp_path / "cache.sqlite"
    first = Cached(Volume(), path=path, name="volume")
    expected = first(crystals)
    first.close()
    reward = Volume()
    second = Cached(reward, path=path, name="volume")
    result = second(crystals)
    assert reward.seen == []
    assert result.total.tolist() == expected.total.tolist()  # to the last bit
    assert_equal(result, expected)
    second.close()


def test_file_keeps_what_memory_forgets(tmp_path, crystals):
    reward = Volume()
    cached = Cached(reward, size=1, path=tmp_path / "cache.sqlite", name="volume")
    for _ in range(2):
        assert_equal(cached(crystals), Volume()(crystals))
    assert reward.seen == [5]
    cached.close()


def test_file_of_another_reward_is_refused(tmp_path):
    path = tmp_path / "cache.sqlite"
    Cached(Volume(), path=path, name="volume").close()
    with pytest.raises(ValueError, match="cache with reward 'volume', not 'density'"):
        Cached(Density(), path=path, name="density")
    with pytest.raises(ValueError, match="cache with key 'canonical', not 'exact'"):
        Cached(Volume(), path=path, name="volume", key="exact")


def test_file_of_something_else_is_refused_and_stays_as_it_is(tmp_path):
    text, database = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("no cache\n" * 200)
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for path in (text, database):
        before = path.read_bytes()
        with pytest.raises(ValueError, match="cannot be a cache of rewards"):
            Cached(Volume(), path=path, name="volume")
        assert path.read_bytes() == before
    with pytest.raises(ValueError, match="cannot be a cache of rewards: unable to open"):
        Cached(Volume(), path=tmp_path / "nowhere" / "cache.sqlite", name="volume")


def test_lost_file_is_a_warning_and_crystals_are_scored(tmp_path, crystals):
    path = tmp_path / "cache.sqlite"
    cached = Cached(Volume(), path=path, name="volume")
    cached.close()
    path.write_text("no cache\n" * 200)
    with pytest.warns(RuntimeWarning, match="could not be"):
        assert_equal(cached(crystals), Volume()(crystals))


WRITER = """
import sys
import numpy as np
from crystal_env.crystal import Crystal
from rewards.combinators.cache import Cached
path, process = sys.argv[1], int(sys.argv[2])
sys.stdin.readline()
cached = Cached(lambda crystals: crystals.L[:, 0], path=path, name="length")
for a in range(40):
    length = 3 + 0.1 * (a + (40 * process if a % 2 else 0))  # even ones are everyone's
    cached([Crystal.from_string("221-a-Na-0-0-0-X-{0}-{0}-{0}-90-90-90".format(f"{length:.2f}"))])
"""


def test_several_processes_write_one_file_at_once(tmp_path):
    path, count = tmp_path / "cache.sqlite", 4
    commands = [[sys.executable, "-c", WRITER, str(path), str(process)] for process in range(count)]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    writers = [subprocess.Popen(command, text=True, **pipes) for command in commands]
    for writer in writers:
        writer.stdin.write("start\n")
        writer.stdin.flush()
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * count
    lengths = {round(3 + 0.1 * (a + (40 * p if a % 2 else 0)), 2) for a in range(40) for p in range(count)}
    connection = sqlite3.connect(path)
    totals = sorted(total for (total,) in connection.execute("SELECT total FROM results"))
    connection.close()
    assert totals == sorted(lengths)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_opens_a_connection_of_its_own(tmp_path, crystals):
    cached = Cached(Volume(), path=tmp_path / "cache.sqlite", name="volume")
    cached(crystals[:2])
    child = multiprocessing.get_context("fork").Process(target=cached, args=(crystals,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    cached.reward.seen.clear()
    cached(crystals)
    assert cached.reward.seen == []
    cached.close()


def test_terms_of_the_file_are_plain_json(tmp_path, crystals):
    path = tmp_path / "cache.sqlite"
    cached = Cached(Volume(), path=path, name="volume")
    expected = cached(crystals[:1])
    cached.close()
    connection = sqlite3.connect(path)
    (terms,) = connection.execute("SELECT terms FROM results").fetchone()
    connection.close()
    assert json.loads(terms) == {name: values[0] for name, values in expected.terms.items()}


def test_rows_are_read_as_they_were_written(tmp_path):
    file = CacheFile(tmp_path / "cache.sqlite", "volume", "exact")
    rows = {f"key {i}": Row(i / 3, {"twice": 2 * i / 3}, "iron" if i % 7 == 0 else None) for i in range(1200)}
    file.write(rows)
    assert file.read([*rows, "another"]) == rows
    file.write({"key 1": Row(5.0, {})})
    assert file.read(["key 1"]) == {"key 1": Row(5.0, {})}
    file.close()
