"""The commands of this package: ``hull build``, ``hull info`` and ``hull check``."""

import datetime
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional
from tyro.extras import subcommand_cli_from_dict

from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import load_crystals
from crystal_env.errors import InputError
from rewards.hull.sources import FORMATION, Corrections, read_entries, read_formation_energies
from rewards.potentials.interface import MP2020, PBE

if TYPE_CHECKING:
    from rewards.hull.convex_hull import ConvexHull
    from rewards.potentials import Potential


Source = Literal["auto", "structures", "entries", "formation-energies"]
"""What files for a hull hold."""


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
    """Build a hull from structures and a potential, or from calculated energies, and write it to a file.

    Energies of a potential stay in the cache folder: interrupted, the same command goes on where it stopped.
    Calculated energies are those of Alexandria (convex_hull_pbe_*.json.bz2), the Materials Project or any other JSON
    file of pymatgen entries, or a CSV file of formation energies.

    Args:
        paths: structures (CSV files with a column cif, folders of CIF files, or anything ASE reads), entries (JSON,
            also compressed), or formation energies (CSV with the columns formula and formation_energy_per_atom).
        out: the npz file to write.
        source: what the files hold, by default told from their names and columns.
        potential: the energy model of structures, such as chgnet or orb-v2+MP2020.
        device: where the potential runs, such as cuda, by default its own.
        weights: a file of the potential's weights, by default its own.
        corrections: which corrections entries get, those of the file, none, or MP2020 computed anew.
        elements: JSON file of the elements' entries, which formation energies are relative to.
        scale: the scale of the energies, MP2020, PBE or another name. Entries with corrections as given need it;
            formation energies are MP2020 by default.
        reference_set: name of the structures, by default the names of the files.
        date: date of the build, by default today.
        n_jobs: processes, by default one per core.
    """
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
    """Return what a file holds, from its name and, of a table, its columns."""
    if ".json" in path.suffixes:
        return "entries"
    if ".csv" in path.suffixes and path.is_file():
        import pandas as pd

        columns = pd.read_csv(path, nrows=0).columns
        if "cif" not in columns and FORMATION in columns:
            return "formation-energies"
    return "structures"


def _potential(name: str, **options: str) -> "Potential":
    from rewards.potentials import load_potential

    given = {option: value for option, value in options.items() if value}
    try:
        return load_potential(name, **given)
    except TypeError as error:
        raise InputError(f"potential {name!r} does not take {given}: {error}") from error


def _hull_of_structures(
    paths: tuple[Path, ...], model: "Potential", n_jobs: int | None, about: dict[str, str]
) -> "ConvexHull":
    from rewards.hull.convex_hull import ConvexHull

    crystals = CrystalBatch.concatenate([load_crystals(path, n_jobs=n_jobs).crystals for path in paths])
    if not len(crystals):
        raise InputError("paths hold no structure")
    try:
        return ConvexHull.from_structures(crystals, model, **about, n_jobs=n_jobs, progress=True)  # type: ignore
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command goes on from here") from None


def _hull_of_energies(
    paths: tuple[Path, ...],
    kind: Source,
    corrections: Corrections,
    elements: Path | None,
    scale: str,
    about: dict[str, str],
) -> "ConvexHull":
    from rewards.hull.convex_hull import ConvexHull
    from rewards.hull.file_format import DFT, Provenance

    if kind == "formation-energies":
        if elements is None:
            raise InputError("elements must name the file of the elements' entries that the energies are relative to")
        if corrections != "as given":
            raise InputError(f"formation energies are as given, they get no corrections, got {corrections!r}")
        streams = [read_formation_energies(path, elements, progress=True) for path in paths]
        scale = scale or MP2020
    else:
        streams = [read_entries(path, corrections, progress=True) for path in paths]
        scale = scale or {"none": PBE, "MP2020": MP2020}.get(corrections, "")
        if not scale:
            raise InputError("scale must say what entries with corrections as given are: MP2020, PBE or another name")
    entries = list(chain.from_iterable(streams))
    versions = {package: version(package) for package in ("crystalgen", "numpy", "pymatgen")}
    return ConvexHull.from_entries(
        entries, Provenance(DFT, corrections, n_structures=len(entries), versions=versions, scale=scale, **about)
    )


def hull_info(hull: Positional[str]) -> None:
    """Print what a hull holds and where it comes from.

    Args:
        hull: name of a shipped hull, such as mp20-chgnet, or a file.
    """
    from dataclasses import asdict

    from crystal_env.elements import SYMBOLS
    from rewards.hull.convex_hull import ConvexHull

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
    """Compare a potential on its hull with the column ``e_above_hull`` of CSV files, and print the errors.

    Args:
        paths: CSV files with the columns ``cif`` and ``e_above_hull`` (eV/atom, may be empty).
        hull: name of a shipped hull, or a file.
        potential: the energy model, the one of the hull, or one on its scale if the hull holds DFT energies.
        device: where the potential runs, such as cuda, by default its own.
        weights: a file of the potential's weights, by default its own.
        scale: the scale of a potential that does not know it.
        threshold: highest energy above the hull in eV/atom that counts as stable.
        n_jobs: processes, by default one per core.
    """
    from rewards.hull.convex_hull import ConvexHull
    from rewards.hull.energies import crystal_energies
    from rewards.hull.validation import compare

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

    table = pd.read_csv(path, keep_default_na=False)  # the formula NaN is sodium nitride
    if "e_above_hull" not in table:
        raise InputError(f"{path} needs a column 'e_above_hull', it has {list(table.columns)}")
    labels = pd.to_numeric(table["e_above_hull"], errors="coerce").to_numpy(np.float64)
    tokens = load_crystals(path, n_jobs=n_jobs)
    return tokens.crystals, labels[tokens.index]


COMMANDS: dict[str, Any] = {"build": hull_build, "info": hull_info, "check": hull_check}
"""The sub-commands of ``crystalgen hull``."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one of the commands, as ``python -m rewards.cli build ...`` does."""
    subcommand_cli_from_dict(COMMANDS, args=args, description=__doc__)


if __name__ == "__main__":
    main()
