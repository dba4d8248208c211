"""Files of calculated energies that hulls are built from, streamed with one entry in memory at a time."""

import bz2
import gzip
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from crystal_env.elements import ATOMIC_NUMBER
from crystal_env.errors import InputError, MissingFileError
from crystal_env.files import read_table
from rewards.potentials.mp2020 import may_be_sulfate, oxide_type, scheme, sulfide_type

Corrections = Literal["as given", "none", "MP2020"]
"""Corrections of energies: those of the file, none, or the Materials Project's of 2020, recomputed."""

FORMATION = "formation_energy_per_atom"
"""The column of formation energies in eV/atom."""

_BLOCK = 1 << 16
_NOT_FINITE = re.compile(rb'(?<![\w"])-?(?:NaN|Infinity)(?![\w"])')
_ALLOWED = ("as given", "none", "MP2020")


class Entry(NamedTuple):
    """A calculation: atoms per element by symbol, and their total energy in eV."""

    composition: dict[str, float]
    energy: float


def read_entries(path: str | Path, corrections: Corrections = "as given", progress: bool = False) -> Iterator[Entry]:
    """Yield the entries of a JSON file of pymatgen ``ComputedEntry`` or ``ComputedStructureEntry`` dicts.

    The file (``.json``, ``.json.bz2`` or ``.json.gz``) holds ``{"entries": [entry, ...]}`` as those of Alexandria
    (``convex_hull_pbe_*.json.bz2``), a list, or a dict of entries as the Materials Project's elemental references.

    Args:
        path: the file.
        corrections: ``"as given"`` adds the corrections in the file, ``"none"`` omits them, ``"MP2020"`` recomputes
            them from the entry's parameters, and its structure or ``oxide_type`` where they depend on it.
        progress: show a bar with the time left.

    Raises:
        ValueError: if ``corrections`` is unknown, there is no such file, it holds no entries, or a correction cannot
            be computed.
    """
    import ijson

    path = Path(path)
    if corrections not in _ALLOWED:
        raise InputError(f"corrections must be one of {_ALLOWED}, got {corrections!r}")
    if not path.is_file():
        raise MissingFileError(f"no such file of entries: {path}")
    n_entries = 0
    try:
        for item in _items(path, progress):
            n_entries += 1
            yield _reduced(item, corrections)
    except (ijson.JSONError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} is damaged or no JSON file, after {n_entries} entries: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}, entry {n_entries}: {type(error).__name__}: {error}") from error
    if not n_entries:
        raise InputError(f"{path} holds no entries")


def read_formation_energies(path: str | Path, elements: str | Path, progress: bool = False) -> Iterator[Entry]:
    """Yield total energies from a CSV file of formation energies, and those of the elements they are relative to.

    Args:
        path: a CSV (also compressed) with the columns ``formula`` and ``formation_energy_per_atom`` (eV/atom). Rows
            without an energy are left out.
        elements: the file of the elements' entries, read as given by `read_entries`; the lowest of each counts.
        progress: show a bar with the time left.

    Raises:
        ValueError: if there is no such file, a column is missing, a formula cannot be parsed, or an element has no
            entry.
    """
    from pymatgen.core import Composition
    from tqdm import tqdm

    reference: dict[str, float] = {}
    for composition, energy in read_entries(elements):
        (symbol, amount), *others = composition.items()
        if not others:
            reference[symbol] = min(energy / amount, reference.get(symbol, float("inf")))
    yield from (Entry({symbol: 1.0}, energy) for symbol, energy in reference.items())
    table = _formation_table(Path(path))
    rows = zip(table["formula"], table[FORMATION], strict=True)
    for formula, per_atom in tqdm(rows, desc=Path(path).name, total=len(table), unit="row", disable=not progress):
        amounts = Composition(formula).get_el_amt_dict()
        if missing := sorted(amounts.keys() - reference.keys()):
            raise InputError(f"{path} has {formula}, but elements {elements} holds no entry of {', '.join(missing)}")
        atoms = sum(amounts.values())
        yield Entry(amounts, atoms * per_atom + sum(n * reference[symbol] for symbol, n in amounts.items()))


def _formation_table(path: Path) -> Any:
    """Return formulas and formation energies, without the rows that lack an energy."""
    import pandas as pd

    table = read_table(path, ["formula", FORMATION])
    table[FORMATION] = pd.to_numeric(table[FORMATION], errors="coerce")
    return table.dropna(subset=FORMATION)


def _items(path: Path, progress: bool) -> Iterator[dict[str, Any]]:
    """Yield the dicts of entries; the bar counts bytes of the file on disk."""
    import ijson
    from tqdm import tqdm

    size = path.stat().st_size
    bar = tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=not progress)
    with path.open("rb") as file, bar:
        prefix = _prefix(_decompressed(path, file))
        file.seek(0)
        stream = _decompressed(path, file)
        if prefix:
            items = ijson.items(stream, prefix, use_float=True)
        else:
            items = (item for _, item in ijson.kvitems(stream, "", use_float=True))
        for item in items:
            yield item
            bar.update(file.tell() - bar.n)
        bar.update(size - bar.n)


def _decompressed(path: Path, file: IO[bytes]) -> "_Standard":
    if path.suffix == ".bz2":
        return _Standard(bz2.BZ2File(file))
    return _Standard(gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file)


class _Standard:
    """A stream of standard JSON: null replaces numbers that are not finite, such as pymatgen's NaN uncertainties."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._rest = stream, b""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, possibly more or fewer than requested; none at the end."""
        if size == 0:
            return b""
        block = self._rest + (added := self._stream.read(_BLOCK))
        end = block.rfind(b",") + 1 if added else len(block)  # a number is never split
        self._rest = block[end:]
        if added and not end:
            return self.read(size)
        return _NOT_FINITE.sub(b"null", block[:end]) if b"NaN" in block or b"Infinity" in block else block[:end]


def _prefix(stream: "_Standard") -> str:
    """Return ijson's prefix of the entries; an empty one if they are the values of the outermost dict."""
    import ijson

    for prefix, event, _ in ijson.parse(stream):
        if event == "start_array" and prefix in ("", "entries"):
            return f"{prefix}.item".lstrip(".")
        if event == "start_map" and prefix in ATOMIC_NUMBER:
            return ""
    raise InputError("it holds neither a list of entries, nor 'entries', nor entries by element")


def _reduced(item: dict[str, Any], corrections: Corrections) -> Entry:
    """Return composition and energy of an entry's dict, whose ``correction`` is the sum of all adjustments."""
    from pymatgen.core import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of oxidation states that cannot be guessed, noble gases and so on
        composition = Composition(item["composition"]).get_el_amt_dict()
        if corrections == "MP2020":
            correction = _mp2020_correction(item)
        elif corrections == "as given":
            correction = item["correction"] if item.get("energy_adjustments") else item.get("correction", 0.0)
        else:
            correction = 0.0
        return Entry(composition, float(item["energy"] + correction))


def _mp2020_correction(item: dict[str, Any]) -> float:
    """Return the correction of an entry by its parameters, and by its structure where it depends on it."""
    from pymatgen.core import Structure
    from pymatgen.core.entries import ComputedEntry
    from pymatgen.entries.compatibility import CompatibilityError

    entry = ComputedEntry.from_dict(item | {"correction": 0.0, "energy_adjustments": []})
    symbols = entry.composition.get_el_amt_dict()
    wanted = {"oxide_type": oxide_type} if "O" in symbols and len(symbols) > 1 else {}
    if may_be_sulfate(symbols):
        wanted["sulfide_type"] = sulfide_type
    for name, of_structure in wanted.items():
        if not entry.data.get(name):
            if "structure" not in item:
                raise InputError(f"{entry.reduced_formula} needs a structure or data[{name!r}] for its correction")
            entry.data[name] = of_structure(Structure.from_dict(item["structure"]))
    try:
        return float(scheme().process_entry(entry, on_error="raise").correction)
    except CompatibilityError as error:
        raise InputError(f"{entry.reduced_formula} cannot be corrected: {str(error)[:200]}") from error
