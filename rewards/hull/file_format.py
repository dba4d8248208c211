"""The file of a hull: formulas, energies, and where they come from."""

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError

DFT = "DFT"
"""The energy model of hulls that hold calculated energies, for every potential on the same scale."""

_DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Provenance:
    """Where the energies of a hull come from.

    Attributes:
        energy_model: name of the potential, or `DFT`.
        corrections: what was added to the model's energies.
        reference_set: the structures.
        n_structures: how many they are.
        date: when the energies were computed.
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
    """Return the file of a hull that the package ships, by its name, or the given path."""
    return _DATA / f"hull-{source}.npz" if str(source) in shipped_hulls() else Path(source)


def shipped_hulls() -> list[str]:
    """Return the names of the hulls in the package."""
    return sorted(path.stem.removeprefix("hull-") for path in _DATA.glob("hull-*.npz"))


def write_hull(path: str | Path, formulas: list[str], energies: NDArray[np.float64], provenance: Provenance) -> None:
    """Write one npz file; energies are rounded to 1e-6 eV/atom."""
    with Path(path).open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            formulas=np.frombuffer(" ".join(formulas).encode(), np.uint8),
            microelectronvolts=np.rint(energies * 1e6).astype(np.int32),
            provenance=np.array(json.dumps(asdict(provenance))),
        )


def read_hull(source: str | Path) -> HullData:
    """Read the file of a hull, or one that the package ships by its name.

    Raises:
        ValueError: if there is no such hull, or the file is none.
    """
    path = hull_path(source)
    if not path.is_file():
        raise InputError(f"hull must be a file or one of {shipped_hulls()}, got {str(source)!r}")
    try:
        with np.load(path, allow_pickle=False) as file:
            formulas = file["formulas"].tobytes().decode().split()
            energies = file["microelectronvolts"] / 1e6
            provenance = Provenance(**json.loads(str(file["provenance"])))
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no file of a hull: {type(error).__name__}: {error}") from error
    if energies.shape != (len(formulas),):
        raise InputError(f"{path} is damaged: {len(formulas)} formulas and {energies.shape} energies")
    return HullData(formulas, energies, provenance)
