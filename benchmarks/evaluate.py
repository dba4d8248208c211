"""The command ``crystalgen evaluate``: what crystals of any generator are worth, side by side."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tyro.conf import Positional

from benchmarks.metrics import Examination, examine, summarise, table
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.elements import SYMBOLS
from rewards import EnergyAboveHull

_REFERENCE = ("mp20_train.csv.gz", "mp20_val.csv.gz")


@dataclass(frozen=True)
class EvaluateConfig:
    """What `evaluate` does.

    Attributes:
        paths: samples to compare: an npz file of crystals, a folder of CIF files, a CSV file with a column ``cif``, or
            any file of structures that ASE reads.
        reference: files of crystals that are not novel, by default MP-20's in the folder $CRYSTALGEN_DATA.
        hull: name of a shipped hull, or a file.
        max_depth: deepest energy below the hull in eV/atom that counts as an energy; by default any, as in the paper.
        size: crystals of each file, counted from the first, that are looked at; by default all.
        out: folder for ``summary.json``, ``table.md``, ``plot.png`` and, for each file, a table of its crystals.
        n_jobs: processes, by default one a core.
    """

    paths: Positional[tuple[Path, ...]]
    reference: tuple[Path, ...] = ()
    hull: str = "mp20-chgnet"
    max_depth: float | None = None
    size: int | None = None
    out: Path | None = None
    n_jobs: int | None = None


def evaluate(config: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """Examine files of crystals, print them side by side, and return their summaries by name.

    What a file holds that is no crystal, because it is disordered, too large or damaged, counts as neither valid nor
    stable nor novel.

    Raises:
        ValueError: if a file cannot be read, or there is no reference.
    """
    if not config.paths:
        raise ValueError("paths must name at least one file of crystals")
    reference = CrystalBatch.concatenate([_read(path, config.n_jobs)[0] for path in _reference(config)])
    energy = EnergyAboveHull(hull=config.hull, max_depth=config.max_depth)
    samples, summaries = {}, {}
    for name, path in zip(_names(config.paths), config.paths, strict=True):
        crystals, unreadable = _read(path, config.n_jobs)
        samples[name] = examine(crystals[: config.size], reference, energy, name, config.n_jobs)
        summaries[name] = summarise(samples[name], unreadable)
    text = table(summaries)
    print(text)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "table.md").write_text(text + "\n")
        (config.out / "summary.json").write_text(json.dumps(summaries, indent=2) + "\n")
        plot(samples, config.out / "plot.png")
        for name, sample in samples.items():
            write_crystals(sample, config.out / f"{name}.csv")
    return summaries


def _names(paths: tuple[Path, ...]) -> list[str]:
    """Return names that tell files apart: their own, or with the folders above where these are the same."""
    depth = 1
    while depth < 9 and len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["-".join(path.parts[-depth:]).removesuffix(path.suffix).removesuffix("-crystals") for path in paths]


def _reference(config: EvaluateConfig) -> tuple[Path, ...]:
    if config.reference:
        return config.reference
    paths = tuple(data_folder() / name for name in _REFERENCE)
    if missing := [path.name for path in paths if not path.is_file()]:
        raise ValueError(f"reference must name files of known crystals: $CRYSTALGEN_DATA holds no {missing}")
    return paths


def _read(path: Path, n_jobs: int | None) -> tuple[CrystalBatch, int]:
    """Return the crystals of a file, and how many entries of it are none."""
    if path.suffix == ".npz":
        return CrystalBatch.load(path), 0
    tokens = load_crystals(path, n_jobs=n_jobs)
    return tokens.crystals, len(tokens.skipped)


def write_crystals(sample: Examination, path: Path) -> None:
    """Write a row a crystal: text, formula, group, energy and every verdict."""
    names = ("structural", "compositional", "found", "novel", "label")
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["formula", "space_group", "e_above_hull", *names, "crystal"])
        for row, crystal in enumerate(sample.crystals):
            energy = sample.e_above_hull[row]
            verdicts = [int(getattr(sample, name)[row]) for name in names]
            rows.writerow(
                [crystal.formula, crystal.G, "" if np.isnan(energy) else f"{energy:.5f}", *verdicts, str(crystal)]
            )


def plot(samples: dict[str, Examination], path: Path) -> None:
    """Draw energies above the hull (as the paper's Fig. 3), the most common elements, and the space groups."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    energies, elements, groups = figure.subplots(1, 3)
    bins = np.linspace(-0.2, 2, 45)
    counts = sum(np.bincount(sample.crystals.A.ravel(), minlength=len(SYMBOLS)) for sample in samples.values())
    common = [z for z in np.argsort(-np.asarray(counts), kind="stable") if z][:25]
    width = 0.8 / len(samples)
    for i, (name, sample) in enumerate(samples.items()):
        energy = sample.e_above_hull
        label = f"{name}: {np.mean(energy <= 0.1):.1%}"
        energies.hist(energy[np.isfinite(energy)], bins, histtype="stepfilled", alpha=0.5, label=label)
        A = sample.crystals.A
        share = [(z == A).any(1).mean() for z in common]
        elements.bar(np.arange(len(common)) + i * width, share, width, label=name)
        groups.hist(sample.crystals.G, np.arange(0, 240, 10), histtype="step", density=True, label=name)
    energies.axvline(0.1, color="tab:red", linestyle="--", linewidth=1)
    energies.set(xlabel="energy above hull (eV/atom)", ylabel="crystals")
    energies.legend(title="at most 0.1 eV/atom")
    elements.set_xticks(np.arange(len(common)), [SYMBOLS[z] for z in common], fontsize=7)
    elements.set(ylabel="share of crystals with the element")
    groups.set(xlabel="space group", ylabel="density")
    figure.savefig(path, dpi=130)
