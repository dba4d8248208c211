"""Distributions of simple properties of crystals, their distances to those of known crystals, and a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.metrics.distribution import jensen_shannon
from crystal_env import CrystalBatch
from crystal_env.elements import SYMBOLS
from crystal_env.wyckoff import N_ELEMENTS, N_GROUPS

PROPERTIES = {
    "space_group": ("space groups", "bit"),
    "element": ("elements of the sites", "bit"),
    "n_sites": ("number of sites", ""),
    "n_elements": ("number of elements", ""),
    "n_atoms": ("atoms in the primitive cell", ""),
    "density": ("density", "g/cm³"),
    "volume_per_atom": ("volume per atom", "Å³"),
}
"""Property -> its label, and the unit of the distance between two distributions of it."""

_GRAMS_PER_CM3 = 1.66053907  # of one atomic mass unit per Å^3
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "0.65", "fill": True},
    {"color": "tab:blue", "linewidth": 1.6},
    {"color": "tab:green", "linewidth": 1.2},
)
_UNTRAINED: dict[str, Any] = {"color": "tab:red", "linewidth": 1.0, "linestyle": "--"}


def categories(crystals: CrystalBatch) -> dict[str, NDArray[np.int64]]:
    """Return how many of B crystals have each space group (231,), and how many sites have each element (119,)."""
    elements = np.bincount(crystals.A.ravel(), minlength=N_ELEMENTS + 1)
    elements[0] = 0
    return {"space_group": np.bincount(crystals.G, minlength=N_GROUPS + 1), "element": elements}


def numbers(crystals: CrystalBatch) -> dict[str, NDArray[np.float64]]:
    """Return the numbers that describe B crystals, each (B,): counts, g/cm^3 and Å^3."""
    from ase.data import atomic_masses

    composition, volume = crystals.composition(), crystals.volume_per_atom()
    atoms = composition.sum(1)
    return {
        "n_sites": crystals.n_sites().astype(np.float64),
        "n_elements": np.count_nonzero(composition, axis=1).astype(np.float64),
        "n_atoms": atoms.astype(np.float64),
        "density": _GRAMS_PER_CM3 * (composition @ atomic_masses[: N_ELEMENTS + 1]) / (atoms * volume),
        "volume_per_atom": volume,
    }


def distances(crystals: CrystalBatch, training: CrystalBatch) -> dict[str, float]:
    """Return the distances between the distributions of two sets of crystals, by property.

    Categories are compared by the Jensen-Shannon divergence, numbers by the Wasserstein distance.
    """
    from scipy.stats import wasserstein_distance

    ours, theirs = categories(crystals), categories(training)
    result = {name: jensen_shannon(ours[name], theirs[name]) for name in ours}
    values, known = numbers(crystals), numbers(training)
    return result | {name: float(wasserstein_distance(values[name], known[name])) for name in values}


def plot_chemistry(
    path: Path,
    samples: Mapping[str, CrystalBatch],
    energies: Mapping[str, NDArray[np.float64]],
) -> None:
    """Plot the distributions of three or four sets of crystals on top of each other.

    Args:
        path: image to write.
        samples: label -> crystals of the sets, the known ones first, those of an untrained network last.
        energies: label -> energies above the hull in eV/atom of as many sets, likewise, NaN without one.
    """
    figure = Figure(figsize=(15, 11), layout="constrained")
    grid = figure.add_gridspec(3, 4)
    kinds = {name: categories(crystals) for name, crystals in samples.items()}
    values = {name: numbers(crystals) for name, crystals in samples.items()}
    elements, groups = figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, :2])
    _plot_elements(elements, {name: kind["element"] for name, kind in kinds.items()})
    _plot_fractions(groups, {name: crystals.G for name, crystals in samples.items()}, np.arange(0.5, 231, 5))
    groups.set(xlabel="space group number, in fives (given)")
    for place, name, label, bins in (
        (grid[1, 2], "n_sites", "inequivalent sites", np.arange(0.5, 21)),
        (grid[1, 3], "n_elements", "elements in a crystal", np.arange(0.5, 11)),
        (grid[2, 0], "n_atoms", "atoms in the primitive cell", np.arange(0.5, 42, 2)),
        (grid[2, 1], "density", "density (g/cm³)", np.linspace(0, 25, 41)),
    ):
        axes = figure.add_subplot(place)
        _plot_fractions(axes, {who: numbers_of[name] for who, numbers_of in values.items()}, bins)
        axes.set(xlabel=label)
    _plot_energies(figure.add_subplot(grid[2, 2:]), energies)
    figure.suptitle("The first and last bins hold what lies beyond a panel")
    figure.savefig(path, dpi=100)


def _plot_elements(axes: Axes, counts: Mapping[str, NDArray[np.int64]]) -> None:
    shown = 1 + int(np.flatnonzero(sum(counts.values()))[-1])
    edges = np.arange(-0.5, N_ELEMENTS + 1)
    _plot_steps(axes, {name: count / max(count.sum(), 1) for name, count in counts.items()}, edges)
    axes.set(xlabel="element", ylabel="fraction of sites", xlim=(0.5, shown - 0.5))
    axes.set_xticks(range(1, shown), SYMBOLS[1:shown], fontsize=8, rotation=90)
    axes.legend()


def _plot_energies(axes: Axes, energies: Mapping[str, NDArray[np.float64]]) -> None:
    scored = {name: array[np.isfinite(array)] for name, array in energies.items()}
    labels = {name: f"{name}: {np.isfinite(array).mean():.0%} scored" for name, array in energies.items()}
    _plot_fractions(axes, {labels[name]: array for name, array in scored.items()}, np.linspace(-0.5, 3.0, 36))
    axes.axvline(0.1, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="energy above hull of scored crystals (eV/atom)")
    axes.legend()


def _plot_fractions(axes: Axes, values: Mapping[str, NDArray[Any]], bins: NDArray[np.float64]) -> None:
    """Plot histograms of fractions; the first and last bins hold what lies outside."""
    middles = (bins[:-1] + bins[1:]) / 2
    clipped = {name: np.clip(array, middles[0], middles[-1]) for name, array in values.items()}
    fractions = {name: np.histogram(array, bins)[0] / max(len(array), 1) for name, array in clipped.items()}
    _plot_steps(axes, fractions, bins)
    axes.set(ylabel="fraction of crystals")


def _plot_steps(axes: Axes, fractions: Mapping[str, NDArray[np.float64]], edges: NDArray[np.float64]) -> None:
    """Plot distributions; the last one, which may be far off, does not set the scale."""
    styles = (*_STYLES[: len(fractions) - 1], _UNTRAINED)
    for (name, fraction), style in zip(fractions.items(), styles, strict=True):
        axes.stairs(fraction, edges, label=name, **style)
    axes.set_ylim(0, 1.1 * max(0.01, *(fraction.max() for fraction in list(fractions.values())[:-1])))
