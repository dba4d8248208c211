"""Results of training a property model: errors, predictions and a parity plot."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rewards.property_training.data import PropertyData

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


def errors_by_part(
    targets: NDArray[np.float64], predictions: NDArray[np.float64], parts: tuple[NDArray[np.int64], ...]
) -> dict[str, Any]:
    """Return errors on the three parts, and those of the training median on the last."""
    median = np.median(targets[parts[0]], axis=0)
    found: dict[str, Any] = {}
    for name, rows in zip(("train", "validation", "test"), parts, strict=True):
        if len(rows):
            away = predictions[rows] - targets[rows]
            spread = float(((targets[rows] - targets[rows].mean(0)) ** 2).sum()) or float("nan")
            found[f"{name}_mae"] = float(np.abs(away).mean())
            found[f"{name}_bias"] = float(away.mean())
            found[f"{name}_r2"] = 1 - float((away**2).sum()) / spread
    if len(parts[2]):
        found["test_mae_of_training_median"] = float(np.abs(targets[parts[2]] - median).mean())
    return found


def write_predictions(
    path: Path,
    data: "PropertyData",
    predictions: NDArray[np.float64],
    part: NDArray[np.object_],
    names: tuple[str, ...],
) -> None:
    """Write names, formulas, parts (N,), targets and predictions (N, k) as a table."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "formula", "part", *names, *(f"predicted_{name}" for name in names)])
        for row, crystal in enumerate(data.crystals):
            values = [f"{v:.6g}" for v in (*data.targets[row], *predictions[row])]
            writer.writerow([data.names[row], crystal.formula, part[row], *values])
