"""Evaluation of the crystals of any generator: ``benchmarks.evaluate``."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.summary import SummaryOptions, energy_facts, summary
from benchmarks.metrics.by_space_group import space_group_weights
from benchmarks.metrics.cross_check import cross_check_summary, evaluate_again
from benchmarks.metrics.reference import load_reference
from benchmarks.metrics.relaxation import RelaxedSamples, relax_samples
from benchmarks.metrics.sample import SampleMetrics, evaluate_sample
from benchmarks.samples.readers import read_samples
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from rewards import ConvexHull, EnergyAboveHull

if TYPE_CHECKING:
    from rewards.potentials import Potential


class Evaluation(NamedTuple):
    """The evaluation of a sample.

    Attributes:
        metrics: the samples and their metrics, one by one.
        summary: the numbers, JSON-plain; keys are identifiers of `benchmarks.metrics.labels`.
        relaxed: the first of the samples after relaxation, None if none was relaxed.
        cross_check: the samples with the energies of the cross-check potential, None if there is none.
    """

    metrics: SampleMetrics
    summary: dict[str, Any]
    relaxed: RelaxedSamples | None = None
    cross_check: SampleMetrics | None = None


def evaluate(
    crystals: Any,
    *,
    reference: "CrystalBatch | str | Path | Iterable[str | Path]" = (),
    potential: "str | Potential" = "chgnet",
    hull: str | Path | ConvexHull = "mp20-chgnet",
    max_depth: float | None = None,
    cross_check: "str | Potential | None" = None,
    cross_check_hull: "str | Path | ConvexHull | None" = None,
    weights: "str | Mapping[int, float] | NDArray[np.float64] | None" = None,
    relax: int = 0,
    cover: CrystalBatch | None = None,
    seconds: float | None = None,
    name: str | None = None,
    n_jobs: int | None = None,
) -> Evaluation:
    """Evaluate crystals of any generator.

    Args:
        crystals: anything that `benchmarks.samples.readers.read_samples` reads: a file, a `CrystalBatch`, or a list of
            crystals, pymatgen structures, ASE atoms or CIF texts, with None for a failed attempt.
        reference: crystals that are not novel, or files of them; by default MP-20's in the folder $CRYSTALGEN_DATA.
        potential: a potential or its name.
        hull: a hull, its file, or the name of a shipped one.
        max_depth: maximum depth below the hull in eV/atom of an energy that is accepted, by default any.
        cross_check: a second potential, which evaluates all samples again.
        cross_check_hull: its hull: of its own energies, or of DFT energies on its scale.
        weights: of the space groups, for rates that do not depend on how often each was requested: space group ->
            weight, weights (230,), or ``"mp20"`` for the frequencies in MP-20.
        relax: number of attempts, from the first, that are also relaxed, about a second each.
        cover: a test set that should be covered; see `benchmarks.metrics.distribution.covered`.
        seconds: time that sampling took, for S.U.N. per second.
        name: of the crystals, for the progress bars, by default the file's.
        n_jobs: processes that read and compare structures, None for one a core.

    Raises:
        ValueError: if a file cannot be read, there is no reference, potential and hull are on different scales, or
            an argument has another form.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> evaluation = evaluate([rock_salt, "no crystal", rock_salt], reference=rock_salt.to_batch()[:0], n_jobs=1)
        >>> evaluation.summary["rates"]["sun_0.1"]["count"], evaluation.summary["failures"]["row 1"]
        (1, 'no such structure file: no crystal')
    """
    if relax < 0 or (seconds is not None and not seconds > 0):
        raise InputError(f"relax must not be negative, and seconds positive, got {relax} and {seconds}")
    group_weights = None if weights is None else space_group_weights(weights)
    if (cross_check is None) != (cross_check_hull is None):
        raise InputError(f"cross_check and cross_check_hull belong together, got {cross_check} and {cross_check_hull}")
    energy, known = EnergyAboveHull(potential, hull, max_depth=max_depth), load_reference(reference)
    other = None
    if cross_check is not None and cross_check_hull is not None:
        other = EnergyAboveHull(cross_check, cross_check_hull, max_depth=max_depth)
    samples = read_samples(crystals, n_jobs, name=name)
    metrics = evaluate_sample(samples, known.crystals, energy, n_jobs=n_jobs)
    relaxed = relax_samples(samples.first(relax), energy) if relax else None
    options = SummaryOptions(group_weights, min(relax, samples.n_attempts), cover, seconds, n_jobs)
    numbers = summary(metrics, relaxed, known, energy, options)
    if other is None:
        return Evaluation(metrics, numbers, relaxed)
    second = evaluate_again(metrics, other)
    numbers["cross_check"] = cross_check_summary(metrics, second) | energy_facts(other)
    return Evaluation(metrics, numbers, relaxed, second)
