"""Energies of many crystals on several processes, cached on disk."""

import os
from typing import TYPE_CHECKING

import numpy as np

from crystal_env.crystal import CrystalBatch
from rewards.hull.energy_cache import EnergyCache
from rewards.potentials import Energies

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rewards.potentials import Potential

_CHUNK = 256
_MIN_PIECE = 16  # crystals; models evaluate them in batches


def crystal_energies(
    crystals: CrystalBatch, potential: "Potential", *, n_jobs: int | None = 1, progress: bool = False
) -> Energies:
    """Return the energies of the primitive cells of B crystals.

    Finished chunks of 256 crystals are kept on disk, see `EnergyCache`, so that an interrupted run resumes where it
    stopped.

    Args:
        crystals: B crystals.
        potential: the energy model.
        n_jobs: processes, None for one per core.
        progress: show a bar with the time left.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    n_jobs, cache = n_jobs or os.cpu_count() or 1, EnergyCache(potential)
    total, failures = np.full(len(crystals), np.nan), np.full(len(crystals), None, object)
    pieces: list[tuple[slice, NDArray[np.int64], bool]] = []
    for start in range(0, len(crystals), _CHUNK):
        chunk = slice(start, min(start + _CHUNK, len(crystals)))
        total[chunk] = cache.read(crystals[chunk])
        missing = start + np.flatnonzero(np.isnan(total[chunk]))
        parts = np.array_split(missing, max(1, min(n_jobs, len(missing) // _MIN_PIECE)))
        pieces += [(chunk, rows, rows is parts[-1]) for rows in parts if len(rows)]
    jobs = (delayed(_energies)(crystals[rows], potential) for _, rows, _ in pieces)
    n_known = len(crystals) - sum(len(rows) for _, rows, _ in pieces)
    with tqdm(total=len(crystals), initial=n_known, desc=potential.name, unit="crystal", disable=not progress) as bar:
        results = Parallel(n_jobs=min(n_jobs, max(len(pieces), 1)), return_as="generator")(jobs)
        for (chunk, rows, is_last), part in zip(pieces, results, strict=True):
            total[rows], failures[rows] = part
            if is_last:
                cache.write(crystals[chunk], total[chunk])
            bar.update(len(rows))
    return Energies(total, failures)


def _energies(crystals: CrystalBatch, potential: "Potential") -> Energies:
    return potential.energies(crystals.to_atoms())
