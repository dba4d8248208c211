"""Readers of generated crystals, from any generator: one attempt for each entry, with the reason where it failed.

An entry in the representation becomes a crystal. One outside it, such as a cell of more than 20 inequivalent sites,
stays a structure and is evaluated as one. Only an entry that is no structure at all is a failure.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.samples.formats import Raw, raw_entries, raw_items
from benchmarks.samples.samples import Failure, Item, Outside, Samples
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.elements import SYMBOLS
from crystal_env.errors import InputError

_CHUNK = 64
_MIN_PARALLEL = 256  # structures, about as many as one process converts while others start


def read_samples(
    source: "str | Path | CrystalBatch | Samples | Iterable[Any]",
    n_jobs: int | None = None,
    *,
    name: str | None = None,
    symprec: float = 0.01,
    progress: bool = True,
) -> Samples:
    """Read generated crystals.

    Args:
        source: a file of any format of `benchmarks.samples.formats.raw_entries`; an npz file of crystals or of samples;
            a folder of CIF files, of ``crystalgen sample``, or of a seed of the benchmark; crystals; or pymatgen
            structures, ASE atoms, texts of CIFs and paths, also mixed, with None for a failed attempt.
        n_jobs: processes, None for one a core.
        name: name of the sample, by default the file's.
        symprec: tolerance in Å of the symmetry search that represents structures.
        progress: show a bar with the time left.

    Raises:
        ValueError: if a file does not exist or its format is not known; single bad entries are ``failures``.
    """
    if isinstance(source, Samples):
        return source
    if isinstance(source, str | Path) and not (isinstance(source, str) and "\n" in source):
        path = Path(source)
        return _converted(list(raw_entries(path)), name or path.name, symprec, n_jobs, progress)
    entries = [source] if isinstance(source, str) else source
    return _converted(list(raw_items(entries)), name or "crystals", symprec, n_jobs, progress)


def _converted(raw: list[Raw], name: str, symprec: float, n_jobs: int | None, progress: bool) -> Samples:
    """Turn the entries of a file into samples, on several processes."""
    from joblib import Parallel, delayed
    from tqdm import tqdm

    chunks = [[one.item for one in raw[start : start + _CHUNK]] for start in range(0, len(raw), _CHUNK)]
    serial = n_jobs == 1 or sum(not isinstance(one.item, Failure | Crystal) for one in raw) < _MIN_PARALLEL
    jobs = Parallel(n_jobs=1 if serial else n_jobs or -1, return_as="generator")(
        delayed(_convert)(chunk, symprec) for chunk in chunks
    )
    items: list[Item] = []
    with tqdm(total=len(raw), desc=f"{name}: reading", unit="entry", disable=not progress) as bar:
        for part in jobs:
            items += part
            bar.update(len(part))
    requested = np.array([one.requested for one in raw], np.int64)
    return Samples.from_items(items, name, requested, [one.place for one in raw])


def _convert(entries: Sequence[Any], symprec: float) -> list[Item]:
    """Return what each entry is."""
    return [_convert_one(entry, symprec) for entry in entries]


def _convert_one(entry: Any, symprec: float) -> Item:
    from pymatgen.core import Structure

    from crystal_env.symmetry.standardise import cell_arrays, standardise

    if isinstance(entry, Failure | Crystal):
        return entry
    try:
        source = structure_of_text(entry) if isinstance(entry, str) else entry
        lattice, frac, numbers = cell_arrays(source)
    except ValueError as error:
        return Failure(str(error) or type(error).__name__)
    try:
        return Crystal(*standardise(lattice, frac, numbers, symprec))
    except ValueError as error:
        return Outside(Structure(lattice, [SYMBOLS[z] for z in numbers], frac), str(error))


def structure_of_text(text: str) -> Any:
    """Return the structure of a text: of pymatgen's JSON, of a CIF, of a POSCAR, or of the file that it names.

    Raises:
        ValueError: if it is none of these.
    """
    from pymatgen.core import Structure

    from crystal_env.symmetry.standardise import read

    stripped = text.strip()
    if not stripped:
        raise InputError("the entry is empty")
    if stripped[0] == "{":
        try:
            return Structure.from_dict(json.loads(stripped))
        except Exception as error:
            raise InputError(f"no JSON of a structure: {type(error).__name__}: {error}") from error
    if "\n" in stripped and "_cell_" not in stripped:
        try:
            return Structure.from_str(text, fmt="poscar")
        except Exception as error:
            raise InputError(f"neither a CIF nor a POSCAR: {type(error).__name__}: {error}") from error
    return read(text)
