"""Equal objects have equal digests, in every process; different ones do not."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from crystal_env.integrity.digest import digest, file_digest
from rewards import Cached, Density, EnergyAboveHull

CODE = """
import sys; sys.path.insert(0, {folder!r})
from tiny_grammar import reward
class Scaled:
    def __init__(self, factor): self.factor = factor
    def __call__(self, crystals): return self.factor * reward(crystals)
from crystal_env.integrity.digest import digest
from rewards import EnergyAboveHull
print(digest([Scaled(2.0), lambda x: 3 * reward(x), EnergyAboveHull(max_depth=0.2), {{"a": {{1, 2}}}}]))
"""


def scaled(factor):
    return lambda crystals: factor * crystals


def test_equal_objects_are_equal_and_others_are_not():
    things = [
        lambda: scaled(2), lambda: scaled(3), lambda: lambda x: x + 1, lambda: lambda x: x + 2, lambda: lambda x: x - 1,
        lambda: lambda x, y=1: x, lambda: lambda x, y=2: x, lambda: np.sin, lambda: np.cos, lambda: scaled,
        lambda: Density(3.0), lambda: Density(4.0), EnergyAboveHull, lambda: EnergyAboveHull(max_depth=0.2),
        lambda: "".join(["a", "b"]), lambda: [1, (2.0, None)],
    ]  # fmt: skip
    digests = [digest(make()) for make in things]
    assert None not in digests
    assert [digest(make()) for make in things] == digests
    assert len(set(digests)) == len(things)


def test_it_does_not_matter_which_equal_objects_are_one():
    text = "".join(["some", "text"])
    assert digest([text, text]) == digest(["sometext", "".join(["some", "text"])])


def test_a_digest_is_that_of_another_process():
    code = CODE.format(folder=str(Path(__file__).parents[2] / "agents"))
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in "12"
    }
    assert len(digests) == 1
    assert "None" not in digests.pop()


def test_objects_may_contain_themselves():
    def loop(value):
        return (one := [value]).append(one) or one

    assert digest(loop(1)) == digest(loop(1)) != digest(loop(2))
    assert digest(Cached(Density(3.0))) == digest(Cached(Density(3.0))) is not None


def test_what_cannot_be_pickled_has_no_digest():
    assert digest(threading.Lock()) is None


def test_a_changed_file_has_another_digest(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    before = file_digest(file)
    assert before == file_digest(file) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    os.utime(file, ns=times)  # as a copy that keeps times, or a clock that was set back
    assert file_digest(file) == hashlib.sha256(b"two").hexdigest()
