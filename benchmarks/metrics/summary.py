"""Summaries of samples: rates over all attempts, energies, and variety; keys are identifiers of `metrics.labels`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.intervals import bootstrap, rate
from benchmarks.metrics.labels import ENERGIES, label
from benchmarks.metrics.sample import ON_HULL, OUTLIER_DEPTH, STABLE, SampleMetrics
from benchmarks.samples.samples import Samples
from crystal_env.symmetry.canonical import wyckoff_template
from rewards.matching import reduced_formulas

_UNSCORED = 10.0  # eV/atom: energy that a crystal without one counts with, as in the paper's reward


def summarise(metrics: SampleMetrics) -> dict[str, Any]:
    """Return the rates, the energies and the variety of samples, JSON-plain.

    Failed attempts are in every denominator: they are neither valid, stable, unique nor novel.
    """
    energies, total = metrics.e_above_hull, metrics.samples.n_attempts
    scored, stable = np.isfinite(energies), metrics.stable()
    counts = {
        "structurally_valid": metrics.structurally_valid.sum(),
        "compositionally_valid": metrics.compositionally_valid.sum(),
        "valid": metrics.valid.sum(),
        "unique": len(np.unique(metrics.label)),
        "novel": metrics.novel.sum(),
        "in_p1": (metrics.space_group == 1).sum(),
        "space_group_recovered": metrics.space_group_recovered.sum(),
        "scored": scored.sum(),
        "stable_0.1": stable.sum(),
        "stable_0.0": metrics.stable(ON_HULL).sum(),
        "unique_stable_0.1": metrics.first_of_each(stable).sum(),
        "sun_0.1": metrics.sun().sum(),
        "sun_0.0": metrics.sun(ON_HULL).sum(),
        "sun_0.1_without_outliers": metrics.sun(STABLE, among=energies >= -OUTLIER_DEPTH).sum(),
    }
    clipped = np.where(scored, np.clip(energies, -_UNSCORED, _UNSCORED), _UNSCORED)
    clipped = np.append(clipped, np.full(total - len(energies), _UNSCORED))
    known = energies[scored]
    return {
        "rates": {name: rate(count, total) for name, count in counts.items()},
        "e_above_hull_mean": float(known.mean()) if len(known) else None,
        "e_above_hull_median": float(np.median(known)) if len(known) else None,
        "e_above_hull_mean_unscored_10": float(clipped.mean()) if total else None,
        "intervals": {
            "e_above_hull_mean": bootstrap(known),
            "e_above_hull_median": bootstrap(known, np.median),
            "e_above_hull_mean_unscored_10": bootstrap(clipped),
        },
        "below_hull_outliers_count": int((energies < -OUTLIER_DEPTH).sum()),
        "variety": variety(metrics.samples, metrics.space_group),
    }


def variety(samples: Samples, space_groups: NDArray[np.int64] | None = None) -> dict[str, float]:
    """Return how many formulas, Wyckoff templates, space groups and elements samples have, and how even they are.

    Structures outside the representation count in formulas and space groups only. Entropies are in nats.

    Args:
        samples: the samples.
        space_groups: (B,) theirs, by default those of the crystals.
    """
    crystals = samples.crystals
    kinds: dict[str, list[Any]] = {
        "formula": reduced_formulas(samples.comparable()),
        "template": [wyckoff_template(crystal) for crystal in crystals],
        "space_group": (crystals.G if space_groups is None else space_groups).tolist(),
        "element": crystals.A[crystals.A > 0].tolist(),
    }
    numbers = {}
    for name, values in kinds.items():
        counts = np.array(sorted(Counter(values).values(), reverse=True), float)
        p = counts / max(counts.sum(), 1)
        numbers[f"{name}s"] = float(len(counts))
        numbers[f"largest_{name}_fraction"] = float(p.max(initial=0.0))
        numbers[f"{name}_entropy"] = float(-(p * np.log(np.where(p > 0, p, 1))).sum())
    return numbers


def comparison_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return samples in parallel columns, values with 95 % intervals, as a table in Markdown."""
    names, first = list(summaries), next(iter(summaries.values()))
    rows = [["", *names], ["---"] * (len(names) + 1)]
    rows += [rate_row(name, [summary["rates"][name] for summary in summaries.values()]) for name in first["rates"]]
    for name in ENERGIES:
        cells = [_cell(summary[name], summary["intervals"][name], 1, 3) for summary in summaries.values()]
        rows.append([label(name), *cells])
    for name in first["variety"]:
        rows.append([label(name), *(f"{summary['variety'][name]:.4g}" for summary in summaries.values())])
    return markdown(rows)


def rate_row(name: str, rates: "list[dict[str, Any] | None]", prefix: str = "") -> list[str]:
    """Return a row of such a table: a rate of each sample in per cent with its interval, a dash where it has none."""
    cells = ["–" if entry is None else _cell(entry["rate"], entry["interval"], 100, 1) for entry in rates]
    return [f"{prefix}{label(name)}, %", *cells]


def markdown(rows: list[list[str]]) -> str:
    """Return rows of cells as a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(value: float | None, bounds: "tuple[float, float] | list[float] | None", factor: float, digits: int) -> str:
    if value is None or bounds is None:
        return "–"
    low, high = (f"{factor * bound:.{digits}f}" for bound in bounds)
    return f"{factor * value:.{digits}f} [{low}, {high}]"
