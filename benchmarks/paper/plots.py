"""The panels of the figures, each plotted on given axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.paper.published import MIN_FOM, STABLE

COLOURS = {
    "mp20": "0.6",
    "base": "tab:blue",
    "base_sharp": "tab:cyan",
    "sft": "tab:green",
    "rl": "tab:orange",
    "fom": "tab:orange",
}
"""Model -> its colour in all figures; others take the next one of matplotlib's cycle."""

_SHOWN = (-0.5, 3.0)  # eV/atom


def plot_energies(axes: Axes, energies: Mapping[str, NDArray[np.float64]], labels: Mapping[str, str]) -> None:
    """Plot histograms of energies above the hull (B,) in eV/atom and the line of 0.1; the end bins hold the rest."""
    for name, values in energies.items():
        shown = np.clip(values[np.isfinite(values)], *_SHOWN)
        bins = np.linspace(*_SHOWN, 71).tolist()
        axes.hist(shown, bins, histtype="stepfilled", alpha=0.5, color=COLOURS.get(name), label=labels[name])
    axes.axvline(STABLE, color="tab:red", linestyle="--", linewidth=1)
    axes.set(xlabel="energy above hull (eV/atom)", ylabel="crystals")
    axes.legend(frameon=False, fontsize=8)


def plot_figures_of_merit(
    axes: Axes, points: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], labels: Mapping[str, str]
) -> None:
    """Plot band gaps (B,) in eV over total dielectric constants (B,) and the line of equal figure of merit."""
    for name, (gap, dielectric) in points.items():
        axes.scatter(dielectric, gap, s=6, alpha=0.5, linewidths=0, color=COLOURS.get(name), label=labels[name])
    line = np.linspace(10, 110, 200)
    axes.plot(
        line, MIN_FOM / line, color="black", linestyle="--", linewidth=0.9, label=f"figure of merit {MIN_FOM:g} eV"
    )
    axes.set(xlabel=r"$\epsilon_\mathrm{total}$", ylabel="$E_g$ (eV)", xlim=(0, 110), ylim=(-0.2, None))
    axes.legend(frameon=False, fontsize=8, markerscale=2)


def plot_bars(
    axes: Axes,
    groups: Sequence[str],
    fractions: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Any],
    ylabel: str,
) -> None:
    """Plot fractions (%) in groups of bars, one of each kind, with their intervals (low, high)."""
    width = 0.8 / len(fractions)
    for place, (name, values) in enumerate(fractions.items()):
        x = np.arange(len(groups)) + (place - (len(fractions) - 1) / 2) * width
        low, high = np.transpose(intervals[name])
        bars = np.array([np.subtract(values, low), np.subtract(high, values)]).clip(0)
        axes.bar(x, values, width, label=name, yerr=bars, error_kw={"elinewidth": 0.8}, capsize=2)
    axes.set_xticks(range(len(groups)), groups)
    axes.set(ylabel=ylabel)


def table_figure(lines: list[list[str]], title: str, width: float = 1.0) -> Figure:
    """Return a picture of a table, its first row being the head and its columns of a width in inches."""
    rows = lines[1:] or [["–"] * len(lines[0])]
    figure = Figure(figsize=(width * len(lines[0]) + 0.5, 0.2 * (len(rows) + 2) + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    table = axes.table(rows, colLabels=lines[0], loc="center", cellLoc="center")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    axes.set_title(title, fontsize=10)
    return figure
