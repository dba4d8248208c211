"""Facts that stand beside numbers: the command, digests of files, versions of packages and the hardware."""

import os
import platform
import re
import shlex
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

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
    """Return the SHA-256 of a file, or of all files in a folder with their places in it."""
    digest = sha256()
    if path.is_dir():
        for part in sorted(path.rglob("*")):
            if part.is_file():
                digest.update(f"{part.relative_to(path).as_posix()} {file_digest(part)}\n".encode())
        return digest.hexdigest()
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
