"""What becomes of crystals in a relaxation: how far the atoms move, what energy is gained, whether the symmetry stays.

Crystals are relaxed by the potential's forces as they are, without their symmetry imposed, cell and atoms together. The
RMSD is that of pymatgen's ``StructureMatcher`` between crystal and relaxed crystal, in Å, volumes not scaled, as in
MatterGen (Zeni et al., Nature 639, 624 (2025)).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.metrics.sample import ON_HULL, STABLE, joined, wilson
from benchmarks.metrics.structures import energies_above_hull, may_be_scored, space_group
from crystal_env.crystal import CrystalBatch
from rewards import EnergyAboveHull, Relaxation
from rewards.matching import Structures, same

if TYPE_CHECKING:
    from pymatgen.core import Structure

_CHUNK = 32


class Outcomes(NamedTuple):
    """What relaxation made of B crystals, and of structures that are none, whose rows come after theirs.

    Attributes:
        crystals: the relaxed ones; one that could not be relaxed is as it was.
        failures (B,): None, or why a crystal could not be relaxed.
        e_above_hull (B,): afterwards in eV/atom, NaN where it failed.
        gain (B,): energy in eV/atom that was gained.
        rmsd (B,): how far atoms have moved in Å, NaN where crystal and relaxed crystal cannot be laid over each other.
        same (B,): whether both are the same structure.
        group (B,): whether the space group is still there, by the symmetry search at 0.1 Å.
        force (B,): largest force on an atom before, in eV/Å.
        foreign: the relaxed structures that are no crystals.
    """

    crystals: CrystalBatch
    failures: NDArray[np.object_]
    e_above_hull: NDArray[np.float64]
    gain: NDArray[np.float64]
    rmsd: NDArray[np.float64]
    same: NDArray[np.bool_]
    group: NDArray[np.bool_]
    force: NDArray[np.float64]
    foreign: "Sequence[Structure]" = ()

    def structures(self) -> Structures:
        """Return the relaxed crystals and structures as what `rewards.matching` compares."""
        return joined(self.crystals, self.foreign)


def outcomes(
    crystals: CrystalBatch,
    energy: EnergyAboveHull | None = None,
    steps: int = 50,
    fmax: float = 0.05,
    name: str = "crystals",
    foreign: "Sequence[Structure]" = (),
) -> Outcomes:
    """Relax B crystals, about a second each, and compare.

    Args:
        crystals: the crystals.
        energy: whose potential and hull are used, by default CHGNet's.
        steps: most steps of a crystal.
        fmax: convergence in eV/Å.
        name: of the crystals, for the progress bar.
        foreign: structures that are no crystals of the grammar, relaxed as well.
    """
    energy = energy or EnergyAboveHull()
    relax = Relaxation(energy.potential, fmax=fmax, steps=steps, symmetry="free")
    before, force = _before(crystals, energy, relax)
    with tqdm(total=len(crystals) + len(foreign), desc=f"{name}: relaxation", unit="crystal") as bar:
        after, reasons = _relaxed_crystals(crystals, relax, bar)
        relaxed, why = _relaxed_structures(foreign, energy, relax, bar)
    energies, _ = _before(after, energy, None)
    before = np.concatenate([before, energies_above_hull(foreign, energy)])
    energies = np.concatenate([energies, energies_above_hull(relaxed, energy)])
    failures = np.array([*reasons, *why, None], object)[:-1]
    failed = np.array([reason is not None for reason in failures], bool)
    energies[failed] = np.nan
    old = [*crystals.to_structures(primitive=True), *foreign]
    new = [*after.to_structures(primitive=True), *relaxed]
    pairs = list(zip(old, new, strict=True))
    alike = np.array([same(*pair) for pair in pairs], bool) & ~failed
    moved = np.array([np.nan if failed[row] else rmsd(*pair) for row, pair in enumerate(pairs)], np.float64)
    groups = np.array([space_group(structure, 0.1) for structure in new], np.int64)
    wanted = np.concatenate([crystals.G, np.array([space_group(structure, 0.1) for structure in foreign], np.int64)])
    force = np.concatenate([force, _strongest(foreign, energy, relax)])
    survives = (groups == wanted) & (groups > 0) & ~failed
    return Outcomes(after, failures, energies, before - energies, moved, alike, survives, force, relaxed)


def _relaxed_crystals(crystals: CrystalBatch, relax: Relaxation, bar: Any) -> tuple[CrystalBatch, list[str | None]]:
    """Relax crystals in parts, and return them with the reasons why some could not be."""
    parts: list[CrystalBatch] = []
    failures: list[str | None] = []
    for start in range(0, len(crystals), _CHUNK):
        relaxed, reasons = relax(crystals[start : start + _CHUNK])
        parts.append(relaxed)
        failures += list(reasons)
        bar.update(len(relaxed))
    return CrystalBatch.concatenate(parts), failures


def _relaxed_structures(
    structures: "Sequence[Structure]", energy: EnergyAboveHull, relax: Relaxation, bar: Any
) -> "tuple[list[Structure], list[str | None]]":
    """Relax structures in parts, and return them with the reasons why some could not be."""
    from pymatgen.io.ase import AseAtomsAdaptor

    from rewards.relaxation.fire import FireState
    from rewards.relaxation.fire import relax as walk

    passes, relaxed = may_be_scored(structures, energy), list(structures)
    failures: list[str | None] = [None if fine else "it fails the screen" for fine in passes]
    for start in range(0, len(relaxed), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(relaxed)))
        states = {row: FireState(structures[row].to_ase_atoms(msonable=False)) for row in rows if passes[row]}
        walk(list(states.values()), relax.force_field(), fmax=relax.fmax, steps=relax.steps, seconds=relax.seconds)
        for row, state in states.items():
            failures[row] = state.failure
            if state.failure is None:
                relaxed[row] = AseAtomsAdaptor.get_structure(state.atoms)
        bar.update(len(rows))
    return relaxed, failures


def relaxed_summary(
    after: Outcomes, novel: NDArray[np.bool_], label: NDArray[np.int64], attempts: int
) -> dict[str, Any]:
    """Return stable, S.U.N. and unchanged shares of relaxed crystals, and what relaxation did on average.

    Args:
        after: what became of B crystals.
        novel: (B,) whether the relaxed ones are novel.
        label: (B,) row of the first relaxed one of the same structure.
        attempts: how many attempts they are of, all of which are in the denominators.
    """
    counts = {"could be relaxed": sum(reason is None for reason in after.failures)}
    counts |= {"same structure": after.same.sum(), "space group survives": after.group.sum()}
    for limit, most in ((STABLE, STABLE), (0.0, ON_HULL)):
        rows = np.flatnonzero(after.e_above_hull <= most)  # NaN is not
        first = rows[np.unique(label[rows], return_index=True)[1]]
        counts[f"stable (≤ {limit:g} eV/atom)"] = len(rows)
        counts[f"S.U.N. (≤ {limit:g} eV/atom)"] = novel[first].sum()
    return {
        "shares": {name: share(int(count), attempts) for name, count in counts.items()},
        "mean RMSD, Å": _of(after.rmsd, np.mean),
        "median RMSD, Å": _of(after.rmsd, np.median),
        "mean gain, eV/atom": _of(after.gain, np.mean),
        "mean e_above_hull": _of(after.e_above_hull, np.mean),
        "mean e_above_hull before": _of(after.e_above_hull + after.gain, np.mean),
    }


def share(count: int, of: int) -> dict[str, Any]:
    """Return a share with its count, its total and Wilson's interval."""
    return {"count": count, "of": of, "share": count / max(of, 1), "interval": wilson(count, of)}


def _before(
    crystals: CrystalBatch, energy: EnergyAboveHull, relax: Relaxation | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return energies above the hull (B,) and, for a relaxation, largest forces (B,), NaN where there are none."""
    energies, force = np.full((2, len(crystals)), np.nan)
    rejected = energy.screen(crystals)
    for start in range(0, len(crystals), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(crystals)))
        result = energy(crystals[rows])
        scored = result.scored
        energies[rows[scored]] = result.terms["e_above_hull"][scored]
        fine = rows[[rejected[row] is None for row in rows]]
        if relax is not None and len(fine):
            forces = relax.force_field().forces(crystals[fine].to_atoms()).forces
            force[fine] = [np.linalg.norm(f, axis=1).max() for f in forces]
    return energies, force


def rmsd(structure: "Structure", relaxed: "Structure") -> float:
    """Return the root mean square displacement in Å, NaN where the structures cannot be laid over each other."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(ltol=0.5, stol=0.5, angle_tol=10, scale=False)
    try:
        found = matcher.get_rms_dist(structure, relaxed)  # type: ignore[no-untyped-call]
    except (ValueError, ArithmeticError, IndexError):
        return float("nan")
    if found is None:
        return float("nan")
    edge = (0.5 * (structure.volume / len(structure) + relaxed.volume / len(relaxed))) ** (1 / 3)
    return float(found[0] * edge)


def _strongest(structures: "Sequence[Structure]", energy: EnergyAboveHull, relax: Relaxation) -> NDArray[np.float64]:
    """Return the largest force (F,) on an atom of structures in eV/Å, NaN where there is none."""
    force = np.full(len(structures), np.nan)
    rows = np.flatnonzero(may_be_scored(structures, energy)).tolist()
    if rows:
        forces = relax.force_field().forces([structures[row].to_ase_atoms(msonable=False) for row in rows]).forces
        force[rows] = [np.linalg.norm(f, axis=1).max() for f in forces]
    return force


def _of(values: NDArray[np.float64], statistic: Callable[[Any], Any]) -> float | None:
    known = values[np.isfinite(values)]
    return float(statistic(known)) if len(known) else None
