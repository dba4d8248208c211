"""Metrics of generated crystals, one by one: validity, energy above the hull, uniqueness and novelty.

Definitions, as in the paper: stable is an energy above the hull of at most 0.1 (or 0.0) eV/atom of the crystal as
sampled, without relaxation. S.U.N. counts one after the other: the stable ones, of these one of each structure, of
these those that are not in the reference. Every attempt is in the denominator. Structures are the same by pymatgen's
``StructureMatcher`` with its defaults, among crystals of one reduced formula; no space group is compared. As that
relation is not transitive, samples are compared in a fixed order, by energy, then by their text. Structures outside the
representation are evaluated by the same definitions (`benchmarks.metrics.properties`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.properties import fixed_order, properties
from benchmarks.samples.samples import Samples
from crystal_env import CrystalBatch
from crystal_env.reward import Reward
from rewards.matching import is_novel, structure_labels

STABLE = 0.1
"""Highest energy above the hull in eV/atom of a stable crystal, as in the paper."""

ON_HULL = 1e-4
"""Highest energy in eV/atom of a crystal on the hull or below: the noise in single precision of a phase on it."""

OUTLIER_DEPTH = 0.2
"""Depth in eV/atom beyond which the hull lacks a phase or the potential fails: none of MP-20 is that far below it."""


@dataclass(frozen=True, eq=False)
class SampleMetrics:
    """Metrics of B samples.

    Attributes:
        samples: the samples.
        structurally_valid (B,): no atoms are closer than 0.5 Å.
        compositionally_valid (B,): charges can be neutral, by SMACT.
        detected_group (B,): the space group that the symmetry search finds at 0.01 Å, 0 if it finds none.
        e_above_hull (B,): in eV/atom, NaN where it could not be computed.
        label (B,): position of the first sample of the same structure in the fixed order.
        novel (B,): no crystal of the reference has the same structure.
    """

    samples: Samples
    structurally_valid: NDArray[np.bool_]
    compositionally_valid: NDArray[np.bool_]
    detected_group: NDArray[np.int64]
    e_above_hull: NDArray[np.float64]
    label: NDArray[np.int64]
    novel: NDArray[np.bool_]

    @classmethod
    def concatenate(cls, parts: "Sequence[SampleMetrics]") -> "SampleMetrics":
        """Join the metrics of several samples, at least one; structures are the same only within one of them."""
        starts = np.cumsum([0, *(len(part.samples) for part in parts)])
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("structurally_valid", "compositionally_valid", "detected_group", "e_above_hull", "novel")
        }
        label = np.concatenate([part.label + start for part, start in zip(parts, starts, strict=False)])
        return cls(Samples.concatenate([part.samples for part in parts]), label=label, **columns)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Who is structurally and compositionally valid (B,)."""
        return self.structurally_valid & self.compositionally_valid

    @property
    def space_group(self) -> NDArray[np.int64]:
        """The space groups (B,): the crystals' own, of other structures the detected ones, 0 if there is none."""
        return np.where(self.samples.represented, self.samples.space_groups, self.detected_group)

    @property
    def space_group_recovered(self) -> NDArray[np.bool_]:
        """Whether the symmetry search finds the crystal's own space group, of other structures any (B,)."""
        return (self.detected_group > 0) & (self.detected_group == self.space_group)

    def stable(self, limit: float = STABLE) -> NDArray[np.bool_]:
        """Return who is stable (B,) by a limit in eV/atom; a sample without an energy is not."""
        return self.e_above_hull <= limit

    def first_of_each(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return who of chosen samples (B,) is the first of its structure among them (B,)."""
        rows, first = np.flatnonzero(chosen), np.zeros(len(chosen), bool)
        first[rows[np.unique(self.label[rows], return_index=True)[1]]] = True
        return first

    def sun(self, limit: float = STABLE, among: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Return who is stable, the first of its structure among these, and novel (B,).

        Args:
            limit: highest energy above the hull in eV/atom.
            among: (B,) who is considered at all, by default all.
        """
        stable = self.stable(limit)
        return self.first_of_each(stable if among is None else stable & among) & self.novel


def evaluate_sample(
    samples: Samples, reference: CrystalBatch, energy: Reward | None, n_jobs: int | None = 1
) -> SampleMetrics:
    """Compute the metrics of samples; one that breaks a tool counts as bad and does not stop the others.

    Args:
        samples: B samples.
        reference: crystals that are not novel.
        energy: reward with the term ``e_above_hull``; None leaves energies out.
        n_jobs: processes that search for symmetry and compare structures, None for one a core.
    """
    found = properties(samples, energy, n_jobs)
    order, structures = fixed_order(samples, found.e_above_hull), samples.comparable()
    label = structure_labels(structures, samples.name, order, n_jobs)
    return SampleMetrics(samples, *found, label, is_novel(structures, reference, samples.name, n_jobs))
