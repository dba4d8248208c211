"""Files of scored crystals: a compressed archive of arrays, or a table with one crystal a line; both are exact.

A table (``.csv``, ``.csv.gz``) has the columns

| column | content |
|---|---|
| `crystal` | text form, exact to the last bit: see `Crystal.from_string` |
| `reward` | what is maximised |
| `total` | reward as it was given, before it was clipped to a range; by default `reward` |
| `term_NAME` | each term of the reward; a column `success`, 1 or 0, counts as `term_success` |
| `failure` | reason why the crystal could not be scored, empty where it could |
| `log_prob_PART`, `reference_log_prob_PART` | log-likelihoods in nats by the policy at sampling and by the reference policy, of letters, elements, coordinates and lattice |
| `iteration` | iteration in which the crystal was added; by default 0 |
| `source` | `policy` if the policy at sampling proposed it, else `other`, the default |

Only `crystal` and `reward` are needed, and columns of other names are passed over, so that tables of samples
(``crystals.csv`` of ``crystalgen sample`` and ``crystalgen mcmc``) can be read, too.

An archive (``.npz``) holds the arrays of a `CrystalBatch`, which `CrystalBatch.load` reads, and those of `Transitions`
and its result under their names, with ``term_NAME`` for each term; ``rewards`` alone is needed.
"""  # noqa: E501

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from agents.training.transitions import PARTS, Transitions
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.errors import InputError, MissingFileError
from crystal_env.files import atomic_write
from crystal_env.reward import RewardResult

_SUFFIXES = (".npz", ".csv", ".csv.gz")
_BATCH = ("G", "W", "A", "XYZ", "L")
_TERM = "term_"
_LIKELIHOODS = {kind: [f"{kind}_{part}" for part in PARTS] for kind in ("log_prob", "reference_log_prob")}
_SOURCES = ("other", "policy")
_DAMAGE = (OSError, EOFError, UnicodeDecodeError, zlib.error, zipfile.BadZipFile)


def write_transitions(path: str | Path, data: Transitions) -> None:
    """Write scored crystals into a file, which is replaced whole or not at all.

    Raises:
        ValueError: if the suffix is none of ``.npz``, ``.csv`` and ``.csv.gz``.
    """
    write = _write_arrays if _suffix(path) == ".npz" else _write_table
    atomic_write(path, lambda file: write(file, data, is_packed=_suffix(path) == ".csv.gz"))


def read_transitions(path: str | Path) -> Transitions:
    """Read scored crystals from a file; log-likelihoods that it lacks are NaN.

    Raises:
        MissingFileError: if there is no such file.
        InputError: naming the file and its line or row, and what is wrong with it.
    """
    suffix, path = _suffix(path), Path(path)
    if not path.is_file():
        raise MissingFileError(f"no such file: {path}")
    try:
        return _read_arrays(path) if suffix == ".npz" else _read_table(path)
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged or no {suffix} file: {type(error).__name__}: {error}") from error


def _suffix(path: str | Path) -> str:
    for suffix in _SUFFIXES:
        if str(path).endswith(suffix):
            return suffix
    raise InputError(f"path must end with one of {_SUFFIXES}, got {str(path)!r}")


# arrays


def _write_arrays(file: BinaryIO, data: Transitions, is_packed: bool) -> None:
    arrays = dict(zip(_BATCH, data.crystals.arrays, strict=True))
    arrays |= {name: getattr(data, name) for name in ("rewards", *_LIKELIHOODS, "iteration", "is_sampled")}
    arrays |= {"total": data.result.total, "failures": np.array([f or "" for f in data.result.failures], np.str_)}
    arrays |= {_TERM + name: values for name, values in data.result.terms.items()}
    np.savez_compressed(file, allow_pickle=False, **arrays)


def _read_arrays(path: Path) -> Transitions:
    arrays = _arrays(path)
    n = arrays["rewards"].size
    defaults = {
        "total": arrays["rewards"], "failures": np.full(n, ""), "iteration": np.zeros(n, np.int64),
        "is_sampled": np.zeros(n, bool), **{name: np.full((n, len(PARTS)), np.nan) for name in _LIKELIHOODS},
    }  # fmt: skip
    arrays = {**defaults, **arrays}
    terms = [name for name in arrays if name.startswith(_TERM)]
    numbers = ("rewards", "total", *terms)
    shapes = {name: (n,) for name in (*numbers, "failures", "iteration", "is_sampled")}
    for name, shape in {**shapes, **dict.fromkeys(_LIKELIHOODS, (n, len(PARTS)))}.items():
        if arrays[name].shape != shape:
            raise InputError(f"{path}: {name} must have shape {shape}, got {arrays[name].shape}")
    texts, integers = ("failures",), ("G", "W", "A", "iteration")
    for name in (*_BATCH, *_LIKELIHOODS, *shapes):
        kinds = "U" if name in texts else "iu" if name in integers else "b" if name == "is_sampled" else "iuf"
        if arrays[name].dtype.kind not in kinds:
            raise InputError(f"{path}: {name} must be of a dtype of kind {kinds!r}, got {arrays[name].dtype}")
    for name in numbers:
        for row in np.flatnonzero(~np.isfinite(arrays[name])):
            raise InputError(f"row {row} of {path}: {name} must be a finite number, got {arrays[name][row]}")
    return Transitions(
        _checked(path, arrays, n),
        arrays["rewards"].astype(np.float64),
        _result(arrays["total"], {name: arrays[name] for name in terms}, arrays["failures"].tolist()),
        arrays["log_prob"].astype(np.float64),
        arrays["reference_log_prob"].astype(np.float64),
        arrays["iteration"].astype(np.int64),
        arrays["is_sampled"],
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an archive, none of which is unpickled."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no npz archive")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except ValueError as error:
        raise InputError(f"{path} must hold arrays of numbers and texts: {error}") from error
    if missing := sorted({*_BATCH, "rewards"} - set(arrays)):
        raise InputError(f"{path} needs arrays {missing}, it has {sorted(arrays)}")
    return arrays


def _checked(path: Path, arrays: dict[str, NDArray[Any]], n: int) -> CrystalBatch:
    """Return crystals (n,), each of them checked."""
    try:
        batch = CrystalBatch(*(arrays[name] for name in _BATCH))
        if len(batch) != n:
            raise InputError(f"G must have shape ({n},), got ({len(batch)},)")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    crystals = []
    for row, crystal in enumerate(batch):
        try:
            crystals.append(Crystal(*crystal.arrays))
        except InputError as error:
            raise InputError(f"row {row} of {path}: {error}") from error
    return CrystalBatch.from_crystals(crystals)


# tables


def _write_table(file: BinaryIO, data: Transitions, is_packed: bool) -> None:
    packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if is_packed else None
    text = io.TextIOWrapper(packed or file, "utf-8", newline="", write_through=True)
    terms = data.result.terms
    table = csv.writer(text, lineterminator="\n")
    likelihoods = [name for names in _LIKELIHOODS.values() for name in names]
    names = [*(_TERM + name for name in terms), "failure", *likelihoods, "iteration", "source"]
    table.writerow(["crystal", "reward", "total", *names])
    numbers = np.column_stack([data.rewards, data.result.total, *terms.values()]).tolist()
    by_part = np.column_stack([data.log_prob, data.reference_log_prob]).tolist()
    for row, crystal in enumerate(data.crystals):
        source = _SOURCES[int(data.is_sampled[row])]
        failure = data.result.failures[row] or ""
        table.writerow([crystal, *numbers[row], failure, *by_part[row], data.iteration[row], source])
    text.detach()
    if packed is not None:
        packed.close()


def _read_table(path: Path) -> Transitions:
    with _opened(path) as text:
        lines = csv.reader(text, strict=True)
        header = [{"success": _TERM + "success"}.get(name, name) for name in next(lines, [])]
        readers = _readers(path, header)
        columns: dict[str, list[Any]] = {name: [] for name in readers}
        places = {name: header.index(name) for name in readers}
        try:
            for cells in filter(None, lines):
                if len(cells) != len(header):
                    raise InputError(f"{len(header)} cells are needed, got {len(cells)}")
                for name, read in readers.items():
                    columns[name].append(read(name, cells[places[name]]))
        except (ValueError, csv.Error) as error:
            raise InputError(f"line {lines.line_num} of {path}: {error}") from error
    n = len(columns["crystal"])
    terms = {name: np.array(values, np.float64) for name, values in columns.items() if name.startswith(_TERM)}
    rewards = np.array(columns["reward"], np.float64)
    likelihoods = [
        np.array([columns.get(name, np.full(n, np.nan)) for name in names], np.float64).T.copy()
        for names in _LIKELIHOODS.values()
    ]
    return Transitions(
        CrystalBatch.from_crystals(columns["crystal"]),
        rewards,
        _result(np.array(columns.get("total", rewards), np.float64), terms, columns.get("failure", [""] * n)),
        likelihoods[0],
        likelihoods[1],
        np.array(columns.get("iteration", np.zeros(n)), np.int64),
        np.array(columns.get("source", np.zeros(n)), bool),
    )


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOBase]:
    """Open a table as text, packed or not; a mark of the byte order, which spreadsheets write, does not count."""
    if path.name.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as text:
            yield text  # type: ignore[misc]
    else:
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield text


def _readers(path: Path, header: list[str]) -> dict[str, Callable[[str, str], Any]]:
    """Return column -> how its cells are read, for the columns that count."""
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"line 1 of {path}: columns {twice} come twice")
    readers: dict[str, Callable[[str, str], Any]] = {"crystal": _crystal, "reward": _finite}
    if missing := [name for name in readers if name not in header]:
        raise InputError(f"line 1 of {path}: columns {missing} are needed, got {header}")
    for names in _LIKELIHOODS.values():
        present = [name for name in names if name in header]
        if present and present != names:
            raise InputError(f"line 1 of {path}: columns {names} come together, got {present}")
        readers |= dict.fromkeys(present, _number)
    readers |= {"total": _finite, "failure": _text, "iteration": _integer, "source": _source}
    readers |= dict.fromkeys([name for name in header if name.startswith(_TERM)], _finite)
    return {name: read for name, read in readers.items() if name in header}


def _crystal(name: str, cell: str) -> Crystal:
    return Crystal.from_string(cell)


def _text(name: str, cell: str) -> str:
    return cell


def _number(name: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise InputError(f"{name} must be a number, got {cell!r}") from None


def _finite(name: str, cell: str) -> float:
    value = _number(name, cell)
    if not np.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {cell!r}")
    return value


def _integer(name: str, cell: str) -> int:
    try:
        return int(np.int64(int(cell)))
    except (ValueError, OverflowError):
        raise InputError(f"{name} must be an integer, got {cell!r}") from None


def _source(name: str, cell: str) -> int:
    if cell not in _SOURCES:
        raise InputError(f"{name} must be in {_SOURCES}, got {cell!r}")
    return _SOURCES.index(cell)


def _result(total: NDArray[Any], terms: dict[str, NDArray[Any]], failures: list[str]) -> RewardResult:
    """Return the result of a reward; terms have their prefix."""
    numbers = {name.removeprefix(_TERM): values.astype(np.float64) for name, values in terms.items()}
    reasons = np.array([*(failure or None for failure in failures), None], object)[:-1]
    return RewardResult(total.astype(np.float64), numbers, reasons)
