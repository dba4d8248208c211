"""What generated crystals are worth: validity, energy, uniqueness and novelty, one by one and as shares.

Definitions, as in the paper: stable is an energy above the hull of at most 0.1 (or 0.0) eV/atom of the crystal as it
was drawn, without relaxation. S.U.N. counts one after the other: the stable ones, of these one of each structure, of
these those that the reference does not have. Every crystal that was drawn is in the denominator. Structures are the
same by pymatgen's ``StructureMatcher`` with its defaults, among crystals of one reduced formula; no space group is
compared. As that relation is not transitive, crystals are gone through in a fixed order, by energy, then by their text.
What the grammar cannot write down is judged as a structure, by the same rules (`benchmarks.metrics.structures`).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.metrics.distribution import templates
from benchmarks.metrics.structures import text_of, verdicts
from crystal_env import Crystal, CrystalBatch
from crystal_env.reward import Reward, Scorer
from rewards import EnergyAboveHull, Validity
from rewards.matching import Structures, is_novel, reduced_formulas, structure_labels

if TYPE_CHECKING:
    from pymatgen.core import Structure

STABLE = 0.1
"""At most this is stable, as in the paper."""

ON_HULL = 1e-4
"""At most this is on the hull or below: the noise in single precision of a phase that is on it."""

HOLE = 0.2
"""More than this below the hull, the hull lacks a phase or the potential fails: CHGNet puts none of MP-20 there."""

_CHUNK = 64
_MANY = 2000  # crystals whose symmetry is worth starting processes for
_UNSCORED = 10.0  # eV/atom: what a crystal counts that could not be scored, as in the paper's reward


class Examination(NamedTuple):
    """What is known of B crystals and structures.

    Attributes:
        crystals: the crystals, all B or as many as the grammar can write down.
        structural (B,): whether no atoms are closer than 0.5 Å.
        compositional (B,): whether charges can be neutral, by SMACT.
        found (B,): whether the symmetry search finds the space group that was asked for.
        e_above_hull (B,): in eV/atom, NaN where it could not be computed.
        label (B,): row of the first crystal of the same structure.
        novel (B,): whether no training crystal has the same structure.
        foreign: the structures that are no crystals; their rows come after those of the crystals.
        foreign_group: the space groups that the symmetry search finds for these at 0.01 Å, 0 if none.
    """

    crystals: CrystalBatch
    structural: NDArray[np.bool_]
    compositional: NDArray[np.bool_]
    found: NDArray[np.bool_]
    e_above_hull: NDArray[np.float64]
    label: NDArray[np.int64]
    novel: NDArray[np.bool_]
    foreign: "Sequence[Structure] | NDArray[Any]" = ()
    foreign_group: NDArray[np.int64] = np.zeros(0, np.int64)

    def groups(self) -> NDArray[np.int64]:
        """Return the space groups (B,), 0 where there is none."""
        return np.concatenate([self.crystals.G, np.asarray(self.foreign_group, np.int64)])

    def structures(self) -> Structures:
        """Return the B crystals and structures as what `rewards.matching` compares."""
        return joined(self.crystals, self.foreign)


def joined(crystals: CrystalBatch, foreign: "Sequence[Structure] | NDArray[Any]") -> Structures:
    """Return crystals followed by structures."""
    return crystals if not len(foreign) else [*crystals.to_structures(primitive=True), *foreign]


def examine(
    crystals: CrystalBatch,
    training: CrystalBatch,
    energy: Reward | None = None,
    name: str = "crystals",
    n_jobs: int | None = 1,
    foreign: "Sequence[Structure]" = (),
) -> Examination:
    """Look at crystals from all sides; one that breaks a tool counts against it and does not stop the others.

    Args:
        crystals: B crystals.
        training: crystals that are not novel.
        energy: reward with the term ``e_above_hull``, by default `rewards.EnergyAboveHull`.
        name: of the crystals, for the progress bars.
        n_jobs: processes that search for symmetry and compare structures, None for one a core.
        foreign: structures that are no crystals of the grammar, looked at as well.
    """
    validity = Validity()(crystals).terms
    energy = energy or EnergyAboveHull()
    theirs = verdicts(foreign, energy)
    energies = np.concatenate([energies_above_hull(crystals, energy, name), theirs.e_above_hull])
    structures = joined(crystals, foreign)
    return Examination(
        crystals,
        np.concatenate([validity["structural"] > 0, theirs.structural]),
        np.concatenate([validity["compositional"] > 0, theirs.compositional]),
        np.concatenate([space_group_found(crystals, name, n_jobs), theirs.group > 0]),
        energies,
        structure_labels(structures, name, fixed_order(structures, energies), n_jobs),
        is_novel(structures, training, name, n_jobs),
        foreign,
        theirs.group,
    )


def fixed_order(structures: Structures, energies: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows (B,) by energy above the hull (B,), those without one last, and then by their text."""
    texts = [str(one) if isinstance(one, Crystal) else text_of(one) for one in structures]
    return np.lexsort((np.array(texts or [""], str)[: len(texts)], energies))  # NaN sorts last


def space_group_found(
    crystals: CrystalBatch, name: str = "crystals", n_jobs: int | None = 1, symprec: float = 0.01
) -> NDArray[np.bool_]:
    """Return whether the symmetry search, by default at 0.01 Å, gives crystals their own space group (B,)."""
    return detected_groups(crystals, name, n_jobs, symprec) == crystals.G


def detected_groups(
    crystals: CrystalBatch, name: str = "crystals", n_jobs: int | None = 1, symprec: float = 0.01
) -> NDArray[np.int64]:
    """Return the space groups (B,) that the symmetry search finds, 0 where there is none, as for overlapping atoms."""
    from joblib import Parallel, delayed

    starts = range(0, len(crystals), _CHUNK)
    parallel = Parallel(n_jobs=1 if len(crystals) < _MANY else n_jobs or -1, return_as="generator")
    parts = parallel(delayed(_detected)(crystals[start : start + _CHUNK], symprec) for start in starts)
    groups = [np.zeros(0, np.int64)]
    with tqdm(total=len(crystals), desc=f"{name}: symmetry", unit="crystal") as bar:
        for part in parts:
            groups.append(part)
            bar.update(len(part))
    return np.concatenate(groups)


def _detected(crystals: CrystalBatch, symprec: float) -> NDArray[np.int64]:
    groups = np.zeros(len(crystals), np.int64)
    for row, atoms in enumerate(crystals.to_atoms()):
        with suppress(ValueError):
            groups[row] = Crystal.from_structure(atoms, symprec).G
    return groups


def energies_above_hull(crystals: CrystalBatch, energy: Reward, name: str = "crystals") -> NDArray[np.float64]:
    """Return energies above the hull (B,) in eV/atom, NaN where a crystal could not be scored."""
    scorer, result = Scorer(energy, floor=0.0), np.full(len(crystals), np.nan)
    with tqdm(total=len(crystals), desc=f"{name}: energies", unit="crystal") as bar:
        for start in range(0, len(crystals), _CHUNK):
            scores = scorer(crystals[start : start + _CHUNK])
            scored = scores.scored
            if scored.any():
                result[start + np.flatnonzero(scored)] = scores.terms["e_above_hull"][scored]
            bar.update(len(scored))
    return result


def summarise(sample: Examination, unreadable: int = 0) -> dict[str, Any]:
    """Return the shares, each with count, total and interval, the energies and the variety of a sample.

    Args:
        sample: what is known of B crystals.
        unreadable: entries beside these that were no crystals: they count as neither valid, stable, unique nor novel.
    """
    energies, total = sample.e_above_hull, len(sample.e_above_hull) + unreadable
    scored, stable, on_hull = np.isfinite(energies), energies <= STABLE, energies <= ON_HULL  # NaN is not
    believed = stable & (energies >= -HOLE)
    counts = {
        "structurally valid": sample.structural.sum(),
        "compositionally valid": sample.compositional.sum(),
        "valid": (sample.structural & sample.compositional).sum(),
        "unique": len(np.unique(sample.label)),
        "novel": sample.novel.sum(),
        "in P1": (sample.groups() == 1).sum(),
        "space group found again": sample.found.sum(),
        "scored": scored.sum(),
        "stable (≤ 0.1 eV/atom)": stable.sum(),
        "stable (≤ 0 eV/atom)": on_hull.sum(),
        "unique among the stable": len(first_of_each(sample, stable)),
        "S.U.N. (≤ 0.1 eV/atom)": sample.novel[first_of_each(sample, stable)].sum(),
        "S.U.N. (≤ 0 eV/atom)": sample.novel[first_of_each(sample, on_hull)].sum(),
        "S.U.N. (≤ 0.1, none deeper than 0.2 below)": sample.novel[first_of_each(sample, believed)].sum(),
    }
    shares = {
        name: {"count": int(n), "of": total, "share": n / max(total, 1), "interval": wilson(int(n), total)}
        for name, n in counts.items()
    }
    clipped = np.where(scored, np.clip(energies, -_UNSCORED, _UNSCORED), _UNSCORED)
    clipped = np.append(clipped, np.full(unreadable, _UNSCORED))
    return {
        "shares": shares,
        "mean e_above_hull": float(energies[scored].mean()) if scored.any() else None,
        "median e_above_hull": float(np.median(energies[scored])) if scored.any() else None,
        "below hull by more than 0.2 eV/atom": int((energies < -HOLE).sum()),
        "intervals": {
            "mean e_above_hull": bootstrap(energies[scored]),
            "median e_above_hull": bootstrap(energies[scored], np.median),
            "mean e_above_hull, unscored 10": bootstrap(clipped),
        },
        "mean e_above_hull, unscored 10": float(clipped.mean()) if total else None,
        "variety": variety(sample.crystals, sample.foreign, sample.foreign_group),
    }


def first_of_each(sample: Examination, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return one row of each structure among chosen crystals (B,)."""
    rows = np.flatnonzero(chosen)
    return rows[np.unique(sample.label[rows], return_index=True)[1]]


def variety(
    crystals: CrystalBatch,
    foreign: "Sequence[Structure] | NDArray[Any]" = (),
    foreign_group: "Sequence[int] | NDArray[np.int64]" = (),
) -> dict[str, float]:
    """Return how many formulas, prototypes, groups and elements crystals have, and what the most common one makes up.

    Prototypes are those of `benchmarks.metrics.distribution.templates`; elements are those of the sites.
    Structures that are no crystals count in formulas and groups only. Entropies are in nats.
    """
    kinds: dict[str, list[Any]] = {
        "formulas": reduced_formulas(crystals) + reduced_formulas(list(foreign)),
        "prototypes": templates(crystals),
        "space groups": [*crystals.G.tolist(), *np.asarray(foreign_group, int).tolist()],
        "elements": crystals.A[crystals.A > 0].tolist(),
    }
    numbers = {}
    for name, values in kinds.items():
        counts = np.array(sorted(Counter(values).values(), reverse=True), float)
        p = counts / max(counts.sum(), 1)
        numbers[name] = float(len(counts))
        numbers[f"largest share of {name}"] = float(p.max(initial=0.0))
        numbers[f"entropy of {name}"] = float(-(p * np.log(np.where(p > 0, p, 1))).sum())
    return numbers


def table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return samples side by side, values with 95 % intervals, as a table in Markdown."""
    names = list(summaries)
    first = summaries[names[0]]
    rows = [["", *names], ["---"] * (len(names) + 1)]
    for share in first["shares"]:
        entries = [summaries[name]["shares"][share] for name in names]
        rows.append([f"{share}, %", *(_interval(e["share"], e["interval"], 100, 1) for e in entries)])
    for number in first["intervals"]:
        cells = [_interval(summaries[name][number], summaries[name]["intervals"][number], 1, 3) for name in names]
        rows.append([f"{number}, eV/atom", *cells])
    rows += [[number, *(f"{summaries[name]['variety'][number]:.4g}" for name in names)] for number in first["variety"]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _interval(value: float | None, bounds: tuple[float, float] | None, factor: float, digits: int) -> str:
    if value is None or bounds is None:
        return "–"
    low, high = (f"{factor * bound:.{digits}f}" for bound in bounds)
    return f"{factor * value:.{digits}f} [{low}, {high}]"


def bootstrap(
    values: NDArray[np.float64], statistic: Callable[..., Any] = np.mean, repeats: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval at 95 % of a statistic of values (N,), None where there are none."""
    if not len(values):
        return None
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(repeats)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def wilson(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's interval of a share, by default at 95 % (Wilson, J. Am. Stat. Assoc. 22, 209 (1927))."""
    if not total:
        return 0.0, 1.0
    share, weight = count / total, z**2 / total
    middle, width = share + weight / 2, z * np.sqrt(share * (1 - share) / total + weight / (4 * total))
    low, high = (middle - width) / (1 + weight), (middle + width) / (1 + weight)
    return (float(low) if count else 0.0), (float(high) if count < total else 1.0)  # rounding leaves the bounds there
