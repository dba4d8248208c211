"""What results depend on: digests of files and weights, versions, hardware, command."""

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.crystalformer.checkpoint import MODELS, WEIGHTS_FILE
from benchmarks.provenance import chgnet_digest, command, file_digest, hardware, versions
from benchmarks.tasks import Task
from rewards.hull.file_format import hull_path

SCHEMA = "crystalgen-results/2"
"""Format of ``results.json``."""


def dependencies(task: Task, model: Any = None, files: Sequence[Path] = ()) -> dict[str, str]:
    """Return the SHA-256 of everything beside the code that changes a number, by name.

    Args:
        task: the task, with the hull and the weights of its stability, and the files of its reward.
        model: name or path of the model that the agent starts from, if there is one.
        files: other files and folders, such as the hull of a cross-check potential.
    """
    digests = {path.name: file_digest(path) for path in files}
    if isinstance(model, str) and (weights := _weights(model)).is_file():
        digests[f"model {Path(model).name}"] = file_digest(weights)
    if task.stability:
        hull = hull_path("mp20-chgnet")
        digests |= {hull.name: file_digest(hull), "CHGNet weights": chgnet_digest()}
    for value in task.reward_kwargs.values():
        path = Path(os.environ.get(str(value)[1:], "")) if str(value).startswith("$") else None
        if path is not None and path.is_file():
            digests[path.name] = file_digest(path)
    return digests


def provenance(digests: dict[str, str], seconds: float) -> dict[str, Any]:
    """Return where results come from, JSON-plain.

    Args:
        digests: see `dependencies`.
        seconds: time of the runs of all seeds.
    """
    return {
        "hashes": digests,
        "versions": {"python": platform.python_version(), **versions()},
        "hardware": hardware(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command("crystalgen", *sys.argv[1:]),
        "seconds": round(seconds, 1),
    }


def _weights(model: str) -> Path:
    path = MODELS / model if (MODELS / model).is_dir() else Path(model)
    return path / WEIGHTS_FILE if path.is_dir() else path
