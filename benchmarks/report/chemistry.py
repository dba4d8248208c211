"""Figures of the chemistry of samples: the periodic table and the space groups."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.figure import MUTED, Figure, rate_text, rounded
from benchmarks.report.folder import Results
from benchmarks.report.samples import group_symbol
from crystal_env.elements import SYMBOLS

_HEIGHTS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5, 9.5)  # of the rows of the table, the last two those of La and Ac
_SCALE = [[0, "var(--heat-0)"], [0.25, "var(--heat-1)"], [0.6, "var(--heat-2)"], [1, "var(--heat-3)"]]
_SYSTEMS = {
    "triclinic": (2, "#8c6bb1"),
    "monoclinic": (15, "#4292c6"),
    "orthorhombic": (74, "#2a9d8f"),
    "tetragonal": (142, "#7fa650"),
    "trigonal": (167, "#d9a520"),
    "hexagonal": (194, "#e07b39"),
    "cubic": (230, "#c8505a"),
}
"""Crystal system -> its last space group, and its colour."""


def elements(results: Results) -> Figure | None:
    """Return the periodic table, coloured by the fraction of crystals with an element."""
    if not len(results.rows):
        return None
    has = results.crystals.composition() > 0
    counts, n = has.sum(0), len(has)
    common = ", ".join(f"{SYMBOLS[z]} {100 * counts[z] / n:.0f} %" for z in np.argsort(-counts, kind="stable")[:5])
    caption = f"Fraction of the {n:,} crystals with an element; the most common are {common}. "
    caption += f"{(counts > 0).sum()} elements occur."
    bar = {
        "orientation": "h",
        "thickness": 10,
        "len": 0.44,
        "x": 0.42,
        "y": 0.86,
        "xanchor": "center",
        "ticksuffix": " %",
        "tickangle": 0,
        "nticks": 4,
    }
    grey = {"colorscale": [[0, "var(--tile)"], [1, "var(--tile)"]], "showscale": False, "textfont": {"color": MUTED}}
    data = [
        _tiles(counts, n, counts[1:] == 0) | grey,
        _tiles(counts, n, counts[1:] > 0) | {"colorscale": _SCALE, "colorbar": bar, "zmin": 0},
    ]
    axis = {"visible": False, "fixedrange": True}
    layout = {
        "xaxis": {**axis, "range": [0.5, 18.5]},
        "yaxis": {**axis, "range": [10.05, 0.45]},
        "meta": {"aspect": 0.56, "tight": True},
    }
    return Figure("elements", "Elements", caption, data, layout, height=420)


def sunburst(results: Results) -> Figure | None:
    """Return crystal systems around which their space groups lie; nothing if there is but one group."""
    numbers, counts = np.unique(results.crystals.G, return_counts=True)
    if len(numbers) < 2:
        return None
    names, colours = list(_SYSTEMS), [colour for _, colour in _SYSTEMS.values()]
    system = np.searchsorted([last for last, _ in _SYSTEMS.values()], numbers)
    present = np.unique(system)
    data = {
        "type": "sunburst",
        "ids": [names[i] for i in present] + [str(number) for number in numbers],
        "labels": [names[i] for i in present] + [str(number) for number in numbers],
        "parents": [""] * len(present) + [names[i] for i in system],
        "values": [int(counts[system == i].sum()) for i in present] + counts.tolist(),
        "hovertext": [names[i] for i in present] + [f"{number}  {group_symbol(int(number))}" for number in numbers],
        "hovertemplate": "%{hovertext}: %{value} crystals, %{percentRoot:.1%}<extra></extra>",
        "branchvalues": "total",
        "marker": {
            "colors": [colours[i] for i in [*present, *system]],
            "line": {"color": "var(--card)", "width": 1},
        },
        "leaf": {"opacity": 0.82},
        "insidetextorientation": "radial",
        "textfont": {"color": "#ffffff"},
        "sort": False,
        "rotation": 90,
    }
    systems = f"{len(present)} crystal systems" if len(present) > 1 else "one crystal system"
    caption = f"{len(numbers)} space groups of {systems}; a click on a system opens it."
    layout = {"meta": {"tight": True}, "uniformtext": {"minsize": 9, "mode": "hide"}}
    return Figure("sunburst", "Space groups", caption, [data], layout, height=420)


def _tiles(counts: NDArray[np.int64], n: int, shown: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a heat map of the elements Z = 1 ... 118 that are shown (118,): fractions of n crystals, in per cent."""
    from pymatgen.core import Element

    values = np.full((len(_HEIGHTS), 18), np.nan)
    texts, hover = np.full(values.shape, "", object), np.full(values.shape, "", object)
    for z in (1 + np.flatnonzero(shown)).tolist():
        element = Element(SYMBOLS[z])
        place = element.row - 1, element.group - 1
        if 57 <= z <= 71 or 89 <= z <= 103:
            place = (7, z - 55) if z <= 71 else (8, z - 87)
        values[place], texts[place] = 100 * counts[z] / n, SYMBOLS[z]
        hover[place] = f"{element.long_name}: in {rate_text(counts[z], n)} crystals"
    return {
        "type": "heatmap",
        "x": list(range(1, 19)),
        "y": list(_HEIGHTS),
        "z": [rounded(row, 3) for row in values],
        "text": texts.tolist(),
        "texttemplate": "%{text}",
        "hovertext": hover.tolist(),
        "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
    }
