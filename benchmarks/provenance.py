"""Where numbers come from: hashes of what they depend on, versions and hardware."""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.tasks import Task
from rewards.hull_file import hull_path

_PACKAGES = (
    "crystalgen",
    "gymnasium",
    "stable-baselines3",
    "sb3-contrib",
    "torch",
    "numpy",
    "pymatgen",
    "spglib",
    "moyopy",
    "chgnet",
    "smact",
    "matgl",
    "orb-models",
)


def provenance(files: Sequence[Path], task: Task, seconds: float) -> dict[str, Any]:
    """Return what results depend on, JSON-plain.

    Args:
        files: the reference of novelty.
        task: the task.
        seconds: how long the run took.
    """
    hashes = {path.name: file_digest(path) for path in files}
    if task.judge:
        hull = hull_path("mp20-chgnet")
        hashes |= {hull.name: file_digest(hull), "CHGNet weights": chgnet_digest()}
    for value in task.reward_kwargs.values():
        path = Path(os.environ.get(str(value)[1:], "")) if str(value).startswith("$") else None
        if path is not None and path.is_file():
            hashes[path.name] = file_digest(path)
    return {
        "hashes": hashes,
        "versions": {"python": platform.python_version(), **versions()},
        "hardware": hardware(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["crystalgen", *sys.argv[1:]]),
        "seconds": round(seconds, 1),
    }


def versions() -> dict[str, str]:
    """Return package -> version, of those that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return the processor, the number of cores and the accelerator."""
    import torch

    model = next((line for line in _cpu_lines() if line.startswith("model name")), "").partition(":")[2].strip()
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def chgnet_digest() -> str:
    """Return the SHA-256 of the weights that CHGNet's package carries, file by file in the order of their names."""
    import chgnet

    digest = sha256()
    for path in sorted((Path(chgnet.__file__).parent / "pretrained").rglob("*.pth.tar")):
        digest.update(f"{path.name} {file_digest(path)}".encode())
    return digest.hexdigest()


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
