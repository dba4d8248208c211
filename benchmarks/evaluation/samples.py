"""Files of generated crystals, from any generator: one entry for each attempt, and a reason where it is no structure.

What the grammar can write down becomes a crystal. What it cannot, such as a cell with more than 20 inequivalent sites,
stays a structure and is judged as one. Only what is no structure at all counts as a failure.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.readers import Raw, Unreadable, raw_entries
from crystal_env.checks import check_crystal
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.elements import SYMBOLS
from crystal_env.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure

_CHUNK = 64
_WORTH_IT = 256  # entries, about as many as one process converts while others start


@dataclass(frozen=True, eq=False)
class Attempts:
    """What N attempts of a generator gave.

    Attributes:
        name: what it is called.
        crystals: the n attempts that the grammar can write down.
        rows (n,): which ones they are.
        foreign: the f attempts that are structures, but no crystals of the grammar.
        foreign_rows (f,): which ones they are.
        failures: attempt -> why it is no structure.
        remarks: attempt -> why it is a structure and no crystal.
        groups (N,): space groups that were asked for, 0 where that is not known.
        places: where each of the N attempts stands, such as ``"row 3"``.
    """

    name: str
    crystals: CrystalBatch
    rows: NDArray[np.int64]
    foreign: "list[Structure]"
    foreign_rows: NDArray[np.int64]
    failures: dict[int, str]
    remarks: dict[int, str]
    groups: NDArray[np.int64]
    places: list[str]

    def __len__(self) -> int:
        """Return the number of attempts N."""
        return len(self.places)

    @property
    def requested(self) -> NDArray[np.int64]:
        """The space groups that were asked for (n,) where there is a crystal."""
        return self.groups[self.rows]

    @property
    def skipped(self) -> dict[int, str]:
        """Attempt -> why it is no crystal, in order."""
        return dict(sorted((self.failures | self.remarks).items()))

    def first(self, size: int | None) -> "Attempts":
        """Return the first attempts, all of them if ``size`` is None."""
        size = len(self) if size is None else size
        ours, theirs = self.rows < size, self.foreign_rows < size
        return Attempts(
            self.name,
            self.crystals[ours],
            self.rows[ours],
            [structure for structure, taken in zip(self.foreign, theirs, strict=True) if taken],
            self.foreign_rows[theirs],
            {row: reason for row, reason in self.failures.items() if row < size},
            {row: reason for row, reason in self.remarks.items() if row < size},
            self.groups[:size],
            self.places[:size],
        )


def as_attempts(
    source: "str | Path | CrystalBatch | Attempts | Iterable[Any]",
    n_jobs: int | None = None,
    *,
    name: str | None = None,
    symprec: float = 0.01,
    progress: bool = True,
) -> Attempts:
    """Read generated crystals.

    Args:
        source: a file that `benchmarks.evaluation.readers.raw_entries` knows; crystals; or pymatgen structures, ASE
            atoms, texts of CIFs and paths, also mixed, with None where an attempt gave nothing.
        n_jobs: processes, None for one a core.
        name: what they are called, by default the file's name.
        symprec: tolerance in Å of the symmetry search that writes structures down.
        progress: show a bar with the time left.

    Raises:
        ValueError: if a file does not exist or its format is not known; single bad entries are ``failures``.
    """
    if isinstance(source, Attempts):
        return source
    raw: Iterable[Raw]
    if isinstance(source, str | Path) and not (isinstance(source, str) and "\n" in source):
        path = Path(source)
        name = name or path.name
        if path.suffix == ".npz":
            return _of_npz(path, name)
        raw = raw_entries(path)
    elif isinstance(source, CrystalBatch):
        return _of_batch(source, name or "crystals", source.G.astype(np.int64))
    else:
        entries: list[Any] = [source] if isinstance(source, str) else list(source)
        raw = [Raw(_item(item), f"row {row}") for row, item in enumerate(entries)]
    return _converted(raw, name or "crystals", symprec, n_jobs, progress)


def _of_npz(path: Path, name: str) -> Attempts:
    """Read a batch of crystals, with requested groups and failed attempts where a benchmark has written them."""
    crystals = CrystalBatch.load(path)
    with np.load(path, allow_pickle=False) as file:
        if not {"rows", "requested", "failures"} <= set(file.files):
            return _of_batch(crystals, name, crystals.G)
        rows, requested, reasons = file["rows"], file["requested"], file["failures"].tolist()
    entries = _of_batch(crystals, name, crystals.G)
    kept = rows[entries.rows]
    failures = {row: reason for row, reason in enumerate(reasons) if reason}
    failures |= {int(rows[row]): reason for row, reason in entries.failures.items()}
    places = [f"row {row}" for row in range(len(reasons))]
    return replace(entries, rows=kept, failures=failures, groups=requested.astype(np.int64), places=places)


def _of_batch(crystals: CrystalBatch, name: str, requested: NDArray[np.int64]) -> Attempts:
    """Take a batch as it is, but for rows that break the grammar."""
    failures = {}
    for row, crystal in enumerate(crystals):
        try:
            check_crystal(*crystal.arrays)
        except (ValueError, IndexError) as error:
            failures[row] = str(error)
    rows = np.array([row for row in range(len(crystals)) if row not in failures], np.int64)
    places = [f"row {row}" for row in range(len(crystals))]
    none = np.zeros(0, np.int64)
    return Attempts(name, crystals[rows], rows, [], none, failures, {}, requested.astype(np.int64), places)


def _item(item: Any) -> Any:
    return Unreadable("the attempt gave nothing") if item is None else item


def _converted(raw: Iterable[Raw], name: str, symprec: float, n_jobs: int | None, progress: bool) -> Attempts:
    """Turn what files hold into crystals and structures, on several processes."""
    from joblib import Parallel, delayed
    from tqdm import tqdm

    given = list(raw)
    chunks = [[one.item for one in given[start : start + _CHUNK]] for start in range(0, len(given), _CHUNK)]
    serial = n_jobs == 1 or len(given) < _WORTH_IT
    jobs = Parallel(n_jobs=1 if serial else n_jobs or -1, return_as="generator")(
        delayed(_convert)(chunk, symprec) for chunk in chunks
    )
    outcomes: list[Any] = []
    with tqdm(total=len(given), desc=f"{name}: reading", unit="entry", disable=not progress) as bar:
        for part in jobs:
            outcomes += part
            bar.update(len(part))
    crystals = {row: one for row, one in enumerate(outcomes) if isinstance(one, Crystal)}
    foreign = {row: one for row, one in enumerate(outcomes) if isinstance(one, _Foreign)}
    return Attempts(
        name,
        CrystalBatch.from_crystals(crystals.values()),
        np.array(list(crystals), np.int64),
        [one.structure for one in foreign.values()],
        np.array(list(foreign), np.int64),
        {row: one for row, one in enumerate(outcomes) if isinstance(one, str)},
        {row: one.reason for row, one in foreign.items()},
        np.array([one.requested for one in given], np.int64),
        [one.place for one in given],
    )


class _Foreign(NamedTuple):
    """A structure, and why the grammar cannot write it down."""

    structure: "Structure"
    reason: str


def _convert(items: Sequence[Any], symprec: float) -> "list[Crystal | _Foreign | str]":
    """Return crystals, structures that cannot be written down, and reasons why an item is neither."""
    return [_convert_one(item, symprec) for item in items]


def _convert_one(item: Any, symprec: float) -> "Crystal | _Foreign | str":
    from pymatgen.core import Structure

    from crystal_env.symmetry.standardise import cell_arrays, standardise

    if isinstance(item, Unreadable):
        return item.reason
    if isinstance(item, Crystal):
        return item
    try:
        source = structure_of_text(item) if isinstance(item, str) else item
        lattice, frac, numbers = cell_arrays(source)
    except ValueError as error:
        return str(error) or type(error).__name__
    try:
        return Crystal(*standardise(lattice, frac, numbers, symprec))
    except ValueError as error:
        return _Foreign(Structure(lattice, [SYMBOLS[z] for z in numbers], frac), str(error))


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
