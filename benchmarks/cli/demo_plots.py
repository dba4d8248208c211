"""Pictures of the demo: rates before and after, learning curves, energies, and the best crystals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import NDArray
from PIL import Image

from benchmarks.cli.demo_results import DOUBTFUL_DEPTH, ModelSample
from benchmarks.metrics.intervals import wilson
from benchmarks.metrics.sample import STABLE
from crystal_env.render import picture

_COLOURS = ("0.65", "#7db8e8", "tab:blue")
_SHOWN = (-0.3, 1.0)  # eV/atom; the bins at both ends hold the rest
_PANEL = 5.0  # inches of a crystal


def plot_learning(path: Path, models: Sequence[ModelSample], history: list[dict[str, float]]) -> None:
    """Plot success and KL divergence by oracle calls, and histograms of the energies.

    Args:
        path: of the picture.
        models: base model at temperature 1, base model and fine-tuned model at that of the latter.
        history: of the run, an entry for each iteration.
    """
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    success, divergence, energies = figure.subplots(1, 3)
    _plot_success(success, history, models[0].success)
    calls = [entry["crystals"] for entry in history]
    divergence.plot(calls, [entry["rollout/kl"] for entry in history], ".-", color="tab:orange")
    divergence.set(xlabel="oracle calls", ylabel="KL(p || p_base) in training (nats)", xlim=(0, None))
    _plot_energies(energies, models)
    figure.savefig(path, dpi=110)


def plot_summary(
    path: Path, models: Sequence[ModelSample], history: list[dict[str, float]], rows: NDArray[np.int64]
) -> None:
    """Plot rates before and after and the learning curve, beside up to six crystals (rows of the last model)."""
    width, height = 4.5 * _PANEL, 2 * _PANEL
    figure = Figure(figsize=(width, height))
    with rc_context({"font.size": 19}):
        left = figure.add_gridspec(2, 1, left=0.1, right=0.31, bottom=0.09, top=0.97, hspace=0.33)
        _plot_rates(figure.add_subplot(left[0]), models)
        _plot_success(figure.add_subplot(left[1]), history, models[0].success)
    _draw(figure, figure.add_gridspec(2, 3, left=1 / 3, right=1, bottom=0, top=1, wspace=0, hspace=0), models[-1], rows)
    _save(figure, path)


def plot_best(path: Path, sample: ModelSample, rows: NDArray[np.int64], marks: Sequence[str]) -> None:
    """Draw up to twelve crystals (rows of a sample), each with its mark."""
    n_rows = max(1, -(-len(rows) // 4))
    figure = Figure(figsize=(4 * _PANEL, n_rows * _PANEL))
    _draw(
        figure,
        figure.add_gridspec(n_rows, 4, left=0, right=1, bottom=0, top=1, wspace=0, hspace=0),
        sample,
        rows,
        marks,
    )
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Save a figure with few colours, in a fifth of the bytes."""
    figure.savefig(path, dpi=64)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def _draw(
    figure: Figure, grid: GridSpec, sample: ModelSample, rows: NDArray[np.int64], marks: Sequence[str] = ()
) -> None:
    """Draw crystals (rows of a sample) with their energies, in panels that fill their places."""
    for place, row in enumerate(rows.tolist()[: grid.nrows * grid.ncols]):
        axes = figure.add_subplot(grid[place])
        picture.draw_on(axes, sample.metrics.samples.crystals[row])
        mark = marks[place] if marks else ""
        text = f"{sample.metrics.e_above_hull[row]:+.3f} eV/atom" + (f", {mark}" if mark else "")
        colour = "tab:green" if mark == "novel" else "0.35"
        axes.text(0.98, 0.085, text, transform=axes.transAxes, ha="right", va="bottom", size=14, color=colour)


def _plot_rates(axes: Axes, models: Sequence[ModelSample]) -> None:
    counts, total = [int(model.metrics.sun().sum()) for model in models], models[0].metrics.samples.n_attempts
    rates = 100 * np.array(counts) / total
    bounds = 100 * np.array([wilson(count, total) for count in counts]).T
    axes.barh(range(len(models)), rates, color=_COLOURS, xerr=np.abs(bounds - rates), capsize=6)
    axes.set_yticks(range(len(models)), [model.name.replace(", ", ",\n") for model in models])
    axes.invert_yaxis()
    for place, (value, high) in enumerate(zip(rates, bounds[1], strict=True)):
        axes.text(high + 0.02 * bounds.max(), place, f"{value:.1f} %", va="center")
    axes.set(xlabel=f"{models[0].success} (% of {total:,} samples)", xlim=(0, 1.3 * bounds.max()))


def _plot_success(axes: Axes, history: list[dict[str, float]], success: str) -> None:
    calls = [entry["crystals"] for entry in history]
    axes.plot(calls, [100 * entry["rollout/success_rate"] for entry in history], ".-", color="tab:blue")
    axes.set(xlabel="oracle calls", ylabel=f"{success} in training (%)", xlim=(0, None), ylim=(0, None))
    axes.locator_params(axis="x", nbins=4)


def _plot_energies(axes: Axes, models: Sequence[ModelSample]) -> None:
    bins = np.linspace(*_SHOWN, 53).tolist()
    axes.axvspan(_SHOWN[0], -DOUBTFUL_DEPTH, color="tab:red", alpha=0.08, linewidth=0, label="doubtful")
    axes.axvline(STABLE, color="tab:red", linestyle="--", linewidth=1, label=f"stable: up to {STABLE} eV/atom")
    for model, colour in zip(models, _COLOURS, strict=True):
        energies = model.metrics.e_above_hull
        shown = np.clip(energies[np.isfinite(energies)], *_SHOWN)
        axes.hist(shown, bins, histtype="step", linewidth=1.6, color=colour, label=model.name)
    axes.set(xlabel="energy above hull (eV/atom), the ends hold the rest", ylabel="crystals", xlim=_SHOWN)
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.64, 0.98))
