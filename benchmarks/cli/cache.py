"""The commands ``crystalgen cache info`` and ``crystalgen cache clear``: what was computed and kept."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional
from tyro.extras import subcommand_cli_from_dict

from crystal_env.dataset import cache_folder
from rewards.hull.energy_cache import ABOUT_FILE

Kind = Literal["tokens", "energies"]
"""Files of structures as crystals, and energies of crystals by potentials."""

_KINDS: tuple[Kind, ...] = ("tokens", "energies")
_WRITTEN = re.compile(r"\.?[0-9a-f]{32}\.npz(\.\d+){0,2}|" + re.escape(ABOUT_FILE))
"""Names of the files of the cache, of interrupted writes too; no others are removed."""


def info() -> None:
    """Print what the cache holds, and of each potential that has energies in it what these depend on."""
    folder = cache_folder()
    print(f"folder: {folder}")
    for kind in _KINDS:
        print(f"{kind}: {_size(list(_files(folder / kind)))}")
        for about in sorted((folder / kind).glob(f"*/{ABOUT_FILE}")):
            print(f"  {about.parent.name}: {_size(list(_files(about.parent)))}")
            print(f"    {_text(about)}")


def clear(kinds: Positional[tuple[Kind, ...]] = _KINDS) -> None:
    """Remove what was computed and kept; data, models and all other files stay.

    Args:
        kinds: Parts of the cache to remove.
    """
    for kind in kinds:
        files = list(_files(cache_folder() / kind))
        text = _size(files)
        for file in files:
            file.unlink(missing_ok=True)
        for folder in {file.parent for file in files}:
            if folder.name != kind and not any(folder.iterdir()):
                folder.rmdir()
        print(f"{kind}: {text} removed")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files that the project has written into a folder of the cache and the folders in it."""
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if _WRITTEN.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield path


def _size(files: Sequence[Path]) -> str:
    return f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _text(about: Path) -> str:
    try:
        return json.dumps(json.loads(about.read_text()))
    except (OSError, ValueError):
        return f"{about} is damaged"


COMMANDS: dict[str, Any] = {"info": info, "clear": clear}
"""The sub-commands of ``crystalgen cache``."""


def main(args: Sequence[str]) -> None:
    """Run one of the commands."""
    subcommand_cli_from_dict(COMMANDS, args=list(args), prog="crystalgen cache", description=__doc__)
