"""Crystals that a model has sampled, with their rewards, kept on disk."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.files import atomic_write
from crystal_env.reward import RewardResult, Scorer

Relax = Callable[[CrystalBatch], tuple[CrystalBatch, NDArray[np.object_]]]
"""A callable from B crystals to B relaxed ones and, for each, None or the reason why it stayed as it was."""

_ARRAYS = ("G", "W", "A", "XYZ", "L")


def relaxed_by(relax: Relax, crystals: CrystalBatch) -> tuple[CrystalBatch, NDArray[np.object_]]:
    """Relax B crystals; return them and, for each (B,), None or the reason why it stayed as it was.

    Raises:
        ValueError: if the relaxation returns another number of crystals or reasons.
    """
    relaxed, reasons = relax(crystals)
    if len(relaxed) != len(crystals) or len(reasons) != len(crystals):
        raise InputError(f"relax must return {len(crystals)} crystals and reasons, got {len(relaxed)}, {len(reasons)}")
    return relaxed, reasons


@dataclass(frozen=True)
class ScoredSamples:
    """B crystals that were sampled and scored.

    Attributes:
        sampled: the crystals as they were sampled.
        crystals: those that were scored: the same, or relaxed.
        result: their scores; a crystal that could not be relaxed counts as failed.
    """

    sampled: CrystalBatch = field(default_factory=CrystalBatch.empty)
    crystals: CrystalBatch = field(default_factory=CrystalBatch.empty)
    result: RewardResult = field(default_factory=lambda: RewardResult.concatenate([], 0.0))

    def __len__(self) -> int:
        return len(self.sampled)

    def extended(self, sampled: CrystalBatch, scorer: Scorer, relax: Relax | None = None) -> "ScoredSamples":
        """Return these and more crystals, which are relaxed, if that is asked for, and scored.

        Raises:
            ValueError: if the relaxation returns another number of crystals or reasons.
        """
        nothing = np.full(len(sampled), None, object)
        crystals, reasons = (sampled, nothing) if relax is None else relaxed_by(relax, sampled)
        result = scorer(crystals)
        for row, reason in enumerate(reasons):
            if reason is not None:
                result.failures[row] = f"not relaxed: {reason}"
        return ScoredSamples(
            CrystalBatch.concatenate([self.sampled, sampled]),
            CrystalBatch.concatenate([self.crystals, crystals]),
            RewardResult.concatenate([self.result, result], scorer.floor),
        )

    def save(self, path: Path) -> None:
        """Write them into an npz file, which is replaced whole or not at all."""
        result = self.result
        failures = np.array([failure or "" for failure in result.failures], np.str_)
        arrays: dict[str, Any] = {"total": result.total, "failures": failures}
        arrays |= {f"term_{name}": values for name, values in result.terms.items()}
        for kind in ("sampled", "crystals"):
            arrays |= {f"{kind}_{name}": getattr(getattr(self, kind), name) for name in _ARRAYS}
        atomic_write(path, lambda file: np.savez_compressed(file, **arrays, allow_pickle=False))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as file:
            sampled, crystals = (
                CrystalBatch(*(file[f"{kind}_{name}"] for name in _ARRAYS)) for kind in ("sampled", "crystals")
            )
            terms = {name.removeprefix("term_"): file[name] for name in file.files if name.startswith("term_")}
            failures = np.array([failure or None for failure in file["failures"].tolist()] + [None], object)[:-1]
            return cls(sampled, crystals, RewardResult(file["total"], terms, failures))
