"""The energy above the convex hull: stability against all known phases."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult, without_failure
from rewards.distinct import once_per_crystal
from rewards.hull.convex_hull import ConvexHull
from rewards.potentials import Potential, load_potential
from rewards.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

    from rewards.relaxation.relax import Relaxation


class EnergyAboveHull:
    """Minus the energy above the hull in eV/atom, of the crystal as it is or after relaxation.

    The total is ``-clip(e_above_hull, -clip, clip)``, as in the paper (arXiv:2504.02367). Terms are
    ``e_above_hull`` (eV/atom, not clipped), ``energy_per_atom`` (eV) and ``success``. A crystal that fails the screen,
    has an element that is not in the hull, or breaks the potential gets the total ``-clip``, the terms ``clip``, 0 and
    0, and a reason. Energies are those of the primitive cells; identical crystals of a batch are computed once.

    Args:
        potential: name of a potential, or the potential; see `load_potential`.
        hull: name of a shipped hull (``"mp20-chgnet"``), a file, or the hull. It must hold the potential's own
            energies, or DFT energies on the potential's scale.
        clip: bound of the total in eV/atom.
        threshold: highest energy above the hull in eV/atom that counts as success.
        screen: limits that a crystal must meet before the potential runs.
        max_depth: largest depth below the hull in eV/atom that is accepted, by default any. A below-hull outlier means
            that the hull lacks a phase (MP-20 has none with more than 20 atoms) or that the potential fails; beyond
            ``max_depth`` the crystal counts as one that cannot be scored. An agent that is rewarded without such a
            limit finds those gaps.
        relax: relaxation of crystals before their energy is evaluated, by default none. A crystal that cannot be
            relaxed fails; the term ``converged`` is 1 where the forces have converged.

    Attributes:
        floor: the lowest total, ``-clip``.

    Raises:
        ValueError: if a name is unknown, ``clip`` or ``max_depth`` is not a positive number, ``threshold`` is not
            finite, or potential and hull are on different scales.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> reward = EnergyAboveHull()
        >>> result = reward([Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")])
        >>> result.success()
        array([ True])
    """

    def __init__(
        self,
        potential: str | Potential = "chgnet",
        hull: "str | Path | ConvexHull" = "mp20-chgnet",
        clip: float = 10.0,
        threshold: float = 0.1,
        screen: Screen | None = None,
        max_depth: float | None = None,
        relax: "Relaxation | None" = None,
    ) -> None:
        self.clip = finite_number("clip", clip, above=0)
        self.threshold = finite_number("threshold", threshold)
        self.max_depth = None if max_depth is None else finite_number("max_depth", max_depth, above=0)
        self.potential = load_potential(potential)
        self.hull = hull
        self.screen = screen or Screen()
        self.relax = relax
        if relax is not None and relax.force_field().name != self.potential.name:
            raise InputError(f"relax must have the reward's potential, {self.potential.name}")
        self.convex_hull().check_scale(self.potential)

    @property
    def floor(self) -> float:
        """The lowest total."""
        return -self.clip

    def convex_hull(self) -> ConvexHull:
        """Return the hull, which is read once per process."""
        return self.hull if isinstance(self.hull, ConvexHull) else _load_hull(self.hull)

    @once_per_crystal
    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        """Score B crystals; see the class for the terms."""
        compositions, hull = crystals.composition(), self.convex_hull()
        failures = self.screen(crystals)
        energies, e_above_hull = np.full((2, len(crystals)), np.nan)
        rows = without_failure(failures)
        for row, missing in zip(rows, hull.missing_elements(compositions[rows]), strict=True):
            if missing:
                failures[row] = f"the hull does not know {', '.join(missing)}"
        rows = without_failure(failures)
        converged = np.zeros(len(crystals))
        if len(rows) and self.relax is not None:
            relaxed = self.relax.relax_each(crystals[rows])
            energies[rows], failures[rows], converged[rows] = relaxed.energies, relaxed.failures, relaxed.converged
        elif len(rows):
            energies[rows], failures[rows] = self.potential.energies(crystals[rows].to_atoms())
        for row in rows[~np.isfinite(energies[rows])]:
            failures[row] = failures[row] or f"the potential gave {energies[row]}"
        rows = without_failure(failures)
        e_above_hull[rows] = hull.e_above_hull(compositions[rows], energies[rows])
        failures[rows] = beyond_depth(e_above_hull[rows], self.max_depth)
        scored = np.zeros(len(crystals), bool)
        scored[without_failure(failures)] = True
        terms = {
            "e_above_hull": np.where(scored, e_above_hull, self.clip),
            "energy_per_atom": np.where(scored, energies / np.maximum(compositions.sum(1), 1), 0.0),
            "success": np.where(scored & (e_above_hull <= self.threshold), 1.0, 0.0),
        }
        if self.relax is not None:
            terms["converged"] = converged
        return RewardResult(-np.clip(terms["e_above_hull"], -self.clip, self.clip), terms, failures)


def beyond_depth(e_above_hull: NDArray[np.float64], max_depth: float | None) -> NDArray[np.object_]:
    """Return for every energy above the hull (B,) in eV/atom None, or the reason why it lies too deep below the hull.

    Args:
        e_above_hull: the energies.
        max_depth: largest depth below the hull in eV/atom that is accepted, None for any.
    """
    reasons = np.full(len(e_above_hull), None, object)
    for row in np.flatnonzero(e_above_hull < -(np.inf if max_depth is None else max_depth)):
        reasons[row] = f"{-e_above_hull[row]:.3g} eV/atom below the hull, accepted are up to {max_depth:g}"
    return reasons


@lru_cache(maxsize=8)
def _load_hull(source: Any) -> ConvexHull:
    """Read a hull once per process; a reward holds only its name, so that copies and pickles stay small."""
    return ConvexHull.load(source)
