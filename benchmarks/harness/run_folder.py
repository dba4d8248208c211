"""The folder of a run of the benchmark: whose it is, who works in it, and what is already done."""

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.samples.samples import Samples
from benchmarks.tasks.oracle import load_trace
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.files import atomic_write, locked
from crystal_env.reward import RewardResult

_DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)


@contextmanager
def claimed(folder: Path, identity: dict[str, Any], resume: bool) -> Iterator[None]:
    """Hold a folder for a run: it must be new, or of the same run if that is resumed, and no other process in it.

    Args:
        folder: the folder, made where there is none.
        identity: everything that changes a number of the run, JSON-plain.
        resume: resume a run that the folder holds.

    Raises:
        ValueError: if the folder is of another run, or of this one without `resume`, or another process is in it. A
            mistake of the user that shows before anything is sampled leaves the folder free for the corrected command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"out {folder}"):
        path = folder / "run.json"
        is_new = not path.is_file()
        _check_identity(path, json.loads(json.dumps(identity)), resume)
        try:
            yield
        except InputError:
            if is_new and not any(folder.rglob("crystals.npz")):  # nothing is done yet that could be resumed
                path.unlink()
            raise


def _check_identity(path: Path, identity: dict[str, Any], resume: bool) -> None:
    if not path.is_file():
        write_json(path, identity)
        return
    known = read_json(path)
    if not isinstance(known, dict):
        raise InputError(f"{path} is damaged, so that the run cannot be resumed: choose another folder")
    if changed := _changes(known, identity):
        raise InputError(f"out {path.parent} has results of another {' and '.join(changed)}: choose another folder")
    if not resume:
        raise InputError(f"out {path.parent} has results already: --resume resumes the run, or choose another folder")


def _changes(known: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """Return the names of what differs, of dictionaries with the entry."""
    names = []
    for name in dict.fromkeys([*identity, *known]):
        before, now = known.get(name), identity.get(name)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            entries = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
            names.append(f"{name} ({', '.join(entries)})")
        else:
            names.append(name)
    return names


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, None if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except _DAMAGED:
        return None


def write_json(path: Path, value: Any) -> Any:
    """Write a JSON file, replaced whole or not at all, and return what it holds."""
    text = json.dumps(value, indent=2)
    atomic_write(path, text + "\n")
    return json.loads(text)


def read_rollout(place: Path) -> tuple[Samples, tuple[CrystalBatch, RewardResult], dict[str, Any]] | None:
    """Return the samples, the trace and the times of an agent, None if one of them is missing or damaged."""
    times = read_json(place / "times.json")
    try:
        samples, trace = Samples.load(place / "crystals.npz"), load_trace(place / "trace.npz")
    except _DAMAGED:
        return None
    return (samples, trace, times) if isinstance(times, dict) and {"training", "queried"} <= set(times) else None
