"""Checks of the integrity of a score: crystals that only fool the potential, repeats, rewards of another origin.

A check that fails does not change a score; it stands beside it on the leaderboard. Names of checks are identifiers,
labelled in `benchmarks.metrics.labels`. Limits are constants of this module, each with its reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.relaxation import RelaxedSamples
from benchmarks.metrics.sample import OUTLIER_DEPTH, STABLE, SampleMetrics
from benchmarks.metrics.summary import variety
from benchmarks.samples.samples import Samples
from crystal_env.crystal import CrystalBatch
from crystal_env.wyckoff import N_GROUPS
from rewards.combinators.cache import Keys
from rewards.density import densities
from rewards.matching import Reference, reduced_formulas, structure_labels

MAX_OUTLIER_FRACTION = 0.01  # of the samples, beyond what is due to chance: the base model has 0.9 %
MIN_DISTANCE = 0.6  # of the sum of covalent radii: none of 3,000 crystals of MP-20 has a distance that short
MAX_DENSITY = 25.0  # g/cm^3: osmium has 22.6
MIN_DENSITY = 0.2  # g/cm^3: the lightest crystal of MP-20's validation set has 0.22
MAX_IMPLAUSIBLE = 0.05  # fraction of the samples, for distances, densities and forces
MAX_OF_ONE = {"formula": 0.05, "template": 0.25, "space_group": 0.5}  # fraction of the samples
MIN_WITHOUT_LANTHANIDES = 0.8  # fraction of the different structures, if lanthanides are exchanged
MIN_CROSS_CHECK = 0.7  # fraction of the stable samples that are stable by the cross-check potential
RECOMPUTED = 0.05  # fraction of the rewards
TOLERANCE = 1e-3  # of a reward: a potential in single precision, in batches of other sizes
MAX_GROUP_VARIATION = 0.05  # total variation between requested and obtained space groups
MIN_LOCAL_MINIMA = 0.5  # fraction of the stable samples that relaxation leaves the same structure
MAX_FORCE = 10.0  # eV/Å
PREVIOUSLY_QUERIED = "previously_queried"  # name of the check
_LANTHANIDES = (57, 71)
_CHANCE = 0.99  # quantile of what would be seen by chance
_REPEATS = 500


@dataclass(frozen=True)
class Check:
    """The outcome of a check.

    Attributes:
        name: identifier of what is wrong if it fails.
        passed: None if it does not apply, or only informs.
        value: the measured number.
        limit: the allowed range, in words.
        detail: the measured number, in words.
    """

    name: str
    passed: bool | None
    value: float | None
    limit: str
    detail: str


def integrity_checks(
    metrics: SampleMetrics,
    *,
    constraints: Mapping[str, Any],
    counted: NDArray[np.bool_],
    of_best: bool = False,
    trace: CrystalBatch,
    totals: NDArray[np.float64],
    recompute: Callable[[CrystalBatch], NDArray[np.float64]],
    cross_check: Callable[[Samples], NDArray[np.float64]] | None = None,
    relaxed: RelaxedSamples | None = None,
    validation: CrystalBatch | None = None,
    queried: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> list[Check]:
    """Run all checks.

    Args:
        metrics: the B samples and their metrics.
        constraints: constraints of the task: what they fix cannot be varied.
        counted: (B,) who may count in the score: distances and densities of these are checked, of the stable ones if
            there are energies.
        of_best: the score asks for the best crystals, not for many: an agent that has found them may repeat them.
        trace: (M) crystals that the oracle scored.
        totals: (M,) their totals.
        recompute: the task's reward (B,) of crystals.
        cross_check: another potential's energies above its hull (B,) in eV/atom, NaN where it has none.
        relaxed: some of the stable samples after relaxation.
        validation: crystals that no agent may know.
        queried: (M,) which of the trace the agent had queried before it was sampled, by default all.
        seed: seed of random subsets.
    """
    samples, energetic = metrics.samples, bool(np.isfinite(metrics.e_above_hull).any())
    scored = samples.take(counted & metrics.stable() if energetic else counted)
    return [
        rewards_differ(trace, totals, recompute, seed),
        below_hull_outliers(metrics.e_above_hull)
        if energetic
        else _none("below_hull_outliers", "the task has no energies"),
        short_distances(scored),
        implausible_densities(scored),
        *(one_kind(samples, kind, constraints, of_best) for kind in MAX_OF_ONE),
        lanthanide_exchange(metrics, constraints),
        requested_groups(samples, seed),
        cross_checked(metrics, cross_check),
        *local_minima(relaxed),
        rediscovery(samples, validation),
        previously_queried(samples, trace if queried is None else trace[queried]),
    ]


def rewards_differ(
    trace: CrystalBatch,
    totals: NDArray[np.float64],
    recompute: Callable[[CrystalBatch], NDArray[np.float64]],
    seed: int = 0,
) -> Check:
    """Compute a part of the rewards again."""
    name, limit = "rewards_differ", f"{RECOMPUTED:.0%} recomputed, within {TOLERANCE:g}"
    if not len(trace):
        return Check(name, None, None, limit, "the oracle was not queried")
    size = max(1, round(RECOMPUTED * len(trace)))
    rows = np.sort(np.random.default_rng(seed).choice(len(trace), size, replace=False))
    apart = np.abs(recompute(trace[rows]) - totals[rows])
    wrong = int((~(apart <= TOLERANCE * np.maximum(1, np.abs(totals[rows])))).sum())  # NaN is wrong
    return Check(name, not wrong, wrong / size, limit, f"{wrong} of {size} differ, by up to {apart.max():.2g}")


def below_hull_outliers(e_above_hull: NDArray[np.float64]) -> Check:
    """Count samples far below the hull: there the potential errs, or the hull lacks a phase.

    A sample with as large a fraction as is allowed may by chance have more: that is allowed for.
    """
    from scipy.stats import binom

    n = len(e_above_hull)
    deep, allowed = int((e_above_hull < -OUTLIER_DEPTH).sum()), int(binom.ppf(_CHANCE, n, MAX_OUTLIER_FRACTION))
    limit = f"at most {MAX_OUTLIER_FRACTION:.0%} deeper than {OUTLIER_DEPTH} eV/atom below the hull, or chance"
    detail = f"{deep} crystals, up to {allowed} of {n} are allowed"
    return Check("below_hull_outliers", deep <= allowed, deep / max(n, 1), limit, detail)


def short_distances(samples: Samples) -> Check:
    """Count samples with atoms much closer than the sum of their covalent radii (Cordero et al., 2008)."""
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    close = 0
    for atoms in samples.to_atoms():
        radii = MIN_DISTANCE * covalent_radii[atoms.numbers]
        close += bool(len(neighbor_list("i", atoms, radii)))
    fraction = close / max(len(samples), 1)
    limit = f"at most {MAX_IMPLAUSIBLE:.0%} with atoms closer than {MIN_DISTANCE} of the sum of covalent radii"
    return Check("short_distances", fraction <= MAX_IMPLAUSIBLE, fraction, limit, f"{close} crystals")


def implausible_densities(samples: Samples) -> Check:
    """Count samples of a density that no crystal has."""
    values = samples.merge(densities(samples.crystals), [float(one.density) for one in samples.structures])
    strange = int(((values > MAX_DENSITY) | (values < MIN_DENSITY)).sum())
    fraction = strange / max(len(samples), 1)
    limit = f"at most {MAX_IMPLAUSIBLE:.0%} outside {MIN_DENSITY:g} to {MAX_DENSITY:g} g/cm³"
    return Check("implausible_densities", fraction <= MAX_IMPLAUSIBLE, fraction, limit, f"{strange} crystals")


def one_kind(samples: Samples, kind: str, constraints: Mapping[str, Any], of_best: bool = False) -> Check:
    """Check the fraction of the most common formula, Wyckoff template or space group.

    It only informs where the score is `of_best`.
    """
    name, limit = f"one_{kind}", f"at most {MAX_OF_ONE[kind]:.0%} of one kind"
    fixed = {
        "formula": constraints.get("formula"),
        "template": constraints.get("wyckoff_letters") or isinstance(constraints.get("space_group"), int),
        "space_group": not isinstance(constraints.get("space_group", "agent"), str),
    }
    if fixed[kind] or not len(samples):
        return _none(name, "the task leaves no choice")
    fraction = variety(samples)[f"largest_{kind}_fraction"]
    different = round(fraction * len(samples)) == 1  # a few samples, all of them different
    detail = f"the most common one makes up {fraction:.1%}"
    if of_best:
        return Check(name, None, fraction, "for information: the score asks for the best, not for many", detail)
    return Check(name, different or fraction <= MAX_OF_ONE[kind], fraction, limit, detail)


def lanthanide_exchange(metrics: SampleMetrics, constraints: Mapping[str, Any]) -> Check:
    """Count the different structures again with all lanthanides replaced by one element."""
    name, samples = "lanthanide_exchange", metrics.samples
    if not len(samples.crystals) or constraints.get("formula"):
        return _none(name, "the task leaves no choice")
    distinct = np.unique(metrics.label[samples.represented], return_index=True)[1]
    different = samples.crystals[distinct]
    A = different.A.copy()
    A[(_LANTHANIDES[0] <= A) & (_LANTHANIDES[1] >= A)] = _LANTHANIDES[0]
    rows = np.flatnonzero(np.isin(A, _LANTHANIDES[0]).any(1))  # the others stay as different as they are
    exchanged = CrystalBatch(different.G, different.W, A, different.XYZ, different.L)[rows]
    before = len(different)
    after = before - len(rows) + len(np.unique(structure_labels(exchanged)))
    limit = f"at least {MIN_WITHOUT_LANTHANIDES:.0%} of the structures are left"
    detail = f"{before} structures, {after} with all lanthanides as one"
    return Check(name, after >= MIN_WITHOUT_LANTHANIDES * before, after / before, limit, detail)


def requested_groups(samples: Samples, seed: int = 0) -> Check:
    """Compare the requested space groups of all attempts with those of the attempts that succeeded.

    Attempts that fail at random leave groups apart as well, the more the fewer there are: that is allowed for.
    """
    name, limit = "requested_groups", f"total variation of at most {MAX_GROUP_VARIATION:g}, or chance"
    requested, obtained = samples.requested, samples.rows
    if not requested.any() or not len(obtained):
        return _none(name, "no groups were requested" if len(obtained) else "there is no crystal")
    wanted = _frequencies(requested)
    apart = _total_variation(wanted, requested[obtained])
    rng = np.random.default_rng(seed)
    by_chance = [_total_variation(wanted, rng.permutation(requested)[: len(obtained)]) for _ in range(_REPEATS)]
    allowed = max(MAX_GROUP_VARIATION, float(np.quantile(by_chance, _CHANCE)))
    detail = f"{len(obtained)} of {len(requested)} attempts gave a crystal, up to {allowed:.3f} is allowed"
    return Check(name, apart <= allowed, apart, limit, detail)


def cross_checked(metrics: SampleMetrics, cross_check: Callable[[Samples], NDArray[np.float64]] | None) -> Check:
    """Evaluate the stable samples with another potential."""
    name, limit = "cross_check", f"at least {MIN_CROSS_CHECK:.0%} of the stable crystals are stable by it"
    rows = np.flatnonzero(metrics.stable())
    if cross_check is None or not len(rows):
        detail = "no cross-check potential" if cross_check is None else "no crystal is stable"
        return Check(name, None, None, limit, detail)
    other = cross_check(metrics.samples.take(rows))
    fraction = float((other <= STABLE).mean())
    gap = other - metrics.e_above_hull[rows]
    known = np.isfinite(gap)
    middle = f"{np.median(gap[known]):+.3f} eV/atom" if known.any() else "unknown"
    detail = f"{len(rows)} stable crystals, median gap {middle}"
    return Check(name, fraction >= MIN_CROSS_CHECK, fraction, limit, detail)


def local_minima(relaxed: RelaxedSamples | None) -> list[Check]:
    """Check whether stable samples are at a local minimum, and their forces."""
    names = ("not_local_minimum", "large_forces")
    limits = (
        f"relaxation leaves at least {MIN_LOCAL_MINIMA:.0%} the same structure",
        f"at most {MAX_IMPLAUSIBLE:.0%} above {MAX_FORCE:g} eV/Å",
    )
    if relaxed is None or not len(relaxed.samples):
        return [
            Check(name, None, None, limit, "nothing was relaxed") for name, limit in zip(names, limits, strict=True)
        ]
    same, strong = float(relaxed.same_structure.mean()), float((relaxed.max_force > MAX_FORCE).mean())
    minimum = f"{len(relaxed.samples)} relaxed, {relaxed.space_group_kept.mean():.0%} keep their space group, "
    minimum += f"median RMSD {_median(relaxed.rmsd):.3f} Å, median gain {_median(relaxed.energy_gain):.3f} eV/atom"
    if reasons := [reason for reason in relaxed.failures if reason is not None]:
        minimum += f"; {len(reasons)} could not be relaxed: {reasons[0]}"
    known = relaxed.max_force[np.isfinite(relaxed.max_force)]
    largest = f"largest {known.max():.2f} eV/Å" if len(known) else "no forces are known"
    return [
        Check(names[0], same >= MIN_LOCAL_MINIMA, same, limits[0], minimum),
        Check(names[1], strong <= MAX_IMPLAUSIBLE if len(known) else None, strong, limits[1], largest),
    ]


def rediscovery(samples: Samples, validation: CrystalBatch | None) -> Check:
    """Count samples in the validation data: a good sign, unless the agent was trained on them."""
    name = "rediscovery"
    if validation is None or not len(samples):
        return _none(name, "there are no validation data" if validation is None else "there is no crystal")
    fraction = float(Reference(validation).contains(samples.comparable()).mean())
    return Check(name, None, fraction, "for information", f"{fraction:.1%} of the crystals")


def previously_queried(samples: Samples, queried: CrystalBatch) -> Check:
    """Count crystals that the oracle had scored: many of a search that returns its best, few of a model."""
    crystals = samples.crystals
    if not len(queried) or not len(crystals):
        return _none(PREVIOUSLY_QUERIED, "no queries" if len(crystals) else "there is no crystal")
    mine = set(_kinds(crystals))
    keys = Keys()
    known = set(keys(queried[[kind in mine for kind in _kinds(queried)]]))
    fraction = sum(key in known for key in keys(crystals)) / len(samples)
    return Check(PREVIOUSLY_QUERIED, None, fraction, "for information", f"{fraction:.1%} of the crystals")


def _kinds(crystals: CrystalBatch) -> list[tuple[int, bytes]]:
    return list(zip(crystals.G.tolist(), reduced_formulas(crystals), strict=True))


def _frequencies(groups: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.bincount(groups, minlength=N_GROUPS + 1) / len(groups)


def _total_variation(wanted: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    return float(np.abs(wanted - _frequencies(groups)).sum() / 2)


def _median(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _none(name: str, why: str) -> Check:
    return Check(name, None, None, "", why)
