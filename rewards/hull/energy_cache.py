"""Energies on disk, by potential and crystals; what cannot be read or written is computed, with one warning."""

import json
import re
import warnings
import zipfile
import zlib
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import cache_folder
from crystal_env.files import atomic_write
from rewards.potentials import Potential
from rewards.potentials.identity import identity

_FORMAT = 2  # raise it when the energy of an unchanged crystal by an unchanged potential changes
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)
ABOUT_FILE = "about.json"
"""The file that says whose energies a folder holds."""


class EnergyCache:
    """Energies of batches of crystals by one potential, a file each in a folder of the potential.

    The folder is ``energies/NAME-DIGEST`` in `cache_folder`, where the digest is that of `identity`: other weights,
    arguments, code or versions are another potential. A potential without an identity has no cache. Only energies are
    kept; a structure that failed is computed again.

    Args:
        potential: the potential.
    """

    def __init__(self, potential: Potential) -> None:
        self._folder: Path | None = None
        self._about, self._has_warned = identity(potential), False
        if self._about is not None:
            text = json.dumps({"format": _FORMAT, **self._about}, sort_keys=True)
            name = re.sub(r"[^\w.+@-]", "_", potential.name)[:60]
            self._folder = cache_folder() / "energies" / f"{name}-{sha256(text.encode()).hexdigest()[:16]}"

    def read(self, crystals: CrystalBatch) -> NDArray[np.float64]:
        """Return the energies (B,) of a batch in eV, NaN where they are not known."""
        unknown = np.full(len(crystals), np.nan)
        if self._folder is None:
            return unknown
        path = self._file(self._folder, crystals)
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                total: NDArray[np.float64] = file["total"].astype(np.float64)
            if total.shape != unknown.shape:
                raise ValueError(f"it holds energies of shape {total.shape}")
        except (FileNotFoundError, NotADirectoryError):
            return unknown
        except _UNREADABLE as error:
            self._warn(f"{path} is damaged, its energies are computed again: {type(error).__name__}: {error}")
            return unknown
        return total

    def write(self, crystals: CrystalBatch, total: NDArray[np.float64]) -> None:
        """Keep the energies (B,) of a batch in eV, NaN where there is none."""
        if self._folder is None:
            return
        arrays: dict[str, Any] = {"total": total}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not (self._folder / ABOUT_FILE).is_file():
                atomic_write(self._folder / ABOUT_FILE, json.dumps(self._about, indent=2) + "\n")
            write = partial(np.savez_compressed, allow_pickle=False, **arrays)
            atomic_write(self._file(self._folder, crystals), write)
        except OSError as error:
            self._warn(f"energies are not kept: {error}")

    @staticmethod
    def _file(folder: Path, crystals: CrystalBatch) -> Path:
        content = sha256()
        for array in crystals.arrays:
            content.update(np.ascontiguousarray(array).tobytes())
        return folder / f"{content.hexdigest()[:32]}.npz"

    def _warn(self, text: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(text, RuntimeWarning, stacklevel=4)
