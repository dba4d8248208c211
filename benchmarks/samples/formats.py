"""File formats of generated crystals, entry by entry; one that cannot be read does not stop the others."""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.samples.samples import Failure, Samples
from crystal_env.checks import check_crystal
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.errors import InputError

_COLUMNS = ("crystal", "cif", "structure")
_DAMAGED = (csv.Error, EOFError, OSError, zlib.error)
_BLOCK = re.compile(r"^data_", re.MULTILINE)


class Raw(NamedTuple):
    """An entry of a file.

    Attributes:
        item: a crystal, a structure, ASE atoms, a text, a path, or `Failure`.
        place: where it stands, such as ``"row 3"`` or the name of a file in a folder.
        requested: the requested space group, 0 where it is not known.
    """

    item: Any
    place: str
    requested: int = 0


def raw_entries(path: Path) -> Iterator[Raw]:
    """Yield the entries of a file or folder in order, rows counted from 0.

    Args:
        path: a folder of CIF files, of ``crystalgen sample``, or of a seed of the benchmark; an npz file of crystals or
            of samples; a CIF file of one or more blocks; a CSV file, also gzipped, with a column
            ``crystal`` (this project's text), ``cif`` or ``structure`` (pymatgen's JSON, a CIF or a POSCAR) and
            optionally ``requested_space_group`` and ``failure``; an extended XYZ file; a database of ASE; or any other
            file that ASE reads.

    Raises:
        ValueError: if there is no such file, a folder has no CIF, or a CSV has no column of structures.
    """
    if path.is_dir():
        return _files(path)
    if not path.is_file():
        raise InputError(f"no such file of structures: {path}")
    if ".csv" in path.suffixes:
        return _rows_of_csv(path, _columns(path))
    if path.suffix == ".npz":
        return _rows_of_npz(path)
    if path.suffix == ".cif":
        return _blocks(path)
    if path.suffix in (".xyz", ".extxyz"):
        return _frames(path)
    if path.suffix == ".db":
        return _rows_of_database(path)
    return _images(path)


def raw_items(items: Iterable[Any]) -> Iterator[Raw]:
    """Yield objects as entries: crystals, structures, atoms or texts, with None for a failed attempt."""
    requested = items.G.tolist() if isinstance(items, CrystalBatch) else repeat(0)
    for row, (item, group) in enumerate(zip(items, requested, strict=False)):
        checked = Failure("the attempt gave nothing") if item is None else _checked(item)
        yield Raw(checked, f"row {row}", group)


def _checked(item: Any) -> Any:
    """Return an item, of a crystal that breaks the grammar why it is none."""
    if not isinstance(item, Crystal):
        return item
    try:
        check_crystal(*item.arrays)
    except (ValueError, IndexError) as error:
        return Failure(str(error))
    return item


def _files(folder: Path) -> Iterator[Raw]:
    """Return the entries of the CIF files of a folder, or of what ``crystalgen`` has written into it.

    Raises:
        ValueError: if it holds neither.
    """
    files = sorted(folder.glob("*.cif"))
    if files:
        return (Raw(file, file.name) for file in files)
    written = [folder / name for name in ("crystals.npz", "cif") if (folder / name).exists()]
    if not written:
        raise InputError(f"folder {folder} holds no .cif files")
    return raw_entries(written[0])


def _rows_of_npz(path: Path) -> Iterator[Raw]:
    """Return the crystals of a batch, or the attempts of samples with requested groups and failures."""
    crystals = CrystalBatch.load(path)  # says what is wrong with another file
    with np.load(path, allow_pickle=False) as file:
        is_sample = {"rows", "requested", "failures"} <= set(file.files)
    return _attempts(Samples.load(path)) if is_sample else raw_items(crystals)


def _attempts(samples: Samples) -> Iterator[Raw]:
    items = {int(row): _checked(item) for row, item in zip(samples.rows, samples, strict=True)}
    items |= {row: Failure(reason) for row, reason in samples.failures.items()}
    for row, place in enumerate(samples.places):
        yield Raw(items.get(row, Failure("the attempt gave nothing")), place, int(samples.requested[row]))


def _open(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), "utf-8", errors="replace", newline="")
    return path.open(encoding="utf-8", errors="replace", newline="")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let csv read fields of any length, and leave its limit as it was."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _columns(path: Path) -> list[str]:
    """Return the names of the columns that have structures."""
    with _open(path) as file, _long_fields():
        try:
            names = next(csv.reader(file), [])
        except _DAMAGED as error:
            raise InputError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    found = [name for name in _COLUMNS if name in names]
    if not found:
        raise InputError(f"{path} needs a column {', '.join(map(repr, _COLUMNS[:-1]))} or 'structure', it has {names}")
    return found


def _rows_of_csv(path: Path, columns: list[str]) -> Iterator[Raw]:
    with _open(path) as file, _long_fields():
        rows, number = csv.DictReader(file), 0
        while True:
            place = f"row {number}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except _DAMAGED as error:
                yield Raw(Failure(f"the file is damaged here: {type(error).__name__}: {error}"), place)
                if not isinstance(error, csv.Error):
                    return
            else:
                requested = (row.get("requested_space_group") or "").strip()
                yield Raw(_cell(row, columns), place, int(requested) if requested.isdecimal() else 0)
            number += 1


def _cell(row: dict[str, Any], columns: list[str]) -> Any:
    """Return the first of the columns that is not empty: a table may have crystals in one and structures in another."""
    column = next((name for name in columns if (row.get(name) or "").strip()), None)
    if column is None:
        return Failure(row.get("failure") or f"column {columns[0]!r} is empty")
    if column != "crystal":
        return row[column]
    try:
        return Crystal.from_string(row[column].strip())
    except ValueError as error:
        return Failure(str(error))


def _blocks(path: Path) -> Iterator[Raw]:
    """Yield the blocks of a CIF that have a cell, or the whole text if there is no such block."""
    text = path.read_text(errors="replace")
    starts = [match.start() for match in _BLOCK.finditer(text)]
    parts = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    cells = [part for part in parts if "_cell_length_a" in part]
    for number, part in enumerate(cells or [text if "\n" in text else f"{text}\n"]):
        yield Raw(part, f"block {number}")


def _frames(path: Path) -> Iterator[Raw]:
    """Yield the frames of an XYZ file; after one that does not begin with its number of atoms, resume at the next."""
    from ase.io import read

    lines = path.read_text(errors="replace").splitlines(keepends=True)
    number = start = 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        place, count = f"row {number} (line {start + 1})", _count(lines[start])
        end = _next_frame(lines, start + 1) if count is None else start + 2 + count
        broken = count is None or end > len(lines) or any(_is_header(lines, at) for at in range(start + 2, end))
        if broken:
            end = _next_frame(lines, start + 1)
            yield Raw(Failure("a frame that is cut off or does not begin with its number of atoms"), place)
        else:
            try:
                yield Raw(read(io.StringIO("".join(lines[start:end])), format="extxyz"), place)
            except Exception as error:  # noqa: BLE001  ASE's readers raise whatever the text makes them stumble on
                yield Raw(Failure(f"no frame of XYZ: {type(error).__name__}: {error}"), place)
        start, number = end, number + 1


def _count(line: str) -> int | None:
    return int(line) if line.strip().isdecimal() else None


def _is_header(lines: list[str], at: int) -> bool:
    return _count(lines[at]) is not None and at + 1 < len(lines) and "Lattice=" in lines[at + 1]


def _next_frame(lines: list[str], start: int) -> int:
    return next((at for at in range(start, len(lines)) if _is_header(lines, at)), len(lines))


def _rows_of_database(path: Path) -> Iterator[Raw]:
    import ase.db

    try:
        with ase.db.connect(path) as database:
            ids = [row.id for row in database.select(include_data=False)]
    except Exception as error:
        raise InputError(f"{path} is no database of ASE: {type(error).__name__}: {error}") from error
    database = ase.db.connect(path)
    for key in ids:
        try:
            yield Raw(database.get_atoms(key), f"id {key}")
        except Exception as error:  # noqa: BLE001
            yield Raw(Failure(f"no row of ASE: {type(error).__name__}: {error}"), f"id {key}")


def _images(path: Path) -> Iterator[Raw]:
    from ase.io import iread

    images, number = iread(path, ":"), 0
    while True:
        try:
            atoms = next(images)
        except StopIteration:
            return
        except Exception as error:
            if not number:
                raise InputError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
            yield Raw(Failure(f"the file is damaged here: {type(error).__name__}: {error}"), f"row {number}")
            return
        yield Raw(atoms, f"row {number}")
        number += 1
