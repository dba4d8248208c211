"""Crystals that a model has drawn, with what they are worth, kept on disk."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult, Scorer

Relax = Callable[[CrystalBatch], tuple[CrystalBatch, NDArray[np.object_]]]
"""A callable from B crystals to B relaxed ones and, for each, None or the reason why it stayed as it was."""


def no_result() -> RewardResult:
    """Return the result of no crystals."""
    return RewardResult(np.zeros(0), {}, np.zeros(0, object))


@dataclass(frozen=True)
class Samples:
    """B crystals that were drawn and scored.

    Attributes:
        drawn: the crystals as they were drawn.
        crystals: those that were scored: the same, or relaxed.
        result: what they are worth; one that could not be relaxed counts as failed.
        calls: crystals that the reward was asked for; equal ones are scored once.
    """

    drawn: CrystalBatch = field(default_factory=CrystalBatch.empty)
    crystals: CrystalBatch = field(default_factory=CrystalBatch.empty)
    result: RewardResult = field(default_factory=no_result)
    calls: int = 0

    def __len__(self) -> int:
        return len(self.drawn)

    def extended(self, drawn: CrystalBatch, scorer: Scorer, relax: Relax | None = None) -> "Samples":
        """Return these and more crystals, which are relaxed, if that is asked for, and scored."""
        crystals, reasons = (drawn, np.full(len(drawn), None, object)) if relax is None else relax(drawn)
        if len(crystals) != len(drawn) or len(reasons) != len(drawn):
            raise InputError(
                f"relax must return {len(drawn)} crystals and reasons, got {len(crystals)}, {len(reasons)}"
            )
        together = CrystalBatch.concatenate([self.crystals, crystals])
        first, place = together.distinct()
        new = first[first >= len(self)]
        known = join([self.result, scorer(together[new])], scorer.floor)
        row_of = np.concatenate([np.arange(len(self)), np.zeros(len(crystals), np.int64)])
        row_of[new] = len(self) + np.arange(len(new))
        result = known.take(row_of[first][place][len(self) :])
        for row, reason in enumerate(reasons):
            if reason is not None:
                result.failures[row] = f"not relaxed: {reason}"
        joined = join([self.result, result], scorer.floor)
        return Samples(CrystalBatch.concatenate([self.drawn, drawn]), together, joined, self.calls + len(new))

    def save(self, path: Path) -> None:
        """Write them into an npz file, which is replaced whole or not at all."""
        result = self.result
        failures = np.array([failure or "" for failure in result.failures], np.str_)
        arrays: dict[str, Any] = {"total": result.total, "failures": failures, "calls": np.int64(self.calls)}
        arrays |= {f"term_{name}": values for name, values in result.terms.items()}
        for kind in ("drawn", "crystals"):
            arrays |= {f"{kind}_{name}": getattr(getattr(self, kind), name) for name in ("G", "W", "A", "XYZ", "L")}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays, allow_pickle=False)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as file:
            drawn, crystals = (
                CrystalBatch(*(file[f"{kind}_{name}"] for name in ("G", "W", "A", "XYZ", "L")))
                for kind in ("drawn", "crystals")
            )
            terms = {name.removeprefix("term_"): file[name] for name in file.files if name.startswith("term_")}
            failures = np.array([failure or None for failure in file["failures"].tolist()] + [None], object)[:-1]
            return cls(drawn, crystals, RewardResult(file["total"], terms, failures), int(file["calls"]))


def join(results: Sequence[RewardResult], floor: float) -> RewardResult:
    """Join results in order; a term that one of them lacks is the floor there, success is 0."""
    names = list(dict.fromkeys(name for result in results for name in result.terms))
    terms = {}
    for name in names:
        fill = 0.0 if name == "success" else floor
        terms[name] = np.concatenate([r.terms.get(name, np.full(len(r.total), fill)) for r in results])
    total = np.concatenate([result.total for result in results])
    return RewardResult(total, terms, np.concatenate([result.failures for result in results]))
