"""Do samples look like chemistry: distributions of simple properties, their distances to known crystals, and a plot."""

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

UNITS = {
    "space groups": "bit",
    "elements of the sites": "bit",
    "number of sites": "",
    "number of elements": "",
    "atoms in the primitive cell": "",
    "density": "g/cm³",
    "volume per atom": "Å³",
}
"""Property -> unit of the distance between two distributions of it."""

_GRAMS_PER_CM3 = 1.66053907  # of one atomic mass unit per Å^3
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "0.65", "fill": True},
    {"color": "tab:blue", "linewidth": 1.6},
    {"color": "tab:red", "linewidth": 1.0, "linestyle": "--"},
)


def categories(crystals: CrystalBatch) -> dict[str, NDArray[np.int64]]:
    """Return how many of B crystals have each space group (231,), and how many sites have each element (119,)."""
    elements = np.bincount(crystals.A.ravel(), minlength=N_ELEMENTS + 1)
    elements[0] = 0
    return {"space groups": np.bincount(crystals.G, minlength=N_GROUPS + 1), "elements of the sites": elements}


def numbers(crystals: CrystalBatch) -> dict[str, NDArray[np.float64]]:
    """Return the numbers that describe B crystals, each (B,): counts, g/cm^3 and Å^3."""
    from ase.data import atomic_masses

    composition, volume = crystals.composition(), crystals.volume_per_atom()
    atoms = composition.sum(1)
    return {
        "number of sites": crystals.n_sites().astype(np.float64),
        "number of elements": np.count_nonzero(composition, axis=1).astype(np.float64),
        "atoms in the primitive cell": atoms.astype(np.float64),
        "density": _GRAMS_PER_CM3 * (composition @ atomic_masses[: N_ELEMENTS + 1]) / (atoms * volume),
        "volume per atom": volume,
    }


def distances(crystals: CrystalBatch, training: CrystalBatch) -> dict[str, float]:
    """Return how far the distributions of two sets of crystals are from each other, in `UNITS`.

    Categories are compared by the Jensen-Shannon divergence, numbers by the Wasserstein distance.
    """
    from scipy.stats import wasserstein_distance

    ours, theirs = categories(crystals), categories(training)
    result = {name: jensen_shannon(ours[name], theirs[name]) for name in ours}
    values, known = numbers(crystals), numbers(training)
    return result | {name: float(wasserstein_distance(values[name], known[name])) for name in values}


def draw_chemistry(
    path: Path,
    samples: Mapping[str, CrystalBatch],
    energies: Mapping[str, NDArray[np.float64]],
) -> None:
    """Draw distributions over each other.

    Args:
        path: image to write.
        samples: name -> crystals of the three sets that are compared, the known ones first.
        energies: name -> energies above the hull in eV/atom of three sets, likewise, NaN where there is none.
    """
    figure = Figure(figsize=(15, 11), layout="constrained")
    grid = figure.add_gridspec(3, 4)
    kinds = {name: categories(crystals) for name, crystals in samples.items()}
    values = {name: numbers(crystals) for name, crystals in samples.items()}
    elements, groups = figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, :2])
    _draw_elements(elements, {name: kind["elements of the sites"] for name, kind in kinds.items()})
    _draw_shares(groups, {name: crystals.G for name, crystals in samples.items()}, np.arange(0.5, 231, 5))
    groups.set(xlabel="space group number, in fives (asked for)")
    for place, name, label, bins in (
        (grid[1, 2], "number of sites", "inequivalent sites", np.arange(0.5, 21)),
        (grid[1, 3], "number of elements", "elements in a crystal", np.arange(0.5, 11)),
        (grid[2, 0], "atoms in the primitive cell", "atoms in the primitive cell", np.arange(0.5, 42, 2)),
        (grid[2, 1], "density", "density (g/cm³)", np.linspace(0, 25, 41)),
    ):
        axes = figure.add_subplot(place)
        _draw_shares(axes, {who: numbers_of[name] for who, numbers_of in values.items()}, bins)
        axes.set(xlabel=label)
    _draw_energies(figure.add_subplot(grid[2, 2:]), energies)
    figure.suptitle("What lies beyond the edge of a panel is in its last bin")
    figure.savefig(path, dpi=100)


def _draw_elements(axes: Axes, counts: Mapping[str, NDArray[np.int64]]) -> None:
    shown = 1 + int(np.flatnonzero(sum(counts.values()))[-1])
    edges = np.arange(-0.5, N_ELEMENTS + 1)
    _draw_steps(axes, {name: count / max(count.sum(), 1) for name, count in counts.items()}, edges)
    axes.set(xlabel="element", ylabel="share of sites", xlim=(0.5, shown - 0.5))
    axes.set_xticks(range(1, shown), SYMBOLS[1:shown], fontsize=8, rotation=90)
    axes.legend()


def _draw_energies(axes: Axes, energies: Mapping[str, NDArray[np.float64]]) -> None:
    scored = {name: array[np.isfinite(array)] for name, array in energies.items()}
    labels = {name: f"{name}: {np.isfinite(array).mean():.0%} scored" for name, array in energies.items()}
    _draw_shares(axes, {labels[name]: array for name, array in scored.items()}, np.linspace(-0.5, 3.0, 36))
    axes.axvline(0.1, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="energy above hull of what could be scored (eV/atom)")
    axes.legend()


def _draw_shares(axes: Axes, values: Mapping[str, NDArray[Any]], bins: NDArray[np.float64]) -> None:
    """Draw histograms of shares, with what lies outside in the first and last bin."""
    middles = (bins[:-1] + bins[1:]) / 2
    clipped = {name: np.clip(array, middles[0], middles[-1]) for name, array in values.items()}
    shares = {name: np.histogram(array, bins)[0] / max(len(array), 1) for name, array in clipped.items()}
    _draw_steps(axes, shares, bins)
    axes.set(ylabel="share of crystals")


def _draw_steps(axes: Axes, shares: Mapping[str, NDArray[np.float64]], edges: NDArray[np.float64]) -> None:
    """Draw three distributions; the last one, which may be far off, does not set the scale."""
    for (name, share), style in zip(shares.items(), _STYLES, strict=True):
        axes.stairs(share, edges, label=name, **style)
    known, model, _ = shares.values()
    axes.set_ylim(0, 1.1 * max(known.max(), model.max(), 0.01))
