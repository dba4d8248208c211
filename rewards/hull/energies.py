"""Energies of many crystals on several processes, cached on disk."""

import hashlib
import os
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import cache_folder
from crystal_env.files import atomic_write
from rewards.potentials import Energies

if TYPE_CHECKING:
    from pathlib import Path

    from rewards.potentials import Potential

_CHUNK = 256


def crystal_energies(
    crystals: CrystalBatch, potential: "Potential", *, n_jobs: int | None = 1, progress: bool = False
) -> Energies:
    """Return the energies of the primitive cells of B crystals.

    Finished chunks of 256 crystals are kept in the folder ``energies`` of ``crystal_env.dataset.cache_folder()``, under
    the potential's name and the crystals, so that an interrupted run resumes where it stopped.

    Args:
        crystals: B crystals.
        potential: the energy model.
        n_jobs: processes, None for one per core.
        progress: show a bar with the time left.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    chunks = [crystals[start : start + _CHUNK] for start in range(0, len(crystals), _CHUNK)]
    jobs = (delayed(_chunk_energies)(chunk, potential) for chunk in chunks)
    parts: list[Energies] = []
    with tqdm(total=len(crystals), desc=potential.name, unit="crystal", disable=not progress) as bar:
        for part in Parallel(n_jobs=n_jobs or os.cpu_count() or 1, return_as="generator")(jobs):
            parts.append(part)
            bar.update(len(part.total))
    return Energies(
        np.concatenate([np.zeros(0), *(part.total for part in parts)]),
        np.concatenate([np.zeros(0, object), *(part.failures for part in parts)]),
    )


def _chunk_energies(crystals: CrystalBatch, potential: "Potential") -> Energies:
    path = _cache_file(crystals, potential)
    if path.is_file():
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            failures = np.array([reason or None for reason in file["failures"].tolist()], object)
            return Energies(file["total"], failures)
    energies = potential.energies(crystals.to_atoms())
    reasons = np.array([reason or "" for reason in energies.failures], str)
    arrays = {"total": energies.total, "failures": reasons}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, partial(np.savez_compressed, allow_pickle=False, **arrays))  # type: ignore[arg-type]
    return energies


def _cache_file(crystals: CrystalBatch, potential: "Potential") -> "Path":
    digest = hashlib.sha256(potential.name.encode())
    for name in ("G", "W", "A", "XYZ", "L"):
        digest.update(getattr(crystals, name).tobytes())
    return cache_folder() / "energies" / f"{digest.hexdigest()[:32]}.npz"
