"""Figures of the quality of samples: energies, rewards, and the score's rate in each space group."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.intervals import wilson
from benchmarks.metrics.sample import OUTLIER_DEPTH, STABLE
from benchmarks.report.figure import BLUE, GREEN, INK, RED, Figure, rate_text, rounded, straight_line
from benchmarks.report.folder import Results

_MIN_ENERGY, _MAX_ENERGY, _BIN = -0.5, 2.0, 0.05  # eV/atom
_MAX_GROUPS = 20


def group_symbol(number: int) -> str:
    """Return the short Hermann-Mauguin symbol of a space group, such as ``"P2₁/c"``."""
    from moyopy import SpaceGroupType

    symbol = str(SpaceGroupType(number).hm_short).replace(" ", "")
    return re.sub(r"_(\d)", lambda match: "₀₁₂₃₄₅₆"[int(match[1])], symbol)


def energies(results: Results) -> Figure | None:
    """Return the histogram of energies above the hull, with the line of the stable ones."""
    values = results.column("e_above_hull")
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    edges = np.linspace(_MIN_ENERGY, _MAX_ENERGY, round((_MAX_ENERGY - _MIN_ENERGY) / _BIN) + 1)
    texts = [f"{low:.2f} to {low + _BIN:.2f} eV/atom" for low in edges[:-1]]
    texts[0], texts[-1] = f"below {edges[1]:.2f} eV/atom", f"above {edges[-2]:.2f} eV/atom"
    bars = _bars(known, edges) | {"text": texts, "hovertemplate": "%{text}: %{y} crystals<extra></extra>"}
    lows = edges[:-1] + 1e-9
    bars["marker"] = {"color": [RED if low < -OUTLIER_DEPTH else GREEN if low < STABLE else BLUE for low in lows]}
    caption = (
        f"{rate_text((known <= STABLE).sum(), len(values))} attempts are stable, within {STABLE} eV/atom of the hull; "
        f"{rate_text(len(known), len(values))} have an energy, half of them below {np.median(known):.3f} eV/atom. "
    )
    if deep := int((known < -OUTLIER_DEPTH).sum()):
        caption += (
            f"{deep} lie more than {OUTLIER_DEPTH} eV/atom below the hull, where the potential is not reliable (red). "
        )
    caption += "Values beyond the edges are in the outermost bars."
    layout = {
        "xaxis": {"title": {"text": "energy above the hull (eV/atom)"}, "range": [_MIN_ENERGY, _MAX_ENERGY]},
        "yaxis": {"title": {"text": "crystals"}},
        "bargap": 0.06,
        "showlegend": False,
        **straight_line("x", STABLE, f" {STABLE} eV/atom"),
    }
    return Figure("energies", "Energy above the hull", caption, [bars], layout)


def totals(results: Results) -> Figure | None:
    """Return the histogram of the rewards, with the line of the successes; not for plain energies."""
    total = results.column("total")
    failed = np.isnan(total)
    if "reward_failure" in results.table:
        failed |= results.table["reward_failure"].notna().to_numpy()
    known = total[~failed]
    if not len(known) or results.task["reward"].endswith(":EnergyAboveHull"):
        return None
    low, high = np.quantile(known, [0.005, 0.995])
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    bars = _bars(known, np.linspace(low, high, 41))
    threshold = results.task["threshold"]
    caption = f"{rate_text((known >= threshold).sum(), len(total))} attempts reach {threshold:g}. "
    caption += (
        f"{rate_text(failed.sum(), len(total))} gave no crystal or could not be scored."
        if failed.any()
        else "All could be scored."
    )
    layout = {
        "xaxis": {"title": {"text": "total of the reward"}},
        "yaxis": {"title": {"text": "crystals"}},
        "bargap": 0.06,
        "showlegend": False,
    }
    if low <= threshold <= high + (high - low) / 2:
        layout |= straight_line("x", threshold, f" {threshold:g}")
    return Figure("totals", "Reward", caption, [bars], layout)


def groups(results: Results) -> Figure | None:
    """Return bars, with Wilson intervals, of the score's rate in each requested space group."""
    name = "requested_space_group" if np.isfinite(results.column("requested_space_group")).any() else "space_group"
    group = results.column(name)
    numbers, counts = np.unique(group[np.isfinite(group)].astype(np.int64), return_counts=True)
    if len(numbers) < 2:
        return None
    what, counted = results.counted
    shown = np.sort(np.argsort(-counts, kind="stable")[:_MAX_GROUPS])
    numbers, counts = numbers[shown], counts[shown]
    hits = np.array([int((counted & (group == number)).sum()) for number in numbers])
    rates = hits / counts
    bounds = np.array([wilson(int(n), int(of)) for n, of in zip(hits, counts, strict=True)])
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [f"{group_symbol(int(number))}  {number}" for number in numbers],
        "x": rounded(100 * rates),
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": rounded(100 * (bounds[:, 1] - rates)),
            "arrayminus": rounded(100 * (rates - bounds[:, 0])),
            "color": INK,
            "thickness": 1.2,
            "width": 3,
        },
        "marker": {"color": BLUE},
        "customdata": [[int(n), int(of)] for n, of in zip(hits, counts, strict=True)],
        "hovertemplate": "%{y}: %{customdata[0]} of %{customdata[1]}, %{x:.1f} %<extra></extra>",
    }
    kind = "requested" if name == "requested_space_group" else "found"
    caption = f"Fraction of the attempts that are {what}, with Wilson intervals at 95 %, by the space group {kind}"
    caption += f" (the {_MAX_GROUPS} most common)." if len(shown) == _MAX_GROUPS else "."
    layout = {
        "xaxis": {"title": {"text": f"{what} (%)"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True, "showgrid": False},
        "showlegend": False,
        "bargap": 0.35,
    }
    return Figure("groups", f"By space group: {what}", caption, [bars], layout, height=90 + 23 * len(numbers))


def _bars(values: NDArray[np.float64], edges: NDArray[np.float64]) -> dict[str, Any]:
    """Return the histogram of values (N,), with values beyond the edges in the outermost bars."""
    counts, _ = np.histogram(np.clip(values, edges[0], np.nextafter(edges[-1], edges[0])), edges)
    return {
        "type": "bar",
        "x": rounded((edges[1:] + edges[:-1]) / 2),
        "y": counts.tolist(),
        "width": float(edges[1] - edges[0]),
        "marker": {"color": BLUE},
        "textposition": "none",
        "hovertemplate": "about %{x:.4g}: %{y} crystals<extra></extra>",
    }
