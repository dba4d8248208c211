"""What makes a score doubtful: crystals that only fool the potential, many times the same, rewards that are not theirs.

A check that fails does not change a score; it stands beside it on the leaderboard. Limits are constants of this module,
each with its reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.sample import HOLE, STABLE, Examination, variety
from crystal_env.crystal import CrystalBatch
from crystal_env.wyckoff import N_GROUPS
from rewards.combinators.cache import Keys
from rewards.density import densities
from rewards.matching import Reference, reduced_formulas, structure_labels

MOST_HOLES = 0.01  # share of the crystals, and what is due to chance: the base model has 0.9 %
CLOSE = 0.6  # of the sum of covalent radii: none of 3,000 crystals of MP-20 has a distance that short
DENSEST = 25.0  # g/cm^3: osmium has 22.6
THINNEST = 0.2  # g/cm^3: the lightest crystal of MP-20's validation set has 0.22
MOST_STRANGE = 0.05  # share of the crystals, for distances and densities
MOST_OF_ONE = {"formulas": 0.05, "prototypes": 0.25, "space groups": 0.5}
LANTHANIDES_LEFT = 0.8  # of the different structures, if lanthanides are exchanged
JUDGE_AGREES = 0.7  # share of the stable crystals that a second judge finds stable
RECOMPUTED = 0.05  # share of the rewards
TOLERANCE = 1e-3  # of a reward: a potential in single precision, in batches of other sizes
MOST_APART = 0.05  # total variation between requested and drawn space groups
LEAST_AT_REST = 0.5  # share of the stable crystals that relaxation leaves the same structure
STRONGEST = 10.0  # eV/Å
ASKED_BEFORE = "asked before"  # name of the check
_LANTHANIDES = (57, 71)
_CHANCE = 0.99  # quantile of what would be seen by chance
_REPEATS = 500


@dataclass(frozen=True)
class Check:
    """The outcome of a check.

    Attributes:
        name: what is wrong if it fails.
        passed: None if it does not apply, or only informs.
        value: what was measured.
        limit: what is allowed, in words.
        detail: what was measured, in words.
    """

    name: str
    passed: bool | None
    value: float | None
    limit: str
    detail: str


def checks(
    sample: Examination,
    *,
    constraints: Mapping[str, Any],
    counts: NDArray[np.bool_],
    of_best: bool = False,
    requested: NDArray[np.int64],
    obtained: NDArray[np.int64],
    trace: CrystalBatch,
    totals: NDArray[np.float64],
    recompute: Callable[[CrystalBatch], NDArray[np.float64]],
    judge: Callable[[CrystalBatch], NDArray[np.float64]] | None = None,
    relaxed: Mapping[str, NDArray[Any]] | None = None,
    validation: CrystalBatch | None = None,
    asked: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> list[Check]:
    """Run all checks.

    Args:
        sample: what is known of the n crystals that were drawn.
        constraints: of the task: what they fix cannot be varied.
        counts: (n,) who may count in the score: distances and densities of these are looked at, of the stable ones if
            there are energies.
        of_best: the score asks for the best crystals, not for many: who has found them may draw them again and again.
        requested: (N,) space groups of the attempts, 0 where any will do.
        obtained: (n,) which attempts the crystals are of.
        trace: (M) crystals that the oracle was asked for.
        totals: (M,) its answers.
        recompute: the task's reward (B,) of crystals.
        judge: a second potential's energies above its hull (B,) in eV/atom, NaN where it has none.
        relaxed: what `benchmarks.metrics.relaxation.outcomes` gives.
        validation: crystals that no agent may know.
        asked: (M,) which of the trace the agent had asked for before it drew, by default all.
        seed: of what is looked at in parts.
    """
    judged = bool(np.isfinite(sample.e_above_hull).any())
    counted = sample.crystals[counts & (sample.e_above_hull <= STABLE) if judged else counts]
    return [
        rewards_differ(trace, totals, recompute, seed),
        holes(sample.e_above_hull) if judged else _none("holes", "energies are not asked for"),
        short_distances(counted),
        strange_densities(counted),
        *(one_kind(sample.crystals, kind, constraints, of_best) for kind in MOST_OF_ONE),
        lanthanide_exchange(sample, constraints),
        requested_groups(requested, obtained, seed),
        second_judge(sample, judge),
        *relaxation(relaxed),
        rediscovery(sample.crystals, validation),
        asked_before(sample.crystals, trace if asked is None else trace[asked]),
    ]


def rewards_differ(
    trace: CrystalBatch,
    totals: NDArray[np.float64],
    recompute: Callable[[CrystalBatch], NDArray[np.float64]],
    seed: int = 0,
) -> Check:
    """Compute a part of the rewards again."""
    name, limit = "rewards differ", f"{RECOMPUTED:.0%} computed again, within {TOLERANCE:g}"
    if not len(trace):
        return Check(name, None, None, limit, "the oracle was not asked")
    size = max(1, round(RECOMPUTED * len(trace)))
    rows = np.sort(np.random.default_rng(seed).choice(len(trace), size, replace=False))
    apart = np.abs(recompute(trace[rows]) - totals[rows])
    wrong = int((~(apart <= TOLERANCE * np.maximum(1, np.abs(totals[rows])))).sum())  # NaN is wrong
    return Check(name, not wrong, wrong / size, limit, f"{wrong} of {size} differ, by up to {apart.max():.2g}")


def holes(e_above_hull: NDArray[np.float64]) -> Check:
    """Count crystals far below the hull: there the potential errs, or the hull lacks a phase.

    A sample of an agent that has as many as are allowed may by chance have more: that is allowed for.
    """
    from scipy.stats import binom

    n = len(e_above_hull)
    deep, allowed = int((e_above_hull < -HOLE).sum()), int(binom.ppf(_CHANCE, n, MOST_HOLES))
    limit = f"at most {MOST_HOLES:.0%} deeper than {HOLE} eV/atom below the hull, or what is due to chance"
    detail = f"{deep} crystals, up to {allowed} of {n} are allowed"
    return Check("holes", deep <= allowed, deep / max(n, 1), limit, detail)


def short_distances(crystals: CrystalBatch) -> Check:
    """Count crystals with atoms much closer than the sum of their covalent radii (Cordero et al., 2008)."""
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    close = 0
    for atoms in crystals.to_atoms():
        reach = CLOSE * covalent_radii[atoms.numbers]
        close += bool(len(neighbor_list("i", atoms, reach)))
    share = close / max(len(crystals), 1)
    limit = f"at most {MOST_STRANGE:.0%} with atoms closer than {CLOSE} of the sum of covalent radii"
    return Check("short distances", share <= MOST_STRANGE, share, limit, f"{close} crystals")


def strange_densities(crystals: CrystalBatch) -> Check:
    """Count crystals denser or thinner than matter is."""
    values = densities(crystals)
    strange = int(((values > DENSEST) | (values < THINNEST)).sum())
    share = strange / max(len(crystals), 1)
    limit = f"at most {MOST_STRANGE:.0%} outside {THINNEST:g} to {DENSEST:g} g/cm³"
    return Check("densities", share <= MOST_STRANGE, share, limit, f"{strange} crystals")


def one_kind(crystals: CrystalBatch, kind: str, constraints: Mapping[str, Any], of_best: bool = False) -> Check:
    """Say how large the share of the most common formula, prototype or space group is.

    It only informs where the score is `of_best`.
    """
    name, limit = f"one {kind.removesuffix('s')}", f"at most {MOST_OF_ONE[kind]:.0%} of one kind"
    given = {
        "formulas": constraints.get("formula"),
        "prototypes": constraints.get("wyckoff_letters") or isinstance(constraints.get("space_group"), int),
        "space groups": not isinstance(constraints.get("space_group", "agent"), str),
    }
    if given[kind] or not len(crystals):
        return _none(name, "the task leaves no choice")
    share = variety(crystals)[f"largest share of {kind}"]
    different = round(share * len(crystals)) == 1  # a few crystals, all of them different
    detail = f"the most common one makes up {share:.1%}"
    if of_best:
        return Check(name, None, share, "for information: the score asks for the best, not for many", detail)
    return Check(name, different or share <= MOST_OF_ONE[kind], share, limit, detail)


def lanthanide_exchange(sample: Examination, constraints: Mapping[str, Any]) -> Check:
    """Count different structures anew with all lanthanides taken for one element."""
    name = "lanthanide exchange"
    if not len(sample.crystals) or constraints.get("formula"):
        return _none(name, "the task leaves no choice")
    different = sample.crystals[np.unique(sample.label, return_index=True)[1]]
    A = different.A.copy()
    A[(_LANTHANIDES[0] <= A) & (_LANTHANIDES[1] >= A)] = _LANTHANIDES[0]
    rows = np.flatnonzero(np.isin(A, _LANTHANIDES[0]).any(1))  # the others stay as different as they are
    exchanged = CrystalBatch(different.G, different.W, A, different.XYZ, different.L)[rows]
    before = len(different)
    after = before - len(rows) + len(np.unique(structure_labels(exchanged)))
    limit = f"at least {LANTHANIDES_LEFT:.0%} of the structures are left"
    detail = f"{before} structures, {after} with all lanthanides as one"
    return Check(name, after >= LANTHANIDES_LEFT * before, after / before, limit, detail)


def requested_groups(requested: NDArray[np.int64], obtained: NDArray[np.int64], seed: int = 0) -> Check:
    """Compare the space groups of the attempts with those of the crystals that came of them.

    Attempts that fail at random leave groups apart as well, the more the fewer there are: that is allowed for.
    """
    name, limit = "requested groups", f"total variation of at most {MOST_APART:g}, or what is due to chance"
    if not requested.any() or not len(obtained):
        return _none(name, "no groups were requested" if len(obtained) else "there is no crystal")
    wanted = _frequencies(requested)
    apart = _total_variation(wanted, requested[obtained])
    rng = np.random.default_rng(seed)
    by_chance = [_total_variation(wanted, rng.permutation(requested)[: len(obtained)]) for _ in range(_REPEATS)]
    allowed = max(MOST_APART, float(np.quantile(by_chance, _CHANCE)))
    detail = f"{len(obtained)} of {len(requested)} attempts gave a crystal, up to {allowed:.3f} is allowed"
    return Check(name, apart <= allowed, apart, limit, detail)


def second_judge(sample: Examination, judge: Callable[[CrystalBatch], NDArray[np.float64]] | None) -> Check:
    """Ask another potential about the crystals that are stable."""
    name, limit = "second judge", f"at least {JUDGE_AGREES:.0%} of the stable crystals are stable for it too"
    rows = np.flatnonzero(sample.e_above_hull <= STABLE)
    if judge is None or not len(rows):
        return Check(name, None, None, limit, "there is no second judge" if judge is None else "no crystal is stable")
    other = judge(sample.crystals[rows])
    share = float((other <= STABLE).mean())
    gap = other - sample.e_above_hull[rows]
    known = np.isfinite(gap)
    middle = f"{np.median(gap[known]):+.3f} eV/atom" if known.any() else "unknown"
    return Check(name, share >= JUDGE_AGREES, share, limit, f"{len(rows)} stable crystals, median gap {middle}")


def relaxation(relaxed: Mapping[str, NDArray[Any]] | None) -> list[Check]:
    """Say whether stable crystals are at rest, and how strong their forces are."""
    names = ("not at rest", "forces")
    limits = (
        f"relaxation leaves at least {LEAST_AT_REST:.0%} the same structure",
        f"at most {MOST_STRANGE:.0%} above {STRONGEST:g} eV/Å",
    )
    if relaxed is None or not len(relaxed["same"]):
        return [
            Check(name, None, None, limit, "nothing was relaxed") for name, limit in zip(names, limits, strict=True)
        ]
    same, strong = float(relaxed["same"].mean()), float((relaxed["force"] > STRONGEST).mean())
    rest = f"{len(relaxed['same'])} relaxed, {relaxed['group'].mean():.0%} keep their group, "
    rest += f"median RMSD {_median(relaxed['rmsd']):.3f}, median gain {_median(relaxed['gain']):.3f} eV/atom"
    if reasons := [reason for reason in relaxed["failures"] if reason is not None]:
        rest += f"; {len(reasons)} could not be relaxed: {reasons[0]}"
    known = relaxed["force"][np.isfinite(relaxed["force"])]
    largest = f"largest {known.max():.2f} eV/Å" if len(known) else "no forces are known"
    return [
        Check(names[0], same >= LEAST_AT_REST, same, limits[0], rest),
        Check(names[1], strong <= MOST_STRANGE if len(known) else None, strong, limits[1], largest),
    ]


def rediscovery(crystals: CrystalBatch, validation: CrystalBatch | None) -> Check:
    """Say how many crystals are in the validation data: a good sign, unless the agent has seen them."""
    name = "rediscovery of validation data"
    if validation is None or not len(crystals):
        return _none(name, "there are no validation data" if validation is None else "there is no crystal")
    share = float(Reference(validation).contains(crystals).mean())
    return Check(name, None, share, "for information", f"{share:.1%} of the crystals")


def asked_before(crystals: CrystalBatch, asked: CrystalBatch) -> Check:
    """Say how many crystals the oracle had answered for: many of a search that returns its best, few of a model."""
    if not len(asked) or not len(crystals):
        return _none(ASKED_BEFORE, "nothing was asked" if len(crystals) else "there is no crystal")
    mine = set(_kinds(crystals))
    keys = Keys()
    known = set(keys(asked[[kind in mine for kind in _kinds(asked)]]))
    share = float(np.mean([key in known for key in keys(crystals)]))
    return Check(ASKED_BEFORE, None, share, "for information", f"{share:.1%} of the crystals")


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
