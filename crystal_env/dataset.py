"""Files of structures, tokenised in parallel and cached."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.errors import InputError, MissingFileError
from crystal_env.files import atomic_write, read_table
from crystal_env.wyckoff import TABLE_FILE

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

_CHUNK = 64
_FORMAT = 2  # part of the cache key: raise it when the tokens of an unchanged file change


@dataclass(frozen=True)
class Tokenised:
    """A file of structures as crystals.

    Attributes:
        crystals: the B crystals that can be represented.
        index (B,): their positions in the file.
        skipped: position in the file -> reason, for all others.
    """

    crystals: CrystalBatch
    index: NDArray[np.int64]
    skipped: dict[int, str]


def data_folder() -> Path:
    """Return the folder of data files: ``$CRYSTALGEN_DATA``, else ``crystalgen/data`` in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CRYSTALGEN_DATA") or cache / "crystalgen" / "data")


def cache_folder() -> Path:
    """Return the folder of computed files: ``$CRYSTALGEN_CACHE``, else ``crystalgen`` in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CRYSTALGEN_CACHE") or cache / "crystalgen")


def read_structures(path: str | Path) -> "Iterator[str | Path | Atoms]":
    """Yield the structures of a file or folder, unparsed where possible.

    Args:
        path: a CSV (also compressed) with a column ``cif`` of CIF texts, a folder of CIF files, or any file of one or
            more structures that ASE reads (extxyz, POSCAR, an ASE database ...).

    Raises:
        ValueError: if there is no such file, or a CSV has no column ``cif``.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.cif"))
        if not files:
            raise InputError(f"folder {path} holds no .cif files")
        yield from files
    elif not path.is_file():
        raise MissingFileError(f"no such file of structures: {path}")
    elif ".csv" in path.suffixes:
        yield from read_table(path, ["cif"])["cif"]
    elif path.suffix == ".cif":
        yield path
    else:
        from ase.io import iread

        try:
            yield from iread(path, ":")
        except Exception as error:
            raise InputError(f"{path} cannot be read by ASE: {type(error).__name__}: {error}") from error


def load_crystals(
    path: str | Path,
    symprec: float = 0.01,
    *,
    n_jobs: int | None = None,
    cache: bool = True,
    progress: bool = True,
) -> Tokenised:
    """Tokenise a file of structures in parallel; the result is cached.

    Args:
        path: what `read_structures` takes.
        symprec: tolerance of the symmetry search in Å.
        n_jobs: processes, by default one per core.
        cache: read and write ``cache_folder()``, where a file is identified by its content, never by its name.
            Folders are not cached.
        progress: show a bar with the time left.

    Raises:
        ValueError: if the file cannot be read; structures that cannot be represented are listed in ``skipped``.
    """
    path = Path(path)
    cached = _cache_file(path, symprec) if cache and path.is_file() else None
    if cached and cached.is_file():
        with np.load(cached, allow_pickle=False) as file:
            skipped = dict(zip(file["skipped_index"].tolist(), file["skipped_reason"].tolist(), strict=True))
            return Tokenised(CrystalBatch.load(cached), file["index"], skipped)
    result = _tokenise(list(read_structures(path)), symprec, n_jobs or os.cpu_count() or 1, path.name, progress)
    if cached:
        _write_cache(cached, result)
    return result


def _cache_file(path: Path, symprec: float) -> Path:
    digest = hashlib.sha256(f"{_FORMAT} {symprec} ".encode() + TABLE_FILE.read_bytes())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return cache_folder() / "tokens" / f"{digest.hexdigest()[:32]}.npz"


def _write_cache(path: Path, result: Tokenised) -> None:
    arrays = {name: getattr(result.crystals, name) for name in ("G", "W", "A", "XYZ", "L")}
    arrays["index"] = result.index
    arrays["skipped_index"] = np.array(list(result.skipped), np.int64)
    arrays["skipped_reason"] = np.array(list(result.skipped.values()), str)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, partial(np.savez_compressed, allow_pickle=False, **arrays))


def _tokenise(
    structures: "list[str | Path | Atoms]", symprec: float, n_jobs: int, name: str, progress: bool
) -> Tokenised:
    from joblib import Parallel, delayed
    from tqdm import tqdm

    chunks = [structures[start : start + _CHUNK] for start in range(0, len(structures), _CHUNK)]
    jobs = (delayed(_tokenise_chunk)(chunk, symprec) for chunk in chunks)
    outcomes: list[Crystal | str] = []
    with tqdm(total=len(structures), desc=f"tokenising {name}", unit="crystal", disable=not progress) as bar:
        for part in Parallel(n_jobs=n_jobs, return_as="generator")(jobs):
            outcomes += part
            bar.update(len(part))
    index = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Crystal)]
    skipped = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, str)}
    crystals = CrystalBatch.from_crystals(c for c in outcomes if isinstance(c, Crystal))
    return Tokenised(crystals, np.array(index, np.int64), skipped)


def _tokenise_chunk(structures: "list[str | Path | Structure | Atoms]", symprec: float) -> list[Crystal | str]:
    """Return the crystal of every structure, or the reason why it cannot be represented."""
    outcomes: list[Crystal | str] = []
    for structure in structures:
        try:
            outcomes.append(Crystal.from_structure(structure, symprec))
        except ValueError as error:
            outcomes.append(str(error))
    return outcomes
