"""Where numbers come from: hashes of what they depend on, versions and hardware."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from agents.crystalformer.checkpoint import MODELS, WEIGHTS_FILE
from benchmarks.tasks import Task
from rewards.hull.file_format import hull_path

SCHEMA = "crystalgen-results/1"
"""Format of ``results.json``."""

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


def provenance(files: Sequence[Path], task: Task, seconds: float, model: Any = None) -> dict[str, Any]:
    """Return what results depend on, JSON-plain.

    Args:
        files: the reference of novelty, and others that were read.
        task: the task.
        seconds: how long the runs took, all seeds.
        model: name or path of the model that the agent started from, if there is one.
    """
    hashes = {path.name: file_digest(path) for path in files}
    if isinstance(model, str) and (weights := _weights(model)).is_file():
        hashes[f"model {Path(model).name}"] = file_digest(weights)
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
        "command": command("crystalgen", *sys.argv[1:]),
        "seconds": round(seconds, 1),
    }


def command(*words: str) -> str:
    """Return a command as others can run it: without the folders of this machine.

    The folders of the environment variables are written as ``$CRYSTALGEN_DATA`` and ``$CRYSTALGEN_MODELS``, those in
    the working folder relative to it, those at home with ``~``.
    """
    text = shlex.join(words)
    folders = {os.environ.get(name, ""): f"${name}" for name in ("CRYSTALGEN_DATA", "CRYSTALGEN_MODELS")}
    for folder, name in [*folders.items(), (str(Path.cwd()), "."), (str(Path.home()), "~")]:
        if len(Path(folder).parts) > 1 and Path(folder).is_absolute():  # neither "" nor the root
            text = re.sub(rf"{re.escape(folder.rstrip('/'))}(?=[/\s']|$)", name, text)
    return text.replace(" ./", " ")


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


def _weights(model: str) -> Path:
    path = MODELS / model if (MODELS / model).is_dir() else Path(model)
    return path / WEIGHTS_FILE if path.is_dir() else path


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
