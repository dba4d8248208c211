"""Compares fine-tuned models with their base model: tables, curves and pictures, from the folders of runs.

Samples of every model, with the space groups of MP-20, are evaluated; for runs of reinforcement, learning curves and
the rates over the KL divergence from the base model are plotted: ``python -m benchmarks.paper.compare_runs``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from tyro.conf import Positional

from agents import CrystalFormer
from agents.training.run_folder import RunFolder
from benchmarks.evaluation.plot import plot
from benchmarks.metrics.kl import kl_divergence
from benchmarks.metrics.reference import load_reference, reference_text
from benchmarks.metrics.sample import SampleMetrics, evaluate_sample
from benchmarks.metrics.summary import comparison_table, markdown, summarise
from benchmarks.samples.samples import Samples
from crystal_env.crystal import CrystalBatch
from rewards import EnergyAboveHull

_STABLE, _SUN = "stable_0.1", "sun_0.1_without_outliers"
_KEPT = ("step", "crystals", "rollout/", "terms_of_scored/e", "variety/", "entropy/", "train/clip", "train/tau")


@dataclass
class Args:
    """Settings of the comparison.

    Attributes:
        runs: Folders of runs, of reinforcement or supervised fine-tuning, each with a ``model``.
        out: Folder of the results.
        batches: Folders of ``crystalgen sample`` whose crystals are compared too, such as the best of n.
        base: Base model of all runs.
        temperatures: Temperatures, beside 1, of further samples of the base model and of the first run.
        size: Crystals sampled from each model.
        seed: Seed of the crystals.
        n_jobs: Number of processes, by default one per core.
    """

    runs: Positional[tuple[Path, ...]]
    out: Path
    batches: tuple[Path, ...] = ()
    base: str = "mp20"
    temperatures: tuple[float, ...] = ()
    size: int = 1000
    seed: int = 12345
    n_jobs: int | None = None


def main(args: Args) -> None:
    """Sample, evaluate, and write ``results.json``, ``table.md`` and pictures."""
    args.out.mkdir(parents=True, exist_ok=True)
    reference = load_reference()
    base = CrystalFormer.from_pretrained(args.base)
    samples: dict[str, CrystalBatch] = {"base": base.sample("mp20", args.size, seed=args.seed, temperature=1)}
    divergences: dict[str, tuple[float, float]] = {"base": (0.0, 0.0)}
    for run in args.runs:
        model = CrystalFormer.from_pretrained(RunFolder(run).model)
        samples[run.name] = model.sample("mp20", args.size, seed=args.seed, temperature=1)
        estimate = kl_divergence(model, base, args.size, seed=args.seed + 1)
        divergences[run.name] = (estimate.total, estimate.error)
    for folder in args.batches:
        samples[folder.name] = CrystalBatch.load(folder / "crystals.npz")
    for temperature in args.temperatures:
        for name, model in (("base", base), (args.runs[0].name, CrystalFormer.from_pretrained(args.runs[0] / "model"))):
            colder = model.sample("mp20", args.size, seed=args.seed, temperature=temperature)
            samples[f"{name}, T = {temperature:g}"] = colder
    energy = EnergyAboveHull()
    metrics = {
        name: evaluate_sample(Samples.from_crystals(batch, name), reference.crystals, energy, args.n_jobs)
        for name, batch in samples.items()
    }
    summaries = {name: summarise(sample) for name, sample in metrics.items()}
    for name, (total, error) in divergences.items():
        summaries[name]["kl_divergence"] = {"nats": total, "standard_error": error}
    for run in args.runs:
        _keep(run, args.out)
    (args.out / "results.json").write_text(json.dumps(summaries, indent=1) + "\n")
    cells = [_divergence(divergences.get(name)) for name in summaries]
    row = markdown([["KL divergence from the base model (nats)", *cells]])
    note = f"Novel: matches none of {reference_text(reference.facts())}."
    (args.out / "table.md").write_text(f"{comparison_table(summaries)}\n{row}\n\n{note}\n")
    _plot(args, metrics, summaries)
    print((args.out / "table.md").read_text())


def _divergence(value: tuple[float, float] | None) -> str:
    return (
        "–" if value is None else f"{value[0]:.2f} [{value[0] - 1.96 * value[1]:.2f}, {value[0] + 1.96 * value[1]:.2f}]"
    )


def _keep(run: Path, out: Path) -> None:
    """Copy the settings of a run, and of its history what the curves need."""
    folder = out / "runs"
    folder.mkdir(exist_ok=True)
    about = json.loads((run / "run.json").read_text())
    about["settings"]["run"] = f"runs/{run.name}"
    history = [
        {name: round(value, 5) for name, value in entry.items() if name.startswith(_KEPT)}
        for entry in RunFolder(run).history()
    ]
    (folder / f"{run.name}.json").write_text(json.dumps({**about, "history": history}, indent=None) + "\n")


def _plot(args: Args, metrics: dict[str, SampleMetrics], summaries: dict[str, dict[str, Any]]) -> None:
    histories = {run.name: RunFolder(run).history() for run in args.runs}
    histories = {name: history for name, history in histories.items() if "rollout/kl" in history[-1]}
    has_energies = all("terms_of_scored/e_above_hull" in history[-1] for history in histories.values())
    shown = "terms_of_scored/e_above_hull" if has_energies else "rollout/reward_mean"
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    energy, divergence, frontier = figure.subplots(1, 3)
    for name, history in histories.items():
        crystals = [entry["crystals"] for entry in history]
        for axes, key in ((energy, shown), (divergence, "rollout/kl")):
            values = np.array([entry[key] for entry in history])
            window = np.ones(min(5, len(values)))
            smooth = np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")
            axes.plot(crystals, smooth, linewidth=1, label=name)
    title = "mean energy above hull (eV/atom)" if has_energies else "mean reward"
    energy.set(xlabel="crystals scored", ylabel=title)
    divergence.set(xlabel="crystals scored", ylabel="KL(p || p_base) (nats)")
    divergence.legend(fontsize="small")
    for name, summary in summaries.items():
        if "kl_divergence" in summary:
            for key, marker in ((_STABLE, "o"), (_SUN, "^")):
                entry = summary["rates"][key]
                low, high = entry["interval"]
                bars = [[entry["rate"] - low], [high - entry["rate"]]]
                colour = "tab:blue" if marker == "o" else "tab:green"
                frontier.errorbar(
                    summary["kl_divergence"]["nats"], entry["rate"], bars, fmt=marker, color=colour, capsize=2
                )
            frontier.annotate(name, (summary["kl_divergence"]["nats"], entry["rate"]), fontsize=6)
    frontier.set(xlabel="KL(p || p_base) (nats)", ylabel="rate: stable (circles), S.U.N. (triangles)")
    figure.savefig(args.out / "curves.png", dpi=130)
    plot({name: metrics[name] for name in ("base", args.runs[0].name)}, args.out / "energies.png")


if __name__ == "__main__":
    main(tyro.cli(Args))
