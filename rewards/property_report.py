"""The parity plot of a property model."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_COLORS = {"train": "0.75", "validation": "tab:blue", "test": "tab:red"}


def parity_plot(
    path: Path,
    targets: NDArray[np.float64],
    predictions: NDArray[np.float64],
    part: NDArray[np.object_],
    names: tuple[str, ...],
) -> None:
    """Write a picture of predictions (N, k) against targets (N, k), their mean over k, by part (N,), as Fig. S4.

    Six outputs are a tensor's components xx, yy, zz, yz, xz, xy: the first three are averaged.
    """
    from matplotlib.figure import Figure

    used = slice(3) if targets.shape[1] == 6 else slice(None)
    x, y = targets[:, used].mean(1), predictions[:, used].mean(1)
    figure = Figure(figsize=(4.5, 4.3), layout="constrained")
    axes = figure.subplots()
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color="black", linewidth=0.8, linestyle="--")
    for name, color in _COLORS.items():
        rows = part == name
        if rows.any():
            error = np.abs(x[rows] - y[rows]).mean()
            label = f"{name}: {rows.sum()}, mean error {error:.3g}"
            axes.scatter(x[rows], y[rows], s=8, color=color, label=label, alpha=0.8, linewidths=0)
    what = names[0] if len(names) == 1 else f"mean of {', '.join(names[used])}"
    axes.set(xlabel=what, ylabel=f"predicted {what}", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
