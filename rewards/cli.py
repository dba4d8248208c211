"""The commands of this package: ``hull build``, ``hull info`` and ``hull check``."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional
from tyro.extras import subcommand_cli_from_dict

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import load_crystals
from crystal_env.elements import SYMBOLS
from crystal_env.errors import InputError, MissingFileError
from crystal_env.files import read_table
from rewards.hull.convex_hull import ConvexHull
from rewards.hull.energies import crystal_energies
from rewards.hull.file_format import DFT, Provenance
from rewards.hull.sources import FORMATION, Corrections, read_entries, read_formation_energies
from rewards.hull.validation import compare
from rewards.potentials import MP2020, PBE, Potential, load_potential

Source = Literal["auto", "structures", "entries", "formation-energies"]
"""Content of the files that a hull is built from."""


def hull_build(
    paths: Positional[tuple[Path, ...]],
    out: Path,
    source: Source = "auto",
    potential: str = "chgnet",
    device: str = "",
    weights: str = "",
    corrections: Corrections = "as given",
    elements: Path | None = None,
    scale: str = "",
    reference_set: str = "",
    date: str = "",
    n_jobs: int | None = None,
) -> None:
    """Build a hull from structures and a potential, or from calculated energies.

    Energies of a potential are cached: after an interruption, the same command resumes. Calculated energies are those
    of Alexandria (convex_hull_pbe_*.json.bz2), the Materials Project or any other JSON file of pymatgen entries, or a
    CSV file of formation energies.

    Args:
        paths: Structures (CSV files with a column cif, folders of CIF files, or any format of ASE), entries (JSON, also
            compressed), or formation energies (CSV with the columns formula and formation_energy_per_atom).
        out: Output file (npz).
        source: Content of the files, by default inferred from their names and columns.
        potential: Energy model of structures, such as chgnet or orb-v2+MP2020.
        device: Device of the potential, such as cuda, by default its own.
        weights: File of the potential's weights, by default its own.
        corrections: Corrections of entries, those of the file, none, or MP2020 recomputed.
        elements: JSON file of elemental entries, the reference of formation energies.
        scale: Scale of the energies, MP2020, PBE or another name. Required for entries with corrections as given;
            MP2020 by default for formation energies.
        reference_set: Name of the structures, by default the names of the files.
        date: Date of the build, by default today.
        n_jobs: Number of processes, by default one per core.
    """
    if not out.absolute().parent.is_dir():
        raise MissingFileError(f"out must be a file in an existing folder, got {out}")
    kinds = {_kind(path) if source == "auto" else source for path in paths}
    if len(kinds) != 1:
        raise InputError(f"paths must be one or more files of one kind, got {sorted(kinds)}: use source")
    (kind,) = kinds
    about = {
        "reference_set": reference_set or ", ".join(path.name for path in paths),
        "date": date or datetime.date.today().isoformat(),
    }
    if kind == "structures":
        model = _potential(potential, device=device, weights=weights, scale=scale)
        hull = _hull_of_structures(paths, model, n_jobs, about)
    else:
        hull = _hull_of_energies(paths, kind, corrections, elements, scale, about)
    hull.save(out)
    print(f"{out}: {hull!r}")


def _kind(path: Path) -> Source:
    """Return the content of a file, from its name and, of a table, its columns."""
    if ".json" in path.suffixes:
        return "entries"
    if ".csv" in path.suffixes and path.is_file():
        columns = read_table(path, header_only=True).columns
        if "cif" not in columns and FORMATION in columns:
            return "formation-energies"
    return "structures"


def _potential(name: str, **options: str) -> Potential:
    given = {option: value for option, value in options.items() if value}
    try:
        return load_potential(name, **given)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InputError(f"potential {name!r} does not take {given}: {error}") from error


def _hull_of_structures(
    paths: tuple[Path, ...], model: Potential, n_jobs: int | None, about: dict[str, str]
) -> ConvexHull:
    crystals = CrystalBatch.concatenate([load_crystals(path, n_jobs=n_jobs).crystals for path in paths])
    if not len(crystals):
        raise InputError("paths hold no structure")
    try:
        return ConvexHull.from_structures(crystals, model, **about, n_jobs=n_jobs, progress=True)  # type: ignore
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command resumes from here") from None


def _hull_of_energies(
    paths: tuple[Path, ...],
    kind: Source,
    corrections: Corrections,
    elements: Path | None,
    scale: str,
    about: dict[str, str],
) -> ConvexHull:
    if kind == "formation-energies":
        if elements is None:
            raise InputError("elements must name the file of elemental entries that the energies are relative to")
        if corrections != "as given":
            raise InputError(f"formation energies are as given, they get no corrections, got {corrections!r}")
        streams = [read_formation_energies(path, elements, progress=True) for path in paths]
        scale = scale or MP2020
    else:
        streams = [read_entries(path, corrections, progress=True) for path in paths]
        scale = scale or {"none": PBE, "MP2020": MP2020}.get(corrections, "")
        if not scale:
            raise InputError("scale must be given for entries with corrections as given: MP2020, PBE or another name")
    entries = list(chain.from_iterable(streams))
    versions = {package: version(package) for package in ("crystalgen", "numpy", "pymatgen")}
    return ConvexHull.from_entries(
        entries, Provenance(DFT, corrections, n_structures=len(entries), versions=versions, scale=scale, **about)
    )


def hull_info(hull: Positional[str]) -> None:
    """Print the content and provenance of a hull.

    Args:
        hull: Name of a shipped hull, such as mp20-chgnet, or a file.
    """
    loaded = ConvexHull.load(hull)
    missing = [SYMBOLS[z] for z in sorted({*range(1, len(SYMBOLS))} - set(loaded.elements()))]
    print(f"formulas: {len(loaded)}\nelements: {len(loaded.elements())}\nunknown elements: {' '.join(missing)}")
    for name, value in asdict(loaded.provenance).items():
        print(f"{name}: {value}")


def hull_check(
    paths: Positional[tuple[Path, ...]],
    hull: str = "mp20-chgnet",
    potential: str = "chgnet",
    device: str = "",
    weights: str = "",
    scale: str = "",
    threshold: float = 0.1,
    n_jobs: int | None = None,
) -> None:
    """Validate a potential and its hull against the column ``e_above_hull`` of CSV files.

    Args:
        paths: CSV files with the columns ``cif`` and ``e_above_hull`` (eV/atom, may be empty).
        hull: Name of a shipped hull, or a file.
        potential: Energy model: that of the hull, or one on its scale if the hull holds DFT energies.
        device: Device of the potential, such as cuda, by default its own.
        weights: File of the potential's weights, by default its own.
        scale: Scale of a potential that does not state it.
        threshold: Highest energy above the hull in eV/atom that counts as stable.
        n_jobs: Number of processes, by default one per core.
    """
    finite_number("threshold", threshold)
    loaded = ConvexHull.load(hull)
    model = _potential(potential, device=device, weights=weights, scale=scale)
    loaded.check_scale(model)
    parts = [_labelled(path, n_jobs) for path in paths]
    crystals = CrystalBatch.concatenate([crystals for crystals, _ in parts])
    labels = np.concatenate([np.zeros(0), *(labels for _, labels in parts)])
    energies = crystal_energies(crystals, model, n_jobs=n_jobs, progress=True).total
    result = compare(loaded.e_above_hull(crystals.composition(), energies), labels, threshold)
    print(f"crystals with a label and an energy: {result.n} of {len(crystals)}")
    print(f"mean absolute error:   {result.mean_error:.4f} eV/atom")
    print(f"median absolute error: {result.median_error:.4f} eV/atom")
    print(f"bias:                  {result.bias:+.4f} eV/atom")
    print(f"agreement at {threshold:g} eV/atom: {result.agreement:.2%}")
    print(f"stable only here: {result.false_stable}, stable only by the labels: {result.false_unstable}")


def _labelled(path: Path, n_jobs: int | None) -> tuple[CrystalBatch, NDArray[np.float64]]:
    import pandas as pd

    table = read_table(path, ["e_above_hull"])
    labels = pd.to_numeric(table["e_above_hull"], errors="coerce").to_numpy(np.float64)
    tokens = load_crystals(path, n_jobs=n_jobs)
    return tokens.crystals, labels[tokens.index]


COMMANDS: dict[str, Any] = {"build": hull_build, "info": hull_info, "check": hull_check}
"""The sub-commands of ``crystalgen hull``."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one of the commands.

    Raises:
        InputError: if the user gave something that cannot be used.
    """
    subcommand_cli_from_dict(COMMANDS, args=args, description=__doc__)


def run(args: Sequence[str] | None = None) -> None:
    """Run ``python -m rewards.cli``: an error of the user is one line, any other one keeps its traceback."""
    try:
        main(args)
    except InputError as error:
        raise SystemExit(f"hull: {error}") from error


if __name__ == "__main__":
    run()
