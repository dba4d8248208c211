"""Relaxation of samples: displacement of the atoms, gain of energy, and whether structure and symmetry stay.

Samples are relaxed by the potential's forces without symmetry constraints, cell and atoms together. The RMSD is that of
pymatgen's ``StructureMatcher`` between sample and relaxed sample, in Å, volumes not scaled, as in MatterGen (Zeni et
al., Nature 639, 624 (2025)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.metrics.intervals import rate
from benchmarks.metrics.properties import fixed_order, sample_energies
from benchmarks.metrics.sample import ON_HULL, STABLE
from benchmarks.metrics.structures import space_group
from benchmarks.samples.samples import Samples
from crystal_env.crystal import CrystalBatch
from rewards import EnergyAboveHull, Relaxation
from rewards.matching import is_novel, same, structure_labels

if TYPE_CHECKING:
    from pymatgen.core import Structure

_CHUNK = 32
_LOOSE = 0.1  # Å, tolerance of the symmetry search


@dataclass(frozen=True, eq=False)
class RelaxedSamples:
    """B samples after relaxation.

    Attributes:
        samples: the relaxed ones; one that could not be relaxed is unchanged.
        failures (B,): None, or why a sample could not be relaxed.
        e_above_hull (B,): after relaxation in eV/atom, NaN where it failed.
        energy_gain (B,): energy in eV/atom that was gained.
        rmsd (B,): displacement of the atoms in Å, NaN where the two cannot be matched.
        same_structure (B,): whether sample and relaxed sample are the same structure.
        space_group_kept (B,): whether the symmetry search at 0.1 Å still finds the space group.
        max_force (B,): largest force on an atom before relaxation, in eV/Å, NaN where there is none.
    """

    samples: Samples
    failures: NDArray[np.object_]
    e_above_hull: NDArray[np.float64]
    energy_gain: NDArray[np.float64]
    rmsd: NDArray[np.float64]
    same_structure: NDArray[np.bool_]
    space_group_kept: NDArray[np.bool_]
    max_force: NDArray[np.float64]


def relax_samples(
    samples: Samples, energy: EnergyAboveHull | None = None, steps: int = 50, fmax: float = 0.05
) -> RelaxedSamples:
    """Relax B samples, about a second each, and compare.

    Args:
        samples: B samples.
        energy: provides potential and hull, by default CHGNet's.
        steps: maximum number of steps of a sample.
        fmax: convergence in eV/Å.
    """
    energy = energy or EnergyAboveHull()
    relax = Relaxation(energy.potential, fmax=fmax, steps=steps, symmetry="free")
    before = sample_energies(samples, energy)
    after, failures = _relaxed(samples, np.isfinite(before), relax)
    failed = np.array([reason is not None for reason in failures], bool)
    energies = sample_energies(after, energy)
    energies[failed] = np.nan
    old, new = samples.to_structures(), after.to_structures()
    pairs = list(zip(old, new, strict=True))
    alike = np.array([same(*pair) for pair in pairs], bool) & ~failed
    moved = np.array([np.nan if failed[row] else rmsd(*pair) for row, pair in enumerate(pairs)], np.float64)
    found = np.array([space_group(structure, _LOOSE) for structure in new], np.int64)
    expected = [group or space_group(old[i], _LOOSE) for i, group in enumerate(samples.space_groups.tolist())]
    kept = (found == np.array(expected, np.int64)) & (found > 0) & ~failed
    forces = _max_forces(samples, np.isfinite(before), relax)
    return RelaxedSamples(after, failures, energies, before - energies, moved, alike, kept, forces)


def relaxation_summary(
    relaxed: RelaxedSamples, reference: CrystalBatch, n_attempts: int, n_jobs: int | None = 1
) -> dict[str, Any]:
    """Return rates of stable, S.U.N. and unchanged samples after relaxation, and means of its effects, JSON-plain.

    Args:
        relaxed: B samples.
        reference: crystals that are not novel.
        n_attempts: denominator of all rates.
        n_jobs: processes that compare structures, None for one a core.
    """
    samples, energies = relaxed.samples, relaxed.e_above_hull
    structures, order = samples.comparable(), fixed_order(samples, energies)
    label = structure_labels(structures, samples.name, order, n_jobs)
    novel = is_novel(structures, reference, samples.name, n_jobs)
    counts = {"relaxed": sum(reason is None for reason in relaxed.failures)}
    counts |= {name: getattr(relaxed, name).sum() for name in ("same_structure", "space_group_kept")}
    for name, limit in (("0.1", STABLE), ("0.0", ON_HULL)):
        rows = np.flatnonzero(energies <= limit)  # NaN is not
        first = rows[np.unique(label[rows], return_index=True)[1]]
        counts |= {f"stable_{name}": len(rows), f"sun_{name}": novel[first].sum()}
    return {
        "attempts": n_attempts,
        "rates": {name: rate(count, n_attempts) for name, count in counts.items()},
        "rmsd_mean": _of(relaxed.rmsd, np.mean),
        "rmsd_median": _of(relaxed.rmsd, np.median),
        "energy_gain_mean": _of(relaxed.energy_gain, np.mean),
        "e_above_hull_mean": _of(energies, np.mean),
        "e_above_hull_mean_before": _of(energies + relaxed.energy_gain, np.mean),
    }


def rmsd(structure: "Structure", relaxed: "Structure") -> float:
    """Return the root mean square displacement in Å, NaN where the structures cannot be matched."""
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


def _relaxed(samples: Samples, scored: NDArray[np.bool_], relax: Relaxation) -> tuple[Samples, NDArray[np.object_]]:
    """Return the relaxed samples (B,), and the reasons (B,) why some could not be relaxed."""
    with tqdm(total=len(samples), desc=f"{samples.name}: relaxation", unit="crystal") as bar:
        crystals, reasons = _relaxed_crystals(samples.crystals, relax, bar)
        structures, others = _relaxed_structures(samples.structures, scored[~samples.represented], relax, bar)
    failures = samples.merge(_objects(reasons), _objects(others))
    return replace(samples, crystals=crystals, structures=tuple(structures)), failures


def _relaxed_crystals(crystals: CrystalBatch, relax: Relaxation, bar: Any) -> tuple[CrystalBatch, list[str | None]]:
    parts: list[CrystalBatch] = []
    failures: list[str | None] = []
    for start in range(0, len(crystals), _CHUNK):
        relaxed, reasons = relax(crystals[start : start + _CHUNK])
        parts.append(relaxed)
        failures += list(reasons)
        bar.update(len(relaxed))
    return CrystalBatch.concatenate(parts), failures


def _relaxed_structures(
    structures: "Sequence[Structure]", scored: NDArray[np.bool_], relax: Relaxation, bar: Any
) -> "tuple[list[Structure], list[str | None]]":
    from pymatgen.io.ase import AseAtomsAdaptor

    from rewards.relaxation import fire

    relaxed = list(structures)
    failures: list[str | None] = [None if fine else "it has no energy" for fine in scored]
    for start in range(0, len(relaxed), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(relaxed)))
        states = {row: fire.FireState(structures[row].to_ase_atoms(msonable=False)) for row in rows if scored[row]}
        fire.relax(
            list(states.values()), relax.force_field(), fmax=relax.fmax, steps=relax.steps, seconds=relax.seconds
        )
        for row, state in states.items():
            failures[row] = state.failure
            if state.failure is None:
                relaxed[row] = AseAtomsAdaptor.get_structure(state.atoms)
        bar.update(len(rows))
    return relaxed, failures


def _max_forces(samples: Samples, scored: NDArray[np.bool_], relax: Relaxation) -> NDArray[np.float64]:
    """Return the largest force (B,) on an atom of samples in eV/Å, NaN where one has no energy."""
    rows, atoms, largest = np.flatnonzero(scored), samples.to_atoms(), np.full(len(samples), np.nan)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        forces = relax.force_field().forces([atoms[row] for row in chunk]).forces
        largest[chunk] = [np.linalg.norm(force, axis=1).max() for force in forces]
    return largest


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    return np.array([*values, None], object)[:-1]  # an array of objects, whatever their number


def _of(values: NDArray[np.float64], statistic: Callable[[Any], Any]) -> float | None:
    known = values[np.isfinite(values)]
    return float(statistic(known)) if len(known) else None
