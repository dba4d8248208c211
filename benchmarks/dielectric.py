"""Dielectrics of a base model and of fine-tuned ones: Fig. 6 and Tables S2 and S3 of the paper, with our models.

Run ``python -m benchmarks.dielectric RUN ... --dielectric-model FOLDER --gap-model FOLDER --out FOLDER``. For the base
model and the model of every run, crystals of one space group are drawn and scored. It writes ``gap_dielectric.png``
(Fig. 6a), ``e_above_hull.png`` (Fig. 6b), ``table.md`` with shares, the best candidates (Table S2) and those of known
structure beside the known one (Table S3), ``results.json``, and all crystals as ``MODEL.csv``. It needs
``mp20_train.csv.gz`` and ``mp20_val.csv.gz`` in the data folder.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tyro.conf import Positional

from agents import CrystalFormer
from benchmarks.metrics.sample import HOLE, STABLE, wilson
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.reward import RewardResult
from rewards import DielectricFoM, EnergyAboveHull
from rewards.matching import reduced_formulas, same, structure_labels

_MERIT = 100.0  # eV, the dashed line of Fig. 6a
_SHOWN = (-0.5, 3.0)  # eV/atom


@dataclass
class Args:
    """What is compared.

    Attributes:
        runs: folders of runs of reinforcement, each with a ``model``.
        dielectric_model: folder of the model of the dielectric constant.
        gap_model: folder of the model of the band gap.
        out: folder to write.
        base: the model that all began with.
        space_group: of the crystals.
        size: crystals of each model.
        known_dielectrics: a CSV file with a column ``material_id`` of crystals with a computed constant.
        max_dielectric: largest dielectric constant that is believed.
        seed: of the crystals.
    """

    runs: Positional[tuple[Path, ...]]
    dielectric_model: Path
    gap_model: Path
    out: Path
    base: str = "mp20"
    space_group: int = 225
    size: int = 1000
    known_dielectrics: Path | None = None
    max_dielectric: float | None = 100.0
    seed: int = 12345


class _Sample(NamedTuple):
    """The crystals of one model and what they are worth."""

    crystals: CrystalBatch
    merit: RewardResult
    e_above_hull: NDArray[np.float64]  # NaN where there is none
    unique: NDArray[np.bool_]  # the first of each structure
    known: list[int]  # row of the reference with the same structure, -1 for none


class _Reference(NamedTuple):
    """Known crystals, and which of them have a computed dielectric constant."""

    crystals: CrystalBatch
    dielectric: NDArray[np.bool_]


def main(args: Args) -> None:
    """Draw, score, and write tables and pictures."""
    args.out.mkdir(parents=True, exist_ok=True)
    reference = _reference(args.known_dielectrics)
    merit = DielectricFoM(args.dielectric_model, args.gap_model, max_dielectric=args.max_dielectric)
    models = {"base": args.base} | {run.name: str(run / "model") for run in args.runs}
    samples = {}
    for name, model in models.items():
        drawn = CrystalFormer.from_pretrained(model).sample(args.space_group, args.size, seed=args.seed)
        samples[name] = _examine(drawn, merit, reference.crystals)
        _write_crystals(args.out / f"{name}.csv", samples[name])
        print(f"{name}: {json.dumps(_summary(samples[name]))}")
    tables = [_shares(samples)]
    tables += [_candidates(name, sample, reference) for name, sample in samples.items()]
    tables += [_known(name, sample, reference, merit) for name, sample in samples.items() if name != "base"]
    (args.out / "table.md").write_text("\n\n".join(tables) + "\n")
    summaries = {name: _summary(sample) for name, sample in samples.items()}
    (args.out / "results.json").write_text(json.dumps(summaries, indent=1) + "\n")
    plot_merit(args.out / "gap_dielectric.png", {n: s.merit for n, s in samples.items()}, args.space_group)
    plot_energies(args.out / "e_above_hull.png", {n: s.e_above_hull for n, s in samples.items()}, args.space_group)


def plot_merit(path: Path, results: dict[str, RewardResult], space_group: int) -> None:
    """Write band gaps against dielectric constants with the line of equal merit (Fig. 6a)."""
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, result in results.items():
        gap, dielectric = result.terms["band_gap"], result.terms["dielectric_constant"]
        axes.scatter(dielectric, gap, s=6, alpha=0.5, linewidths=0, label=name)
    line = np.linspace(10, 110, 200)
    axes.plot(line, _MERIT / line, color="black", linestyle="--", linewidth=0.9, label=f"merit {_MERIT:g} eV")
    axes.set(xlabel="total dielectric constant", ylabel="band gap (eV)", title=f"space group {space_group}")
    axes.legend(frameon=False, fontsize=8, markerscale=2)
    figure.savefig(path, dpi=150)


def plot_energies(path: Path, energies: dict[str, NDArray[np.float64]], space_group: int) -> None:
    """Write the histogram of energies above the hull with the line of 0.1 eV/atom (Fig. 6b)."""
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, values in energies.items():
        scored = np.clip(values[np.isfinite(values)], *_SHOWN)
        axes.hist(scored, bins=np.linspace(*_SHOWN, 71).tolist(), histtype="step", linewidth=1.5, label=name)
    axes.axvline(STABLE, color="tab:red", linestyle="--", linewidth=0.9)
    axes.set(xlabel="energy above hull (eV/atom, as drawn)", ylabel="crystals", title=f"space group {space_group}")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def _reference(known_dielectrics: Path | None) -> _Reference:
    import pandas as pd

    parts, ids = [], []
    for name in ("mp20_train.csv.gz", "mp20_val.csv.gz"):
        tokens = load_crystals(data_folder() / name)
        parts.append(tokens.crystals)
        ids.append(pd.read_csv(data_folder() / name, usecols=["material_id"])["material_id"].to_numpy()[tokens.index])
    crystals = CrystalBatch.concatenate(parts)
    if known_dielectrics is None:
        return _Reference(crystals, np.zeros(len(crystals), bool))
    labelled = set(pd.read_csv(known_dielectrics)["material_id"])
    return _Reference(crystals, np.array([i in labelled for i in np.concatenate(ids)]))


def _examine(crystals: CrystalBatch, merit: DielectricFoM, reference: CrystalBatch) -> _Sample:
    energies = EnergyAboveHull()(crystals)
    scored = energies.scored
    e_above_hull = np.where(scored, energies.terms["e_above_hull"], np.nan)
    labels = structure_labels(crystals)
    return _Sample(
        crystals, merit(crystals), e_above_hull, labels == np.arange(len(labels)), _find(crystals, reference)
    )


def _find(crystals: CrystalBatch, reference: CrystalBatch) -> list[int]:
    """Return for every crystal the row of the first of the reference with the same structure, -1 if there is none."""
    rows: dict[bytes, list[int]] = {}
    for row, formula in enumerate(reduced_formulas(reference)):
        rows.setdefault(formula, []).append(row)
    structures, found = crystals.to_structures(primitive=True), []
    for structure, formula in zip(structures, reduced_formulas(crystals), strict=True):
        candidates = rows.get(formula, [])
        known = reference[np.array(candidates, np.int64)].to_structures(primitive=True)
        found.append(next((r for r, s in zip(candidates, known, strict=True) if same(structure, s)), -1))
    return found


def _stable(sample: _Sample) -> NDArray[np.bool_]:
    return (sample.e_above_hull <= STABLE) & (sample.e_above_hull >= -HOLE)


def _summary(sample: _Sample) -> dict[str, Any]:
    total, stable, good = len(sample.crystals), _stable(sample), sample.merit.success()
    novel = np.array(sample.known) < 0
    counts = {
        "merit ≥ 100 eV": good.sum(),
        "stable": stable.sum(),
        "both": (good & stable).sum(),
        "both, distinct": (good & stable & sample.unique).sum(),
        "both, distinct, novel": (good & stable & sample.unique & novel).sum(),
        "distinct structures": sample.unique.sum(),
    }
    formulas = reduced_formulas(sample.crystals)
    return {
        "shares": {name: [int(n), total, *wilson(int(n), total)] for name, n in counts.items()},
        "mean merit (eV)": float(sample.merit.total.mean()),
        "median band gap (eV)": float(np.median(sample.merit.terms["band_gap"])),
        "median dielectric constant": float(np.median(sample.merit.terms["dielectric_constant"])),
        "median e_above_hull (eV/atom)": float(np.nanmedian(sample.e_above_hull)),
        "distinct formulas": len(set(formulas)),
    }


def _shares(samples: dict[str, _Sample]) -> str:
    summaries = {name: _summary(sample) for name, sample in samples.items()}
    lines = [["", *summaries], ["---"] * (len(summaries) + 1)]
    for share in next(iter(summaries.values()))["shares"]:
        cells = [s["shares"][share] for s in summaries.values()]
        lines.append([f"{share}, %", *(f"{100 * n / t:.1f} [{100 * a:.1f}, {100 * b:.1f}]" for n, t, a, b in cells)])
    numbers = [name for name in next(iter(summaries.values())) if name != "shares"]
    lines += [[name, *(f"{s[name]:.4g}" for s in summaries.values())] for name in numbers]
    return _markdown(lines)


def _candidates(name: str, sample: _Sample, reference: _Reference, most: int = 30) -> str:
    """Return the best stable ones of high merit, as Table S2."""
    rows = _best(sample)
    lines = [
        ["formula", "band gap (eV)", "dielectric constant", "merit (eV)", "e_above_hull", "not in MP-20", "no DFPT"]
    ]
    lines.append(["---"] * len(lines[0]))
    for row in rows[:most].tolist():
        known = sample.known[row]
        lines.append([*_values(sample, row), "" if known >= 0 else "✓"])
        lines[-1].append("" if known >= 0 and reference.dielectric[known] else "✓")
    return f"{name}: {len(rows)} stable structures of merit ≥ {_MERIT:g} eV, the best {min(most, len(rows))}\n\n" + (
        _markdown(lines)
    )


def _known(name: str, sample: _Sample, reference: _Reference, merit: DielectricFoM, most: int = 30) -> str:
    """Return those of known structure beside the known one, as Table S3."""
    rows = _best(sample)
    rows = rows[np.array(sample.known, np.int64)[rows] >= 0][:most]
    known = reference.crystals[np.array([sample.known[row] for row in rows], np.int64)]
    result = merit(known)
    lines = [["formula", "band gap (eV)", "dielectric constant", "merit (eV)", "e_above_hull", "a (Å)"]]
    lines[0] += ["gap, known", "constant, known", "merit, known", "a, known (Å)"]
    lines.append(["---"] * len(lines[0]))
    for place, row in enumerate(rows.tolist()):
        lines.append([*_values(sample, row), f"{_length(sample.crystals[row]):.2f}"])
        lines[-1] += [f"{result.terms[term][place]:.2f}" for term in ("band_gap", "dielectric_constant")]
        lines[-1] += [f"{result.total[place]:.1f}", f"{_length(known[place]):.2f}"]
    return f"{name}: {len(rows)} of them are known from MP-20\n\n{_markdown(lines)}"


def _best(sample: _Sample) -> NDArray[np.int64]:
    """Return the different stable ones of high merit, the best first."""
    rows = np.flatnonzero(_stable(sample) & sample.merit.success() & sample.unique)
    return rows[np.argsort(-sample.merit.total[rows], kind="stable")]


def _values(sample: _Sample, row: int) -> list[str]:
    terms = sample.merit.terms
    numbers = [f"{terms[term][row]:.2f}" for term in ("band_gap", "dielectric_constant")]
    return [sample.crystals[row].formula, *numbers, f"{sample.merit.total[row]:.1f}", f"{sample.e_above_hull[row]:.3f}"]


def _length(crystal: Crystal) -> float:
    """Return the length of the primitive cell's first vector in Å."""
    return float(np.linalg.norm(crystal.to_atoms().cell.array[0]))


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write_crystals(path: Path, sample: _Sample) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["crystal", "formula", "band_gap", "dielectric_constant", "merit", "e_above_hull", "known"])
        for row, crystal in enumerate(sample.crystals):
            gap, constant = (sample.merit.terms[term][row] for term in ("band_gap", "dielectric_constant"))
            numbers = [gap, constant, sample.merit.total[row], sample.e_above_hull[row]]
            writer.writerow([str(crystal), crystal.formula, *(f"{v:.5g}" for v in numbers), sample.known[row] >= 0])


if __name__ == "__main__":
    main(tyro.cli(Args))
