"""The reference of novelty: known crystals, named beside every number that depends on them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.provenance import file_digest
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.errors import InputError

DEFAULT_FILES = ("mp20_train.csv.gz", "mp20_val.csv.gz")
"""Files in $CRYSTALGEN_DATA: all crystals that the shipped models and hulls know."""


class NoveltyReference(NamedTuple):
    """Crystals that are not novel.

    Attributes:
        crystals: the crystals.
        files: name of each file they are from -> its SHA-256; of crystals from elsewhere, ``"crystals"``.
        skipped: entries of the files that are outside the representation, to which nothing is compared.
    """

    crystals: CrystalBatch
    files: dict[str, str]
    skipped: int = 0

    def facts(self) -> dict[str, Any]:
        """Return files, with their SHA-256, and numbers of crystals, JSON-plain."""
        return {"files": self.files, "crystals": len(self.crystals), "skipped": self.skipped}


def load_reference(
    source: "CrystalBatch | str | Path | Iterable[str | Path]" = (), required: bool = True
) -> NoveltyReference:
    """Return the reference of novelty, by default MP-20's training and validation crystals.

    Args:
        source: crystals, or files of them; by default `DEFAULT_FILES` in the folder $CRYSTALGEN_DATA.
        required: whether missing default files are an error; otherwise the reference is then empty.

    Raises:
        ValueError: if a file cannot be read.
    """
    if isinstance(source, CrystalBatch):
        return NoveltyReference(source, {"crystals": _digest(source)} if len(source) else {})
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(path) for path in source]
    files = paths or [data_folder() / name for name in DEFAULT_FILES]
    if not paths and (missing := [path.name for path in files if not path.is_file()]):
        if required:
            raise InputError(
                f"reference must name files of known crystals, such as {DEFAULT_FILES}: $CRYSTALGEN_DATA holds no "
                f"{missing}"
            )
        return NoveltyReference(CrystalBatch.empty(), {})
    batches, skipped = [], 0
    for path in files:
        if path.suffix == ".npz":
            batches.append(CrystalBatch.load(path))
        else:
            tokens = load_crystals(path)
            batches.append(tokens.crystals)
            skipped += len(tokens.skipped)
    return NoveltyReference(CrystalBatch.concatenate(batches), {p.name: file_digest(p) for p in files}, skipped)


def reference_text(facts: dict[str, Any]) -> str:
    """Return what stands beside a number, such as ``"mp20_train.csv.gz, mp20_val.csv.gz (34,567 crystals)"``."""
    if not facts.get("files"):
        return "an empty reference" if "files" in facts else "an unnamed reference"
    n = facts.get("crystals")
    return ", ".join(facts["files"]) + ("" if n is None else f" ({n:,} crystals)")


def _digest(crystals: CrystalBatch) -> str:
    digest = hashlib.sha256()
    for name in ("G", "W", "A", "XYZ", "L"):
        digest.update(getattr(crystals, name).tobytes())
    return digest.hexdigest()
