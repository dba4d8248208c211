"""Figures over oracle calls, and of one property over another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.intervals import MIN_SEEDS, interval_name, t_interval
from benchmarks.metrics.sample import STABLE
from benchmarks.report.figure import BLUE, FAINT, GREEN, LINE, MUTED, ORANGE, Figure, rounded, straight_line
from benchmarks.report.folder import Results

_TOPS = {"top_1": BLUE, "top_10": ORANGE, "top_100": GREEN}
_MAX_POINTS = 3000


def learning(results: Results) -> Figure | None:
    """Return the best 1, 10 and 100 totals over oracle calls, with intervals over seeds."""
    curves = [entry["curve"] for entry in results.seeds if entry.get("curve", {}).get("calls")]
    curves = [curve for curve in curves if curve["calls"] == curves[0]["calls"]]
    if not curves:
        return None
    calls = curves[0]["calls"]
    data = [_answers(results)] if len(results.trace) else []
    threshold, seen = results.task["threshold"], []
    for name, colour in _TOPS.items():
        middle, low, high = curve_over_seeds(np.array([curve[name] for curve in curves], np.float64))
        if len(curves) > 1:
            data.append(_band(calls, low, high, colour, name))
        data.append(_line(calls, middle, f"best {name.removeprefix('top_')}", {"color": colour, "width": 2}, name))
        seen += [low, high]
    means = _smooth(curve_over_seeds(np.array([curve["mean"] for curve in curves], np.float64))[0])
    data.append(_line(calls, means, "all", {"color": MUTED, "width": 1.2, "dash": "dot"}, "mean"))
    lowest, highest = float(np.nanmin(seen)), float(np.nanmax(seen))
    lowest, highest = min(threshold, max(lowest, results.task["range"][0])), max(threshold, highest)
    pad = 0.06 * (highest - lowest or 1)
    layout = {
        "xaxis": {"title": {"text": "oracle calls"}, "range": [0, max(calls)], "tickformat": "~s"},
        "yaxis": {"title": {"text": "total of the reward"}, "range": [lowest - pad, highest + pad]},
        "hovermode": "x unified",
        **straight_line("y", threshold, f"success from {threshold:g}", MUTED),
    }
    return Figure("learning", "Learning", _caption(len(curves)), data, layout, height=420)


def curve_over_seeds(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return the mean, the lower and the upper end of curves (seeds, P), each (P,).

    The ends are those of Student's interval at 95 %, of fewer than five seeds the lowest and the highest value.
    """
    if len(values) < MIN_SEEDS:
        return values.mean(0), values.min(0), values.max(0)
    return values.mean(0), *t_interval(values)


def scatter(results: Results) -> Figure | None:
    """Return two properties of the crystals against each other, with lines of equal reward.

    Of a reward with two terms these; else energy above the hull and density; without energies density and volume.
    """
    if not len(results.rows):
        return None
    terms = set(results.terms())
    if {"band_gap", "dielectric_constant"} <= terms:
        return _figure_of_merit(results)
    if {"bulk_modulus", "e_above_hull"} <= terms:
        return _pareto(results)
    return _energy_density(results) if results.has_energies else _volume_density(results)


def _smooth(values: NDArray[np.float64], width: int = 9) -> NDArray[np.float64]:
    """Return running means of values (N,)."""
    window = np.ones(min(width, len(values)))
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def _caption(n: int) -> str:
    text = "Mean of the best 1, 10 and 100 totals so far, and a running mean of all (dotted). "
    text += f"Lines are means, bands the {interval_name(n)}." if n > 1 else "One seed."
    return text + " Dots are answers of the oracle."


def _answers(results: Results) -> dict[str, Any]:
    """Return dots for answers of the oracle, evenly thinned."""
    scored = results.trace[~results.trace["failed"].to_numpy()]
    scored = scored.iloc[:: max(1, -(-len(scored) // _MAX_POINTS))]
    return {"type": "scatter", "mode": "markers", "name": "answers", "x": scored["call"].tolist(),
            "y": rounded(scored["total"], 4), "marker": {"color": FAINT, "size": 3}, "hoverinfo": "skip",
            "showlegend": False}  # fmt: skip


def _line(calls: list[int], y: NDArray[np.float64], name: str, line: dict[str, Any], group: str) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "name": name, "legendgroup": group, "x": calls, "y": rounded(y),
            "line": line, "hovertemplate": f"{name}: %{{y:.4g}}<extra></extra>"}  # fmt: skip


def _band(
    calls: list[int], low: NDArray[np.float64], high: NDArray[np.float64], colour: str, name: str
) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "x": calls + calls[::-1], "y": rounded([*high, *low[::-1]]),
            "fill": "toself", "fillcolor": colour.replace(")", "-band)"), "line": {"width": 0}, "hoverinfo": "skip",
            "showlegend": False, "legendgroup": name}  # fmt: skip


def _points(results: Results, x: NDArray[np.float64], y: NDArray[np.float64], hover: str) -> list[dict[str, Any]]:
    """Return two traces: crystals that count in the score, and the others; x and y are of all crystals (n,)."""
    what, counted = results.counted
    counted = counted[results.rows]
    known = np.isfinite(x) & np.isfinite(y)
    formulas = results.table["formula"].to_numpy(object)[results.rows]
    groups = results.crystals.G
    traces = []
    for name, chosen, colour, size in (("others", known & ~counted, FAINT, 5), (what, known & counted, GREEN, 6)):
        rows = np.flatnonzero(chosen)
        rows = rows[:: max(1, -(-len(rows) // _MAX_POINTS))]
        texts = [f"{formulas[row]} in {groups[row]}" for row in rows]
        traces.append({"type": "scatter", "mode": "markers", "name": name, "x": rounded(x[rows], 4),
                       "y": rounded(y[rows], 4), "text": texts, "marker": {"color": colour, "size": size},
                       "hovertemplate": "%{text}<br>" + hover + "<extra></extra>"})  # fmt: skip
    return traces


def _iso(x: NDArray[np.float64], y: NDArray[np.float64], text: str, strong: bool = False) -> dict[str, Any]:
    """Return a line, labelled where it ends."""
    line = {"color": ORANGE, "width": 1.5, "dash": "dash"} if strong else {"color": LINE, "width": 1.5, "dash": "dot"}
    return {"type": "scatter", "mode": "lines+text", "x": rounded(x), "y": rounded(y), "hoverinfo": "skip",
            "showlegend": False, "text": [""] * (len(x) - 1) + [text], "textposition": "top left",
            "textfont": {"color": ORANGE if strong else MUTED, "size": 11}, "line": line}  # fmt: skip


def _figure_of_merit(results: Results) -> Figure:
    gap, dielectric = (results.column(f"term:{name}")[results.rows] for name in ("band_gap", "dielectric_constant"))
    gap, dielectric = np.where(dielectric > 0, gap, np.nan), np.where(dielectric > 0, dielectric, np.nan)
    data = _points(results, dielectric, gap, "gap %{y:.2f} eV, dielectric constant %{x:.1f}")
    right, top = _axis_end(results, dielectric, 5.0), _axis_end(results, gap, 1.0)
    threshold = results.task["threshold"]
    for value in sorted({threshold, threshold / 4, threshold / 2, 2 * threshold}):
        x = np.geomspace(value / top, right, 60) if value < top * right else np.zeros(0)
        if len(x):
            data.append(_iso(x, value / x, f"{value:g} eV", value == threshold))
    layout = {
        "xaxis": {"title": {"text": "dielectric constant"}, "range": [0, right]},
        "yaxis": {"title": {"text": "band gap (eV)"}, "range": [0, top]},
    }
    caption = (
        "On a line the figure of merit, gap times dielectric constant, is the same; the dashed one is the threshold."
    )
    return Figure("scatter", "Gap and dielectric constant", caption, data, layout, height=420)


def _pareto(results: Results) -> Figure:
    from benchmarks.metrics.pareto import pareto_front

    modulus, energy = (results.column(f"term:{name}")[results.rows] for name in ("bulk_modulus", "e_above_hull"))
    scored = modulus > 0
    modulus, energy = np.where(scored, modulus, np.nan), np.where(scored, energy, np.nan)
    data = _points(results, modulus, energy, "%{x:.0f} GPa, %{y:.3f} eV/atom above the hull")
    right = max(_axis_end(results, modulus, 100.0), 400.0)
    for total in (0.25, 0.5, 0.75):
        x = np.linspace(max(0.0, 800 * (total - 0.5)), min(400.0, 800 * total), 20)
        data.append(_iso(x, 0.5 + x / 800 - total, f"{total:g}"))
    valid = results.column("structurally_valid") * results.column("compositionally_valid") > 0
    rows = np.flatnonzero(scored & np.isfinite(energy) & valid[results.rows])
    if len(rows):
        front = rows[pareto_front(np.stack([modulus[rows], -np.maximum(energy[rows], 0)], 1))]
        front = front[np.argsort(modulus[front])]
        data.append({"type": "scatter", "mode": "lines", "name": "valid Pareto front", "x": rounded(modulus[front]),
                     "y": rounded(energy[front]), "line": {"color": ORANGE, "width": 2, "shape": "vh"}})  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "bulk modulus (GPa)"}, "range": [0, right]},
        "yaxis": {"title": {"text": "energy above the hull (eV/atom)"}, "range": [0.6, -0.25]},
    }
    caption = "Up and to the right is better. On a dotted line the reward is the same."
    return Figure("scatter", "Stiffness and stability", caption, data, layout, height=420)


def _energy_density(results: Results) -> Figure:
    from rewards.density import densities

    energy, density = results.column("e_above_hull")[results.rows], densities(results.crystals)
    data = _points(results, density, energy, "%{x:.2f} g/cm³, %{y:.3f} eV/atom above the hull")
    layout = {
        "xaxis": {"title": {"text": "density (g/cm³)"}, "range": [0, _axis_end(results, density, 10.0)]},
        "yaxis": {"title": {"text": "energy above the hull (eV/atom)"}, "range": [-0.4, 1.6]},
        **straight_line("y", STABLE, f"{STABLE} eV/atom"),
    }
    caption = f"Below the dashed line crystals are stable: at most {STABLE} eV/atom above the hull."
    return Figure("scatter", "Energy and density", caption, data, layout, height=420)


def _volume_density(results: Results) -> Figure:
    from rewards.density import densities

    density, volume = densities(results.crystals), results.crystals.volume_per_atom()
    data = _points(results, volume, density, "%{y:.2f} g/cm³, %{x:.1f} Å³ an atom")
    right, top = _axis_end(results, volume, 20.0), _axis_end(results, density, 10.0)
    for mass in (25, 50, 100, 200):
        x = np.geomspace(1.66054 * mass / top, right, 60)
        data.append(_iso(x, 1.66054 * mass / x, f"{mass} u"))
    layout = {
        "xaxis": {"title": {"text": "volume per atom (Å³)"}, "range": [0, right]},
        "yaxis": {"title": {"text": "density (g/cm³)"}, "range": [0, top]},
    }
    caption = "On a dotted line atoms have the same mean mass, in atomic mass units."
    return Figure("scatter", "Density and volume", caption, data, layout, height=420)


def _axis_end(results: Results, values: NDArray[np.float64], minimum: float) -> float:
    """Return the end of an axis, beyond nearly all values of the crystals (n,) and all of those that count."""
    known = np.isfinite(values)
    counted = values[known & results.counted[1][results.rows]]
    if not known.any():
        return minimum
    return 1.06 * max(minimum, float(np.quantile(values[known], 0.99, method="higher")), *counted)
