"""Distances between the distributions of a sample and of a reference, and diversities of a sample."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.symmetry.canonical import wyckoff_template
from crystal_env.wyckoff import N_ELEMENTS, N_GROUPS
from rewards.screen import cell_thickness

_MAX_COMPARED = 1000  # crystals that coverage compares with
_NEAR = 0.95  # fraction of the test set that the known crystals cover
_MIN_THICKNESS = 0.5  # Å between opposite faces of a cell


def distribution(crystals: CrystalBatch, reference: CrystalBatch) -> dict[str, float]:
    """Return distances of distributions, new Wyckoff templates and diversities of B crystals, by name.

    - ``jsd_space_groups`` and ``jsd_elements``: Jensen-Shannon divergences in bits, between 0 and 1; an element counts
      once a crystal.
    - ``templates`` and ``new_template_fraction``: the number of Wyckoff templates, and the fraction of them that the
      reference does not have.
    - ``vendi_elements`` and ``vendi_templates``: effective numbers of different crystals (Friedman and Dieng, TMLR
      2023), the kernel being the cosine of the compositions, and whether templates are the same.

    Args:
        crystals: B crystals; rows without a site are left out.
        reference: what they are compared with; without crystals in it, distances to it are left out.
    """
    crystals = crystals[crystals.n_sites() > 0]
    if not len(crystals):
        return {}
    mine = Counter(wyckoff_template(crystal) for crystal in crystals)
    known = {wyckoff_template(crystal) for crystal in reference}
    result = {}
    if len(reference):
        result["jsd_space_groups"] = divergence(crystals.G, reference.G, N_GROUPS + 1)
        result["jsd_elements"] = divergence(_elements(crystals), _elements(reference), N_ELEMENTS + 1)
    result["templates"] = float(len(mine))
    if len(reference):
        result["new_template_fraction"] = len(set(mine) - known) / len(mine)
    fractions = crystals.composition().astype(np.float64)
    fractions /= np.maximum(np.linalg.norm(fractions, axis=1, keepdims=True), 1e-12)
    result["vendi_elements"] = vendi(np.linalg.svd(fractions, compute_uv=False) ** 2 / len(crystals))
    result["vendi_templates"] = vendi(np.array([*mine.values()]) / len(crystals))
    return result


def divergence(values: NDArray[Any], others: NDArray[Any], size: int) -> float:
    """Return the Jensen-Shannon divergence in bits of two samples of numbers below ``size``."""
    return jensen_shannon(*(np.bincount(sample, minlength=size) for sample in (values, others)))


def jensen_shannon(p: NDArray[Any], q: NDArray[Any]) -> float:
    """Return the Jensen-Shannon divergence in bits, 0 for equal and 1 for disjoint distributions.

    Args:
        p: counts or probabilities (K,) that are not all zero.
        q: likewise.
    """
    from scipy.special import rel_entr

    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return float((rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / (2 * np.log(2)))


def vendi(eigenvalues: NDArray[np.float64]) -> float:
    """Return the Vendi score from the eigenvalues, of sum 1, of a similarity matrix divided by its size."""
    p = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(p * np.log(p)).sum()))


def covered(crystals: CrystalBatch, test: CrystalBatch, known: CrystalBatch) -> dict[str, float]:
    """Return ``coverage_recall`` and ``coverage_precision`` of crystals and a test set, and the ``coverage_cutoff``.

    The cutoff is the distance within which 95 % of the test set have a known crystal, by `amd_fingerprint`: CDVAE's own
    fingerprints and cutoffs need matminer. Of test set and known crystals, 1,000 each are taken, evenly spread.
    """
    from scipy.spatial import cKDTree

    test, known = (batch[:: max(1, len(batch) // _MAX_COMPARED)][:_MAX_COMPARED] for batch in (test, known))
    if not len(test) or not len(known):
        return {}
    nearest = cKDTree(amd_fingerprint(known)).query(amd_fingerprint(test))[0]
    cutoff = float(np.quantile(nearest, _NEAR))
    recall, precision = coverage(crystals, test, amd_fingerprint, cutoff)
    return {"coverage_recall": recall, "coverage_precision": precision, "coverage_cutoff": cutoff}


def coverage(
    crystals: CrystalBatch,
    reference: CrystalBatch,
    fingerprint: Callable[[CrystalBatch], NDArray[np.float64]],
    cutoff: float,
) -> tuple[float, float]:
    """Return recall and precision: the fraction of the reference near a crystal, and of crystals near the reference.

    Args:
        crystals: B crystals.
        reference: R crystals that should be covered, of a test set.
        fingerprint: numbers (n, d) of crystals, such as `amd_fingerprint`.
        cutoff: Euclidean distance that counts as near.
    """
    from scipy.spatial import cKDTree

    if not len(crystals) or not len(reference):
        return 0.0, 0.0
    mine, known = fingerprint(crystals), fingerprint(reference)
    recall = cKDTree(mine).query(known)[0] <= cutoff
    precision = cKDTree(known).query(mine)[0] <= cutoff
    return float(recall.mean()), float(precision.mean())


def amd_fingerprint(crystals: CrystalBatch, k: int = 24) -> NDArray[np.float64]:
    """Return average minimum distances and compositions of crystals (B, k + 118): continuous, and without a setting.

    The first k numbers are the mean distances in Å of atoms to their first k neighbours (Widdowson et al., MATCH 87,
    529 (2022)), divided by sqrt(k) to make their root mean square, and 0 where a cell is flatter than 0.5 Å, which has
    too many neighbours to count; the others are element fractions.
    """
    from ase.neighborlist import neighbor_list

    fractions = crystals.composition()[:, 1:] / np.maximum(crystals.n_atoms()[:, None], 1)
    rows = np.zeros((len(crystals), k))
    proper = cell_thickness(crystals) >= _MIN_THICKNESS
    for row, atoms in enumerate(crystals.to_atoms()):
        if not proper[row]:
            continue
        radius = 1.3 * (3 * (k + 1) * atoms.get_volume() / len(atoms) / (4 * np.pi)) ** (1 / 3)
        while True:
            centre, distance = neighbor_list("id", atoms, radius)
            counts = np.bincount(centre, minlength=len(atoms))
            if counts.min() >= k:
                break
            radius *= 1.3
        order = np.lexsort((distance, centre))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        rows[row] = distance[order][starts[:, None] + np.arange(k)].mean(0)
    return np.concatenate([rows / np.sqrt(k), fractions], axis=1)


def _elements(crystals: CrystalBatch) -> NDArray[np.int64]:
    """Return the elements of all crystals one after the other, each once a crystal."""
    return np.nonzero(crystals.composition())[1]
