"""What the demonstration leaves behind: a table, plots, pictures and CIF files."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pymatgen.io.cif import CifWriter

from crystal_env import CrystalBatch, rendering

_BEST = 12


class Sample(NamedTuple):
    """Crystals with their rewards.

    Attributes:
        crystals: B crystals.
        e_above_hull (B,): in eV/atom, at most 5, which is also what a crystal gets that cannot be scored.
        scored (B,): whether the potential gave an energy.
        stable (B,): whether e_above_hull is at most 0.1 eV/atom.
        valid (B,): whether `rewards.Validity` accepts it.
    """

    crystals: CrystalBatch
    e_above_hull: NDArray[np.float64]
    scored: NDArray[np.bool_]
    stable: NDArray[np.bool_]
    valid: NDArray[np.bool_]


def write(
    out: Path,
    random: Sample,
    trained: Sample,
    curve: list[tuple[int, float, float]],
    crystals: CrystalBatch,
    e_above_hull: NDArray[np.float64],
) -> None:
    """Print the table and write ``results.json``, ``learning.png``, ``best.png`` and ``best/*.cif``.

    Args:
        out: folder of the results.
        random: crystals of random play.
        trained: crystals of the trained agent.
        curve: decisions, mean energy above the hull and stable share of every rollout.
        crystals: all stable crystals met in training.
        e_above_hull: their energies (B,) in eV/atom.
    """
    table = {"random": _summary(random), "trained": _summary(trained)}
    (out / "results.json").write_text(json.dumps(table, indent=2) + "\n")
    print(f"\n{'':<44}{'random':>10}{'trained':>10}")
    for name in table["random"]:
        print(f"{name:<44}{table['random'][name]:>10.3f}{table['trained'][name]:>10.3f}")
    _plot(out / "learning.png", random, trained, curve)
    pool = CrystalBatch.concatenate([crystals, trained.crystals[trained.stable]])
    energies = np.concatenate([e_above_hull, trained.e_above_hull[trained.stable]])
    best = _distinct_best(pool, energies)
    _write_best(out, pool[best], energies[best])
    print(f"\n{len(best)} best distinct crystals of {len(pool)} stable ones, with plots, in {out}")


def _summary(sample: Sample) -> dict[str, float]:
    stable = sample.crystals[sample.stable]
    return {
        "mean energy above hull (eV/atom, failed = 5)": float(sample.e_above_hull.mean()),
        "median energy above hull (eV/atom)": float(np.median(sample.e_above_hull)),
        "share that the potential could score": float(sample.scored.mean()),
        "stable share (at most 0.1 eV/atom)": float(sample.stable.mean()),
        "valid share (distances and charges)": float(sample.valid.mean()),
        "distinct stable formulas": float(len({crystal.formula for crystal in stable})),
    }


def _plot(path: Path, random: Sample, trained: Sample, curve: list[tuple[int, float, float]]) -> None:
    figure = Figure(figsize=(11, 4), layout="constrained")
    learning, histogram = figure.subplots(1, 2)
    if curve:
        steps, energy, stable = np.array(curve).T
        learning.plot(steps / 1000, energy, color="tab:blue", label="agent in training")
        share = learning.twinx()
        share.plot(steps / 1000, stable, color="tab:green")
        share.set(ylabel="stable share", ylim=(0, 1))
        share.yaxis.label.set_color("tab:green")
    learning.axhline(random.e_above_hull.mean(), color="tab:gray", linestyle="--", label="random play")
    learning.set(xlabel="thousand decisions", ylabel="mean energy above hull (eV/atom)")
    learning.yaxis.label.set_color("tab:blue")
    learning.legend(loc="center right")
    bins = np.linspace(-0.5, 5, 45)
    histogram.hist(random.e_above_hull, bins, color="tab:gray", alpha=0.6, label="random play")
    histogram.hist(trained.e_above_hull, bins, color="tab:blue", alpha=0.6, label="trained agent")
    histogram.axvline(0.1, color="black", linewidth=0.8, linestyle=":")
    histogram.set(xlabel="energy above hull (eV/atom, failed = 5)", ylabel="crystals", yscale="log")
    histogram.legend()
    figure.savefig(path, dpi=150)


def _distinct_best(pool: CrystalBatch, energies: NDArray[np.float64]) -> list[int]:
    """Return indices of the compounds lowest above the hull, the best one of each formula."""
    best: dict[str, int] = {}
    for index in np.argsort(energies, kind="stable"):
        crystal = pool[int(index)]
        if len(set(crystal.A)) > 1:
            best.setdefault(crystal.formula, int(index))
        if len(best) == _BEST:
            break
    return list(best.values())


def _write_best(out: Path, crystals: CrystalBatch, energies: NDArray[np.float64]) -> None:
    folder = out / "best"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.cif"):
        old.unlink()
    for rank, (crystal, energy) in enumerate(zip(crystals, energies, strict=True), 1):
        CifWriter(crystal.to_structure(), symprec=0.01).write_file(str(folder / f"{rank:02}-{crystal.formula}.cif"))
        print(f"{rank:>3}  {crystal.formula:<14}{energy:>8.3f} eV/atom  {crystal}")
    if not len(crystals):
        return
    figure = Figure(figsize=(16, 12), layout="constrained")
    for axes, crystal in zip(figure.subplots(3, 4).flat, crystals, strict=False):
        rendering.draw_on(axes, crystal)
    figure.savefig(out / "best.png", dpi=80)
