"""Whether a crystal is new, and whether it is one of many in its batch."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.dataset import load_crystals
from crystal_env.reward import RewardResult
from rewards.matching import is_novel, reduced_formulas, structure_labels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal


class Novelty:
    """1 for a crystal whose structure the reference does not have, else 0.

    Structures are the same by pymatgen's ``StructureMatcher`` with its defaults among equal reduced formulas. Terms are
    ``novel`` and ``success``.

    Args:
        reference: crystals, an npz file of `CrystalBatch.save`, or a file of structures that
            `crystal_env.dataset.load_crystals` takes. Files are read with the first score, once per process.

    Raises:
        ValueError: if there is no such file.
    """

    def __init__(self, reference: CrystalBatch | str | Path) -> None:
        if not isinstance(reference, CrystalBatch) and not Path(reference).exists():
            raise ValueError(f"reference must be crystals or a file, got {str(reference)!r}")
        self.reference = reference

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        reference = self.reference if isinstance(self.reference, CrystalBatch) else _read(str(self.reference))
        novel = is_novel(crystals, reference).astype(np.float64)
        return RewardResult(
            novel, {"novel": novel.copy(), "success": novel.copy()}, np.full(len(crystals), None, object)
        )


@lru_cache(maxsize=4)
def _read(path: str) -> CrystalBatch:
    return CrystalBatch.load(path) if path.endswith(".npz") else load_crystals(path, progress=False).crystals


class Uniqueness:
    """1 / k for a crystal whose structure is k times in its batch: it does not matter in which order they come.

    Structures are the same as for `Novelty`. Terms are ``copies`` (k) and ``success``, 1 for the only one of its kind.
    Agents that ask only once for exactly equal crystals, as `KLPPO` does, see those as one.
    """

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        first, place = crystals.distinct()
        chosen, weight = crystals[first], np.bincount(place, minlength=len(first))
        labels = structure_labels(chosen, order=_by_text(chosen))
        copies = np.bincount(labels, weights=weight, minlength=len(first))[labels][place].astype(np.float64)
        success = (copies == 1).astype(np.float64)
        return RewardResult(1 / copies, {"copies": copies, "success": success}, np.full(len(crystals), None, object))


def _by_text(crystals: CrystalBatch) -> np.ndarray:
    """Return rows in an order that depends on the crystals alone: the matcher's verdicts depend on it."""
    return np.array(sorted(range(len(crystals)), key=lambda row: str(crystals[row])), np.int64)


class CompositionMatch:
    """How much of a composition is as wanted: 1 - ½ Σ |x_i - t_i| over elements, from 0 to 1.

    x are the crystal's atomic fractions and t those wanted, so that the reward is their overlap. Terms are ``overlap``
    and ``success``, 1 for the wanted reduced formula.

    Args:
        formula: the composition wanted, such as ``"SrTiO3"``.

    Raises:
        ValueError: if it is no formula.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> CompositionMatch("NaF")([rock_salt]).total
        array([0.5])
    """

    def __init__(self, formula: str) -> None:
        from rewards.formulas import parse_formula

        self.formula = formula
        counts = parse_formula(formula)
        if not counts.sum():
            raise ValueError(f"formula must have atoms, got {formula!r}")
        self._target = counts / counts.sum()
        self._reduced = counts // np.gcd.reduce(counts)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        counts = crystals.composition()
        fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        overlap = 1 - np.abs(fractions - self._target).sum(1) / 2
        wanted = self._reduced.astype(np.int16).tobytes()
        success = np.array([formula == wanted for formula in reduced_formulas(crystals)], np.float64)
        return RewardResult(
            overlap, {"overlap": overlap.copy(), "success": success}, np.full(len(crystals), None, object)
        )
