"""The picture of an evaluation: energies, elements and space groups of samples."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.metrics.labels import label
from benchmarks.metrics.sample import STABLE, SampleMetrics
from crystal_env.elements import SYMBOLS

_MAX_ELEMENTS = 25


def plot(samples: dict[str, SampleMetrics], path: Path) -> None:
    """Draw energies above the hull (as the paper's Fig. 3), the most common elements, and the space groups."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    energies, elements, groups = figure.subplots(1, 3)
    bins = np.linspace(-0.2, 2, 45)
    all_crystals = [metrics.samples.crystals.A for metrics in samples.values()]
    counts = sum(np.bincount(A.ravel(), minlength=len(SYMBOLS)) for A in all_crystals)
    common = [z for z in np.argsort(-np.asarray(counts), kind="stable") if z][:_MAX_ELEMENTS]
    width = 0.8 / len(samples)
    for i, ((name, metrics), A) in enumerate(zip(samples.items(), all_crystals, strict=True)):
        energy = metrics.e_above_hull
        text = f"{name}: {metrics.stable().sum() / max(len(energy), 1):.1%}"
        energies.hist(energy[np.isfinite(energy)], bins, histtype="stepfilled", alpha=0.5, label=text)
        fraction = [(z == A).any(1).sum() / max(len(A), 1) for z in common]
        elements.bar(np.arange(len(common)) + i * width, fraction, width, label=name)
        groups.hist(metrics.space_group, np.arange(0, 240, 10), histtype="step", density=len(energy) > 0, label=name)
    energies.axvline(STABLE, color="tab:red", linestyle="--", linewidth=1)
    energies.set(xlabel="energy above the hull (eV/atom)", ylabel="crystals")
    energies.legend(title=label("stable_0.1"))
    elements.set_xticks(np.arange(len(common)), [SYMBOLS[z] for z in common], fontsize=7)
    elements.set(ylabel="fraction of crystals with the element")
    groups.set(xlabel="space group", ylabel="density")
    figure.savefig(path, dpi=130)
