"""The file format of a hull: formulas, energies and their provenance."""

import json
import zipfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError, MissingFileError
from crystal_env.files import atomic_write

DFT = "DFT"
"""The energy model of hulls of calculated energies, valid for every potential on the same scale."""

_DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Provenance:
    """Provenance of the energies of a hull.

    Attributes:
        energy_model: name of the potential, or `DFT`.
        corrections: corrections added to the model's energies.
        reference_set: name of the reference structures.
        n_structures: their number.
        date: date of the calculation.
        versions: package -> version.
        scale: the scale of the energies, ``"MP2020"``, ``"PBE"``, or the name of any other.
    """

    energy_model: str = ""
    corrections: str = "none"
    reference_set: str = ""
    n_structures: int = 0
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    scale: str = ""


class HullData(NamedTuple):
    """Formulas, energies per atom (N,) in eV, and provenance."""

    formulas: list[str]
    energies: NDArray[np.float64]
    provenance: Provenance


def hull_path(source: str | Path) -> Path:
    """Return the file of a hull shipped with the package, by name, or the given path."""
    return _DATA / f"hull-{source}.npz" if str(source) in shipped_hulls() else Path(source)


def shipped_hulls() -> list[str]:
    """Return the names of the hulls in the package."""
    return sorted(path.stem.removeprefix("hull-") for path in _DATA.glob("hull-*.npz"))


def write_hull(path: str | Path, formulas: list[str], energies: NDArray[np.float64], provenance: Provenance) -> None:
    """Write one npz file, whole or not at all; energies are rounded to 1e-6 eV/atom."""
    arrays: dict[str, NDArray[Any]] = {
        "formulas": np.frombuffer(" ".join(formulas).encode(), np.uint8),
        "microelectronvolts": np.rint(energies * 1e6).astype(np.int32),
        "provenance": np.array(json.dumps(asdict(provenance))),
    }
    atomic_write(path, partial(np.savez_compressed, allow_pickle=False, **arrays))  # type: ignore[arg-type]


def read_hull(source: str | Path) -> HullData:
    """Read a hull file, or a hull shipped with the package, by name.

    Raises:
        ValueError: if there is no such hull, or the file is not a hull file.
    """
    path = hull_path(source)
    if not path.is_file():
        raise MissingFileError(f"hull must be a file or one of {shipped_hulls()}, got {str(source)!r}")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            formulas = file["formulas"].tobytes().decode().split()
            energies = file["microelectronvolts"] / 1e6
            provenance = Provenance(**json.loads(str(file["provenance"])))
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a hull file: {type(error).__name__}: {error}") from error
    if energies.shape != (len(formulas),):
        raise InputError(f"{path} is damaged: {len(formulas)} formulas and {energies.shape} energies")
    return HullData(formulas, energies, provenance)
