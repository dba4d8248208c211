"""The numbers of an evaluation, with everything that they depend on; keys are identifiers of `metrics.labels`."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.by_space_group import rates_by_space_group, weighted_rates
from benchmarks.metrics.distribution import covered, distribution
from benchmarks.metrics.intervals import rate
from benchmarks.metrics.properties import detected_groups
from benchmarks.metrics.reference import NoveltyReference
from benchmarks.metrics.relaxation import RelaxedSamples, relaxation_summary
from benchmarks.metrics.sample import ON_HULL, SampleMetrics
from benchmarks.metrics.summary import summarise
from benchmarks.provenance import file_digest, versions
from crystal_env.crystal import CrystalBatch
from rewards import ConvexHull, EnergyAboveHull
from rewards.hull.file_format import hull_path

_EDGES = (-0.5, -0.2, -0.1, -0.05, 0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)  # eV/atom
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_DEFINITIONS = {
    "rates": "fractions of all attempts; those that gave no structure are failures",
    "structurally_valid": "no atoms closer than 0.5 Å, periodic images included, and a cell of at least 0.1 Å^3",
    "compositionally_valid": "SMACT with the oxidation states smact14, Pauling's test, elements and alloys valid",
    "sun": "stable, of these the first of each structure, of these those not in the reference",
    "order": "by energy above the hull, then by text",
    "same_structure": "pymatgen StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5, scale=True), equal reduced formulas",
    "stable_0.0": f"at most {ON_HULL} eV/atom, the noise of single precision",
}


class SummaryOptions(NamedTuple):
    """What a summary holds beside the metrics of the samples.

    Attributes:
        weights (231,): weights of the space groups for weighted rates, or None.
        relaxed_attempts: denominator of the rates after relaxation.
        cover: a test set that should be covered, or None.
        seconds: time that sampling took, or None.
        n_jobs: processes that compare structures and search for symmetry, None for one a core.
    """

    weights: NDArray[np.float64] | None = None
    relaxed_attempts: int = 0
    cover: CrystalBatch | None = None
    seconds: float | None = None
    n_jobs: int | None = None


def summary(
    metrics: SampleMetrics,
    relaxed: RelaxedSamples | None,
    reference: NoveltyReference,
    energy: EnergyAboveHull,
    options: SummaryOptions,
) -> dict[str, Any]:
    """Return all numbers of a sample, JSON-plain."""
    samples, n_jobs = metrics.samples, options.n_jobs
    numbers: dict[str, Any] = {"name": samples.name, "attempts": samples.n_attempts, **summarise(metrics)}
    numbers["failures"] = {samples.places[row]: reason for row, reason in samples.failures.items()}
    numbers["outside_representation"] = {samples.places[row]: reason for row, reason in samples.outside.items()}
    numbers["energies"] = _energies(metrics)
    numbers["space_groups"] = _space_groups(metrics, n_jobs)
    numbers["by_space_group"] = rates_by_space_group(_group_of_attempts(metrics), _flags(metrics))
    if options.weights is not None:
        numbers["weighted"] = weighted_rates(numbers["by_space_group"], options.weights)
    numbers["distribution"] = distribution(samples.crystals, reference.crystals)
    if options.cover is not None:
        numbers["distribution"] |= covered(samples.crystals, options.cover, reference.crystals)
    if options.seconds is not None:
        numbers["sun_per_second"] = float(metrics.sun().sum() / options.seconds)
    if relaxed is not None:
        numbers["relaxed"] = relaxation_summary(relaxed, reference.crystals, options.relaxed_attempts, n_jobs)
    facts = {"reference": reference.facts(), **energy_facts(energy)}
    return numbers | {"provenance": {**facts, "versions": versions(), "definitions": _DEFINITIONS}}


def energy_facts(energy: EnergyAboveHull) -> dict[str, Any]:
    """Return the names of potential and hull, and the hull's SHA-256."""
    path = None if isinstance(energy.hull, ConvexHull) else hull_path(energy.hull)
    hull = {path.name: file_digest(path)} if path is not None else {repr(energy.hull): None}
    return {"potential": energy.potential.name, "hull": hull, "max_depth": energy.max_depth}


def _energies(metrics: SampleMetrics) -> dict[str, Any]:
    """Return quantiles and a histogram of energies above the hull in eV/atom."""
    known = metrics.e_above_hull[np.isfinite(metrics.e_above_hull)]
    quantiles = np.quantile(known, _LEVELS).tolist() if len(known) else []
    counts = np.histogram(known, [-np.inf, *_EDGES, np.inf])[0]
    return {
        "quantiles": dict(zip(map(str, _LEVELS), quantiles, strict=False)),
        "edges": list(_EDGES),
        "counts": counts.tolist(),  # the first below and the last above all edges
        "unscored": metrics.samples.n_attempts - len(known),
    }


def _space_groups(metrics: SampleMetrics, n_jobs: int | None) -> dict[str, Any]:
    """Return who is in P1 and who has the requested group, at two tolerances of the symmetry search in Å."""
    samples = metrics.samples
    requested = samples.requested[samples.rows]
    numbers: dict[str, Any] = {}
    for symprec, found in (("0.01", metrics.detected_group), ("0.1", detected_groups(samples, 0.1, n_jobs))):
        numbers[f"in_p1_{symprec}"] = rate((found == 1).sum(), samples.n_attempts)
        if total := int((samples.requested > 0).sum()):
            obtained = (found == requested) & (requested > 0)
            numbers[f"requested_group_detected_{symprec}"] = rate(obtained.sum(), total)
    return numbers


def _group_of_attempts(metrics: SampleMetrics) -> NDArray[np.int64]:
    """Return the space group (N,) of each attempt: the requested one, else that of its sample, 0 for neither."""
    samples = metrics.samples
    groups = np.zeros(samples.n_attempts, np.int64)
    groups[samples.rows] = metrics.space_group
    return np.where(samples.requested > 0, samples.requested, groups)


def _flags(metrics: SampleMetrics) -> dict[str, NDArray[np.bool_]]:
    """Return name -> (N,) which attempts have it."""
    of_samples = {
        "valid": metrics.valid,
        "stable_0.1": metrics.stable(),
        "sun_0.1": metrics.sun(),
        "sun_0.0": metrics.sun(ON_HULL),
    }
    flags = {name: np.zeros(metrics.samples.n_attempts, bool) for name in of_samples}
    for name, values in of_samples.items():
        flags[name][metrics.samples.rows] = values
    return flags
