"""What generated crystals are worth: validity, energy, uniqueness and novelty, one by one and as shares."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import Reward, Scorer
from rewards import EnergyAboveHull, Validity

_STABLE = 0.1  # eV/atom
_GAP = 0.2  # eV/atom: deeper below the hull, the hull lacks a phase or the potential fails
_ON_HULL = 1e-4  # eV/atom: float32 noise of the energy of a phase that is on the hull
_CHUNK = 64


class Examination(NamedTuple):
    """What is known of B crystals.

    Attributes:
        crystals: the crystals.
        structural (B,): whether no atoms are closer than 0.5 Å.
        compositional (B,): whether charges can be neutral, by SMACT.
        found (B,): whether the symmetry search finds the space group that was asked for.
        e_above_hull (B,): in eV/atom, NaN where it could not be computed.
        label (B,): row of the first crystal of the same structure.
        novel (B,): whether no training crystal has the same structure.
    """

    crystals: CrystalBatch
    structural: NDArray[np.bool_]
    compositional: NDArray[np.bool_]
    found: NDArray[np.bool_]
    e_above_hull: NDArray[np.float64]
    label: NDArray[np.int64]
    novel: NDArray[np.bool_]


def examine(
    crystals: CrystalBatch, training: CrystalBatch, energy: Reward | None = None, name: str = "crystals"
) -> Examination:
    """Look at crystals from all sides; one that breaks a tool counts against it and does not stop the others.

    Args:
        crystals: B crystals.
        training: crystals that are not novel.
        energy: reward with the term ``e_above_hull``, by default `rewards.EnergyAboveHull`.
        name: of the crystals, for the progress bars.
    """
    validity = Validity()(crystals).terms
    return Examination(
        crystals,
        validity["structural"] > 0,
        validity["compositional"] > 0,
        space_group_found(crystals, name),
        energies_above_hull(crystals, energy or EnergyAboveHull(), name),
        structure_labels(crystals, name),
        is_novel(crystals, training, name),
    )


def space_group_found(crystals: CrystalBatch, name: str = "crystals") -> NDArray[np.bool_]:
    """Return whether the symmetry search, at 0.01 Å, gives crystals their own space group (B,)."""
    found = np.zeros(len(crystals), bool)
    for row, atoms in enumerate(tqdm(crystals.to_atoms(), desc=f"{name}: symmetry", unit="crystal")):
        try:
            crystal = Crystal.from_structure(atoms, symprec=0.01)
        except ValueError:  # such as overlapping atoms: not found
            continue
        found[row] = crystals.G[row] == crystal.G
    return found


def energies_above_hull(crystals: CrystalBatch, energy: Reward, name: str = "crystals") -> NDArray[np.float64]:
    """Return energies above the hull (B,) in eV/atom, NaN where a crystal could not be scored."""
    scorer, result = Scorer(energy, floor=0.0), np.full(len(crystals), np.nan)
    with tqdm(total=len(crystals), desc=f"{name}: energies", unit="crystal") as bar:
        for start in range(0, len(crystals), _CHUNK):
            scores = scorer(crystals[start : start + _CHUNK])
            scored = np.array([failure is None for failure in scores.failures], bool)
            if scored.any():
                result[start + np.flatnonzero(scored)] = scores.terms["e_above_hull"][scored]
            bar.update(len(scored))
    return result


def structure_labels(crystals: CrystalBatch, name: str = "crystals") -> NDArray[np.int64]:
    """Return for every crystal (B,) the row of the first one with the same structure, its own if there is none.

    Structures of one reduced formula are compared by pymatgen's ``StructureMatcher()``.
    """
    labels = np.arange(len(crystals))
    distinct: dict[bytes, list[tuple[int, Any]]] = {}
    formulas = _formulas(crystals)
    amounts = Counter(formulas)
    for row, formula in enumerate(tqdm(formulas, desc=f"{name}: uniqueness", unit="crystal")):
        if amounts[formula] == 1:
            continue
        structure = crystals[row].to_structure(primitive=True)
        bucket = distinct.setdefault(formula, [])
        labels[row] = next((first for first, other in bucket if _same(structure, other)), row)
        if labels[row] == row:
            bucket.append((row, structure))
    return labels


def is_novel(crystals: CrystalBatch, training: CrystalBatch, name: str = "crystals") -> NDArray[np.bool_]:
    """Return whether no training crystal of the same reduced formula has the same structure (B,)."""
    formulas = _formulas(crystals)
    known: dict[bytes, list[Any]] = {formula: [] for formula in formulas}
    rows = [row for row, formula in enumerate(_formulas(training)) if formula in known]
    relevant = training[np.array(rows, np.int64)]
    for formula, structure in zip(_formulas(relevant), relevant.to_structures(primitive=True), strict=True):
        known[formula].append(structure)
    novel = np.ones(len(crystals), bool)
    for row, formula in enumerate(tqdm(formulas, desc=f"{name}: novelty", unit="crystal")):
        if known[formula]:
            structure = crystals[row].to_structure(primitive=True)
            novel[row] = not any(_same(structure, other) for other in known[formula])
    return novel


def _same(structure: Any, other: Any) -> bool:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    try:
        return bool(StructureMatcher().fit(structure, other))
    except (ValueError, ArithmeticError, IndexError):  # cells so flat that they cannot be reduced
        return False


def _formulas(crystals: CrystalBatch) -> list[bytes]:
    """Return the reduced formulas of crystals, as the bytes of their amounts."""
    counts = crystals.composition()
    counts //= np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
    return [row.tobytes() for row in counts.astype(np.int16)]


def wilson(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's interval of a share, by default at 95 % (Wilson, J. Am. Stat. Assoc. 22, 209 (1927))."""
    if not total:
        return 0.0, 1.0
    share, weight = count / total, z**2 / total
    middle, width = share + weight / 2, z * np.sqrt(share * (1 - share) / total + weight / (4 * total))
    return float((middle - width) / (1 + weight)), float((middle + width) / (1 + weight))


def summarise(sample: Examination) -> dict[str, Any]:
    """Return the shares, each with count, total and interval, and the energies of a sample."""
    energies = sample.e_above_hull
    scored, stable = np.isfinite(energies), energies <= _STABLE  # NaN is not
    rows = np.flatnonzero(stable)
    first = rows[np.unique(sample.label[rows], return_index=True)[1]]  # the first of each stable structure
    counts = {
        "structurally valid": sample.structural.sum(),
        "compositionally valid": sample.compositional.sum(),
        "valid": (sample.structural & sample.compositional).sum(),
        "unique": len(np.unique(sample.label)),
        "novel": sample.novel.sum(),
        "in P1": (sample.crystals.G == 1).sum(),
        "space group found again": sample.found.sum(),
        "scored": scored.sum(),
        "stable (≤ 0.1 eV/atom)": stable.sum(),
        "stable (≤ 0 eV/atom)": (energies <= _ON_HULL).sum(),
        "S.U.N. (≤ 0.1 eV/atom)": sample.novel[first].sum(),
    }
    total = len(energies)
    shares = {
        name: {"count": int(n), "of": total, "share": n / max(total, 1), "interval": wilson(int(n), total)}
        for name, n in counts.items()
    }
    return {
        "shares": shares,
        "mean e_above_hull": float(energies[scored].mean()) if scored.any() else None,
        "median e_above_hull": float(np.median(energies[scored])) if scored.any() else None,
        "below hull by more than 0.2 eV/atom": int((energies < -_GAP).sum()),
    }
