"""Properties of each sample on its own, computed alike for crystals and for structures outside the representation.

This is the one place that distinguishes the two kinds. All arrays are (B,), in the order of the samples.
"""

from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.metrics import structures
from benchmarks.samples.samples import Samples
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.reward import Reward, Scorer
from rewards import Validity

_CHUNK = 64
_MIN_PARALLEL = 2000  # crystals whose symmetry search pays for the start of processes


class Properties(NamedTuple):
    """Properties of B samples; see `benchmarks.metrics.sample.SampleMetrics`."""

    structurally_valid: NDArray[np.bool_]
    compositionally_valid: NDArray[np.bool_]
    detected_group: NDArray[np.int64]
    e_above_hull: NDArray[np.float64]


def properties(samples: Samples, energy: Reward | None, n_jobs: int | None = 1) -> Properties:
    """Return validity, the space group at 0.01 Å and the energy above the hull of samples.

    Args:
        samples: B samples.
        energy: see `sample_energies`.
        n_jobs: processes that search for symmetry, None for one a core.
    """
    terms, name = Validity()(samples.crystals).terms, samples.name
    of_crystals = (
        terms["structural"] > 0,
        terms["compositional"] > 0,
        groups_of_crystals(samples.crystals, name, n_jobs=n_jobs),
        energies_above_hull(samples.crystals, energy, name),
    )
    return Properties(*map(samples.merge, of_crystals, structures.properties(samples.structures, energy)))


def sample_energies(samples: Samples, energy: Reward | None) -> NDArray[np.float64]:
    """Return energies above the hull in eV/atom, NaN where there is none.

    Args:
        samples: the samples.
        energy: reward with the term ``e_above_hull``; None gives no energies. Of structures outside the representation
            only an `EnergyAboveHull` gives any.
    """
    others = structures.energies_above_hull(samples.structures, energy)
    return samples.merge(energies_above_hull(samples.crystals, energy, samples.name), others)


def detected_groups(samples: Samples, symprec: float = 0.01, n_jobs: int | None = 1) -> NDArray[np.int64]:
    """Return the space groups that the symmetry search finds, 0 where it finds none, as for overlapping atoms."""
    others = [structures.space_group(one, symprec) for one in samples.structures]
    return samples.merge(groups_of_crystals(samples.crystals, samples.name, symprec, n_jobs), others)


def fixed_order(samples: Samples | CrystalBatch, energies: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions by energy above the hull (B,), those without one last, and then by their text."""
    texts = [str(one) if isinstance(one, Crystal) else structures.text_of(one) for one in samples]
    return np.lexsort((np.array(texts or [""], str)[: len(texts)], energies))  # NaN sorts last


def energies_above_hull(crystals: CrystalBatch, energy: Reward | None, name: str = "crystals") -> NDArray[np.float64]:
    """Return energies above the hull of crystals (B,) in eV/atom, NaN where a crystal could not be scored."""
    result = np.full(len(crystals), np.nan)
    if energy is None:
        return result
    scorer = Scorer(energy, floor=0.0)
    with tqdm(total=len(crystals), desc=f"{name}: energies", unit="crystal") as bar:
        for start in range(0, len(crystals), _CHUNK):
            scores = scorer(crystals[start : start + _CHUNK])
            scored = scores.scored
            if scored.any():
                result[start + np.flatnonzero(scored)] = scores.terms["e_above_hull"][scored]
            bar.update(len(scored))
    return result


def groups_of_crystals(
    crystals: CrystalBatch, name: str = "crystals", symprec: float = 0.01, n_jobs: int | None = 1
) -> NDArray[np.int64]:
    """Return the space groups (B,) that the symmetry search finds for crystals, 0 where it finds none."""
    from joblib import Parallel, delayed

    starts = range(0, len(crystals), _CHUNK)
    parallel = Parallel(n_jobs=1 if len(crystals) < _MIN_PARALLEL else n_jobs or -1, return_as="generator")
    parts = parallel(delayed(_detect)(crystals[start : start + _CHUNK], symprec) for start in starts)
    groups = [np.zeros(0, np.int64)]
    with tqdm(total=len(crystals), desc=f"{name}: symmetry", unit="crystal") as bar:
        for part in parts:
            groups.append(part)
            bar.update(len(part))
    return np.concatenate(groups)


def _detect(crystals: CrystalBatch, symprec: float) -> NDArray[np.int64]:
    groups = np.zeros(len(crystals), np.int64)
    for row, atoms in enumerate(crystals.to_atoms()):
        with suppress(ValueError):
            groups[row] = Crystal.from_structure(atoms, symprec).G
    return groups
