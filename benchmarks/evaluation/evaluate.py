"""What crystals of any generator are worth: ``benchmarks.evaluate``.

`benchmarks.metrics.sample` defines what is counted. Here it is counted over all attempts of a generator, for each space
group, before and after relaxation, with the names and hashes of everything that it depends on.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.samples import Attempts, as_attempts
from benchmarks.harness.provenance import file_digest, versions
from benchmarks.harness.scoring import load_reference
from benchmarks.metrics.by_space_group import group_numbers, space_group_weights, weighted_shares
from benchmarks.metrics.distribution import covered, distribution
from benchmarks.metrics.relaxation import Outcomes, outcomes, relaxed_summary, share
from benchmarks.metrics.sample import (
    ON_HULL,
    STABLE,
    Examination,
    detected_groups,
    examine,
    first_of_each,
    fixed_order,
    summarise,
)
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import load_crystals
from crystal_env.errors import InputError
from rewards import ConvexHull, EnergyAboveHull
from rewards.hull.file_format import hull_path
from rewards.matching import is_novel, structure_labels

if TYPE_CHECKING:
    from rewards.potentials import Potential

_EDGES = (-0.5, -0.2, -0.1, -0.05, 0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)  # eV/atom
_DEFINITIONS = {
    "shares": "of all attempts; those that gave no structure are failures",
    "structurally valid": "no atoms closer than 0.5 Å, periodic images included, and a cell of at least 0.1 Å^3",
    "compositionally valid": "SMACT with the oxidation states smact14, Pauling's test, elements and alloys valid",
    "S.U.N.": "stable, of these the first of each structure, of these those not in the reference",
    "order": "by energy above the hull, then by text",
    "same structure": "pymatgen StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5, scale=True), equal reduced formulas",
    "stable (≤ 0 eV/atom)": f"at most {ON_HULL} eV/atom, the noise of single precision",
}


class Evaluation(NamedTuple):
    """What is known of a sample.

    Attributes:
        attempts: what was given.
        sample: what is known of the crystals and structures among it.
        summary: the numbers, JSON-plain.
        relaxed: what became of the first of them, None if none was relaxed.
    """

    attempts: Attempts
    sample: Examination
    summary: dict[str, Any]
    relaxed: Outcomes | None = None


def evaluate(
    crystals: Any,
    *,
    reference: "CrystalBatch | str | Path | Iterable[str | Path]" = (),
    potential: "str | Potential" = "chgnet",
    hull: str | Path | ConvexHull = "mp20-chgnet",
    max_depth: float | None = None,
    weights: "str | Mapping[int, float] | NDArray[np.float64] | None" = None,
    relax: int = 0,
    cover: CrystalBatch | None = None,
    seconds: float | None = None,
    name: str | None = None,
    n_jobs: int | None = None,
) -> Evaluation:
    """Say what crystals are worth.

    Args:
        crystals: a file of any kind that `benchmarks.evaluation.readers.raw_entries` names, a `CrystalBatch`, or a list
            of crystals, pymatgen structures, ASE atoms or CIF texts, with None where an attempt gave nothing.
        reference: crystals that are not novel, or files of them; by default MP-20's in the folder $CRYSTALGEN_DATA.
        potential: a potential or its name.
        hull: a hull, its file, or the name of a shipped one.
        max_depth: deepest energy below the hull in eV/atom that counts as an energy, by default any.
        weights: of the space groups, for shares that do not depend on how often each was asked for: space group ->
            weight, weights (230,), or ``"mp20"`` for the frequencies in MP-20.
        relax: attempts, from the first, that are also relaxed, about a second each.
        cover: a test set that should be covered; see `benchmarks.metrics.distribution.covered`.
        seconds: time that the attempts took, for S.U.N. per second.
        name: of the crystals, for the progress bars, by default the file's.
        n_jobs: processes that read and compare structures, None for one a core.

    Raises:
        ValueError: if a file cannot be read, there is no reference, potential and hull are on different scales, or
            an argument has another form.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> made = evaluate([rock_salt, "no crystal", rock_salt], reference=rock_salt.to_batch()[:0], n_jobs=1)
        >>> made.summary["shares"]["S.U.N. (≤ 0.1 eV/atom)"]["count"], made.summary["failures"]["row 1"]
        (1, 'no such structure file: no crystal')
    """
    if relax < 0 or (seconds is not None and not seconds > 0):
        raise InputError(f"relax must not be negative, and seconds positive, got {relax} and {seconds}")
    group_weights = None if weights is None else space_group_weights(weights)
    energy = EnergyAboveHull(potential, hull, max_depth=max_depth)
    known, about = _reference(reference)
    attempts = as_attempts(crystals, n_jobs, name=name)
    sample = examine(attempts.crystals, known, energy, attempts.name, n_jobs, attempts.foreign)
    total, sun = len(attempts), sun_of(sample, STABLE)
    summary: dict[str, Any] = {"name": attempts.name, "attempts": total, "crystals": len(attempts.rows)}
    summary |= {"structures beyond the grammar": len(attempts.foreign), **summarise(sample, len(attempts.failures))}
    summary["failures"] = {attempts.places[row]: reason for row, reason in attempts.failures.items()}
    summary["beyond the grammar"] = {attempts.places[row]: reason for row, reason in attempts.remarks.items()}
    summary["energies"] = _energies(sample.e_above_hull, total)
    summary["space groups"] = _space_groups(attempts, sample, n_jobs)
    summary["by space group"] = group_numbers(_group_of_attempts(attempts, sample), _verdicts(attempts, sample, sun))
    if group_weights is not None:
        summary["weighted"] = weighted_shares(summary["by space group"], group_weights)
    summary["distribution"] = distribution(sample.crystals, known)
    if cover is not None:
        summary["distribution"] |= covered(sample.crystals, cover, known)
    if seconds is not None:
        summary["S.U.N. per second"] = float(sun.sum() / seconds)
    after = None
    if relax:
        after, summary["relaxed"] = _relaxed(attempts.first(relax), known, energy, n_jobs)
    summary["against"] = {**about, **_judge(energy), "versions": versions(), "definitions": _DEFINITIONS}
    return Evaluation(attempts, sample, summary, after)


def sun_of(sample: Examination, limit: float) -> NDArray[np.bool_]:
    """Return who is stable by a limit in eV/atom, the first of its structure among these, and novel (B,)."""
    chosen = np.zeros(len(sample.label), bool)
    chosen[first_of_each(sample, sample.e_above_hull <= limit)] = True
    return chosen & sample.novel


def _reference(given: "CrystalBatch | str | Path | Iterable[str | Path]") -> tuple[CrystalBatch, dict[str, Any]]:
    """Return the crystals that are not novel, and their names and hashes."""
    if isinstance(given, CrystalBatch):
        digest = hashlib.sha256()
        for name in ("G", "W", "A", "XYZ", "L"):
            digest.update(getattr(given, name).tobytes())
        return given, {"reference": {"crystals": digest.hexdigest()}, "reference crystals": len(given)}
    paths = [Path(given)] if isinstance(given, str | Path) else [Path(path) for path in given]
    files = paths or list(load_reference((), needed=True)[1])
    parts, left_out = [], 0
    for file in files:
        if file.suffix == ".npz":
            parts.append(CrystalBatch.load(file))
            continue
        tokens = load_crystals(file)
        parts.append(tokens.crystals)
        left_out += len(tokens.skipped)
    known = CrystalBatch.concatenate(parts)
    about = {"reference": {file.name: file_digest(file) for file in files if file.is_file()}}
    return known, {**about, "reference crystals": len(known), "reference entries left out": left_out}


def _judge(energy: EnergyAboveHull) -> dict[str, Any]:
    """Return the names of potential and hull, and the hull's hash."""
    path = None if isinstance(energy.hull, ConvexHull) else hull_path(energy.hull)
    hull = {path.name: file_digest(path)} if path is not None else {repr(energy.hull): None}
    return {"potential": energy.potential.name, "hull": hull, "deepest energy that counts": energy.max_depth}


def _energies(energies: NDArray[np.float64], attempts: int) -> dict[str, Any]:
    """Return quantiles and a histogram of energies above the hull, with what has none."""
    known = energies[np.isfinite(energies)]
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    quantiles = np.quantile(known, levels).tolist() if len(known) else []
    counts = np.histogram(known, [-np.inf, *_EDGES, np.inf])[0]
    return {
        "quantiles": dict(zip(map(str, levels), quantiles, strict=False)),
        "edges, eV/atom": list(_EDGES),
        "counts, the first below and the last above all edges": counts.tolist(),
        "without an energy": attempts - len(known),
    }


def _space_groups(attempts: Attempts, sample: Examination, n_jobs: int | None) -> dict[str, Any]:
    """Return who has the group that was asked for, and who is in P1, at two tolerances of the symmetry search."""
    asked = np.concatenate([attempts.requested, attempts.groups[attempts.foreign_rows]])
    loose = _detected(attempts, sample, 0.1, n_jobs)
    tight = np.where(sample.found, sample.groups(), 0)
    missed = np.flatnonzero(~sample.found[: len(attempts.rows)])
    if len(missed):
        tight[missed] = detected_groups(attempts.crystals[missed], attempts.name, n_jobs)
    numbers: dict[str, Any] = {}
    for symprec, detected in ((0.01, tight), (0.1, loose)):
        numbers[f"in P1 at {symprec:g} Å"] = share(int((detected == 1).sum()), len(attempts))
        if of := int((attempts.groups > 0).sum()):
            obtained = int(((detected == asked) & (asked > 0)).sum())
            numbers[f"requested group detected at {symprec:g} Å"] = share(obtained, of)
    return numbers


def _detected(attempts: Attempts, sample: Examination, symprec: float, n_jobs: int | None) -> NDArray[np.int64]:
    """Return the space groups (B,) that the symmetry search finds."""
    from benchmarks.metrics.structures import space_group

    theirs = np.array([space_group(structure, symprec) for structure in sample.foreign], np.int64)
    return np.concatenate([detected_groups(sample.crystals, attempts.name, n_jobs, symprec), theirs])


def _group_of_attempts(attempts: Attempts, sample: Examination) -> NDArray[np.int64]:
    """Return the space group (N,) that each attempt was of: what was asked for, else what came out, 0 for nothing."""
    groups = np.zeros(len(attempts), np.int64)
    groups[np.concatenate([attempts.rows, attempts.foreign_rows])] = sample.groups()
    return np.where(attempts.groups > 0, attempts.groups, groups)


def _verdicts(attempts: Attempts, sample: Examination, sun: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Return what each attempt (N,) has achieved."""
    rows = np.concatenate([attempts.rows, attempts.foreign_rows])
    of_rows = {
        "valid": sample.structural & sample.compositional,
        f"stable (≤ {STABLE:g} eV/atom)": sample.e_above_hull <= STABLE,
        f"S.U.N. (≤ {STABLE:g} eV/atom)": sun,
        "S.U.N. (≤ 0 eV/atom)": sun_of(sample, ON_HULL),
    }
    verdicts = {name: np.zeros(len(attempts), bool) for name in of_rows}
    for name, values in of_rows.items():
        verdicts[name][rows] = values
    return verdicts


def _relaxed(
    attempts: Attempts, known: CrystalBatch, energy: EnergyAboveHull, n_jobs: int | None
) -> tuple[Outcomes, dict[str, Any]]:
    """Relax the first attempts and look at them again."""
    after = outcomes(attempts.crystals, energy, name=attempts.name, foreign=attempts.foreign)
    structures = after.structures()
    order = fixed_order(structures, after.e_above_hull)
    label = structure_labels(structures, attempts.name, order, n_jobs)
    novel = is_novel(structures, known, attempts.name, n_jobs)
    return after, {"attempts": len(attempts), **relaxed_summary(after, novel, label, len(attempts))}
