"""Results of the demo: a table, plots, pictures and CIF files."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from pymatgen.io.cif import CifWriter

from agents.training.run_folder import RunFolder
from benchmarks.metrics.sample import STABLE
from crystal_env import CrystalBatch
from crystal_env.render import picture

_BEST = 12
_LABELS = {
    "mean_e_above_hull": "mean energy above hull (eV/atom, failed = 10)",
    "mean_e_above_hull_scored": "mean energy above hull of scored crystals (eV/atom)",
    "median_e_above_hull": "median energy above hull (eV/atom)",
    "stable_rate": "stable (at most 0.1 eV/atom)",
    "valid_rate": "valid (distances and charges)",
    "distinct_stable_rate": "distinct stable formulas / crystals",
    "kl_divergence": "KL divergence from the base model (nats)",
}


class Sample(NamedTuple):
    """Crystals with their scores.

    Attributes:
        crystals: B crystals.
        e_above_hull (B,): in eV/atom, 10 for a failed crystal.
        scored (B,): whether the energy was accepted.
        stable (B,): whether e_above_hull is at most 0.1 eV/atom.
        valid (B,): whether `rewards.Validity` accepts it.
        kl_divergence: of the model from the base model, estimated on the crystals, in nats.
    """

    crystals: CrystalBatch
    e_above_hull: NDArray[np.float64]
    scored: NDArray[np.bool_]
    stable: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    kl_divergence: float


def write(out: Path, before: Sample, after: Sample) -> None:
    """Print the table and write ``results.json``, three pictures and ``best/*.cif``.

    Args:
        out: folder of the results, with the run in ``run``.
        before: samples of the base model.
        after: samples of the fine-tuned model.
    """
    table = {"before": _summary(before), "after": _summary(after)}
    (out / "results.json").write_text(json.dumps(table, indent=2) + "\n")
    print(f"\n{'':<52}{'before':>10}{'after':>10}")
    for name, label in _LABELS.items():
        print(f"{label:<52}{table['before'][name]:>10.3f}{table['after'][name]:>10.3f}")
    _plot(out / "learning.png", before, after, RunFolder(out / "run").history())
    best = _distinct_best(after)
    _write_best(out, after.crystals[best], after.e_above_hull[best])
    _plot_summary(out / "summary.png", before, after, after.crystals[best])
    print(f"\nthe {len(best)} best distinct compounds, with plots, are in {out}")


def _summary(sample: Sample) -> dict[str, float]:
    stable = sample.crystals[sample.stable]
    energies = sample.e_above_hull
    return {
        "mean_e_above_hull": float(energies.mean()),
        "mean_e_above_hull_scored": float(energies[sample.scored].mean()),
        "median_e_above_hull": float(np.median(energies)),
        "stable_rate": float(sample.stable.mean()),
        "valid_rate": float(sample.valid.mean()),
        "distinct_stable_rate": len({crystal.formula for crystal in stable}) / len(energies),
        "kl_divergence": sample.kl_divergence,
    }


def _plot(path: Path, before: Sample, after: Sample, history: list[dict[str, float]]) -> None:
    """Plot energy and KL divergence by iteration (the paper's Fig. 2) and the histogram of energies (Fig. 3)."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    energy, divergence, histogram = figure.subplots(1, 3)
    steps = [entry["step"] for entry in history]
    energy.plot(steps, [entry["terms_of_scored/e_above_hull"] for entry in history], color="tab:blue")
    energy.set(xlabel="iteration", ylabel="mean energy above hull (eV/atom, scored)")
    divergence.plot(steps, [entry["rollout/kl"] for entry in history], color="tab:orange")
    divergence.set(xlabel="iteration", ylabel="KL(p || p_base) (nats)")
    _plot_histogram(histogram, before, after)
    figure.savefig(path, dpi=150)


def _plot_histogram(axes: Axes, before: Sample, after: Sample) -> None:
    bins = np.linspace(-0.2, 2, 45).tolist()
    for sample, name, color in ((before, "base model", "tab:gray"), (after, "fine-tuned", "tab:blue")):
        label = f"{name}: {sample.stable.mean():.1%} stable"
        axes.hist(sample.e_above_hull[sample.scored], bins, color=color, alpha=0.6, label=label)
    axes.axvline(STABLE, color="tab:red", linestyle="--", linewidth=1)
    axes.set(xlabel="energy above hull (eV/atom)", ylabel="crystals")
    axes.legend()


def _plot_summary(path: Path, before: Sample, after: Sample, best: CrystalBatch) -> None:
    """Plot the histogram of energies beside the first six of the best crystals."""
    with rc_context({"font.size": 17}):
        figure = Figure(figsize=(21, 8.6), layout="constrained")
        panels: Any = figure.subfigures(1, 2, width_ratios=(1, 2))
        _plot_histogram(panels[0].subplots(), before, after)
    for axes, crystal in zip(panels[1].subplots(2, 3).flat, best, strict=False):
        picture.draw_on(axes, crystal)
    figure.savefig(path, dpi=60)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def _distinct_best(sample: Sample) -> NDArray[np.int64]:
    """Return the rows of the compounds lowest above the hull, the best one of each formula."""
    best: dict[str, int] = {}
    for row in np.argsort(sample.e_above_hull, kind="stable"):
        crystal = sample.crystals[int(row)]
        if sample.stable[row] and len(set(crystal.A)) > 1:
            best.setdefault(crystal.formula, int(row))
        if len(best) == _BEST:
            break
    return np.array(list(best.values()), np.int64)


def _write_best(out: Path, crystals: CrystalBatch, energies: NDArray[np.float64]) -> None:
    folder = out / "best"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.cif"):
        old.unlink()
    for rank, (crystal, energy) in enumerate(zip(crystals, energies, strict=True), 1):
        CifWriter(crystal.to_structure(), symprec=0.01).write_file(str(folder / f"{rank:02}-{crystal.formula}.cif"))
        print(f"{rank:>3}  {crystal.formula:<14}{energy:>8.3f} eV/atom  {crystal.letters} in {crystal.G}")
    if not len(crystals):
        return
    figure = Figure(figsize=(16, 12), layout="constrained")
    for axes, crystal in zip(figure.subplots(3, 4).flat, crystals, strict=False):
        picture.draw_on(axes, crystal)
    figure.savefig(out / "best.png", dpi=80)
