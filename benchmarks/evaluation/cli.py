"""The command ``crystalgen evaluate``: what files of crystals are worth, side by side."""

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tyro.conf import Positional

from benchmarks.evaluation.evaluate import Evaluation, evaluate
from benchmarks.evaluation.samples import Attempts, as_attempts
from benchmarks.metrics.sample import Examination, table
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.elements import SYMBOLS
from crystal_env.errors import InputError

_SHOWN = 10  # bad rows that are printed


@dataclass(frozen=True)
class EvaluateConfig:
    """What ``crystalgen evaluate`` does.

    Attributes:
        paths: samples to compare: a folder of CIF files, a CSV file with a column ``cif``, ``structure`` or
            ``crystal`` such as a table of the benchmark, an extended XYZ file, a database of ASE, an npz file of
            crystals, or any other file of structures that ASE reads.
        reference: files of crystals that are not novel, by default MP-20's in the folder $CRYSTALGEN_DATA.
        potential: name of the potential.
        hull: name of a shipped hull, or a file.
        max_depth: deepest energy below the hull in eV/atom that counts as an energy; by default any, as in the paper.
        size: attempts of each file, counted from the first, that are looked at; by default all.
        relax: attempts of each file, from the first, that are relaxed too, about a second each.
        coverage: compare with MP-20's validation set in the folder $CRYSTALGEN_DATA too.
        weighted: weigh space groups by their frequencies in MP-20 too.
        seconds: time that each sample took to draw, for S.U.N. per second.
        out: folder for ``summary.json``, ``table.md``, ``plot.png`` and, for each file, a table of its attempts.
        n_jobs: processes, by default one a core.
    """

    paths: Positional[tuple[Path, ...]]
    reference: tuple[Path, ...] = ()
    potential: str = "chgnet"
    hull: str = "mp20-chgnet"
    max_depth: float | None = None
    size: int | None = None
    relax: int = 0
    coverage: bool = False
    weighted: bool = False
    seconds: tuple[float, ...] = ()
    out: Path | None = None
    n_jobs: int | None = None


def main(config: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """Examine files of crystals, print them side by side, and return their summaries by name.

    Raises:
        ValueError: if a file cannot be read, or there is no reference.
    """
    if not config.paths:
        raise InputError("paths must name at least one file of crystals")
    if config.seconds and len(config.seconds) != len(config.paths):
        raise InputError(f"seconds must be one number for each of {len(config.paths)} paths, got {config.seconds}")
    made: dict[str, Evaluation] = {}
    cover = load_crystals(data_folder() / "mp20_val.csv.gz").crystals if config.coverage else None
    for number, (name, path) in enumerate(zip(_names(config.paths), config.paths, strict=True)):
        attempts = as_attempts(path, config.n_jobs, name=name).first(config.size)
        _tell(path, attempts)
        made[name] = evaluate(
            attempts,
            reference=config.reference,
            potential=config.potential,
            hull=config.hull,
            max_depth=config.max_depth,
            weights="mp20" if config.weighted else None,
            relax=config.relax,
            cover=cover,
            seconds=config.seconds[number] if config.seconds else None,
            n_jobs=config.n_jobs,
        )
    summaries = {name: one.summary for name, one in made.items()}
    text = "\n".join([table(summaries), *_more(summaries)])
    print(text)
    if config.out is not None:
        _write(config.out, made, text)
    return summaries


def _tell(path: Path, attempts: Attempts) -> None:
    """Name the rows that are no structures, and say how many are beyond the grammar."""
    for row, reason in list(attempts.failures.items())[:_SHOWN]:
        print(f"{path}, {attempts.places[row]}: {reason}", file=sys.stderr)
    if attempts.failures:
        print(f"{path}: {len(attempts.failures)} of {len(attempts)} attempts count as failures", file=sys.stderr)
    if attempts.remarks:
        row, reason = next(iter(attempts.remarks.items()))
        beyond = f"{len(attempts.remarks)} structures are beyond the grammar and judged as they are"
        print(f"{path}: {beyond}, such as {attempts.places[row]}: {reason}", file=sys.stderr)


def _more(summaries: dict[str, dict[str, Any]]) -> list[str]:
    """Return rows of the table for what only some evaluations have."""
    parts = (("space groups", "{}"), ("weighted", "weighted {}"), ("relaxed", "relaxed: {}"))
    rows = []
    for part, title in parts:
        for name in dict.fromkeys(name for one in summaries.values() for name in _shares(one.get(part, {}))):
            cells = [_cell(_shares(one.get(part, {})).get(name)) for one in summaries.values()]
            rows.append([f"{title.format(name)}, %", *cells])
    for part, names in (
        ("relaxed", ("mean RMSD, Å", "median RMSD, Å", "mean gain, eV/atom", "mean e_above_hull")),
        ("distribution", tuple(dict.fromkeys(name for one in summaries.values() for name in one["distribution"]))),
    ):
        for name in names:
            values = [one.get(part, {}).get(name) for one in summaries.values()]
            if any(value is not None for value in values):
                cells = ["–" if value is None else f"{value:.4g}" for value in values]
                rows.append([f"relaxed: {name}" if part == "relaxed" else name, *cells])
    if any("S.U.N. per second" in one for one in summaries.values()):
        rows.append(["S.U.N. per second", *(f"{one['S.U.N. per second']:.4g}" for one in summaries.values())])
    return ["| " + " | ".join(row) + " |" for row in rows]


def _shares(part: dict[str, Any]) -> dict[str, Any]:
    entries: dict[str, Any] = part.get("shares", part)
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict) and "share" in entry}


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "–"
    low, high = entry["interval"]
    return f"{100 * entry['share']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _write(out: Path, made: dict[str, Evaluation], text: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text + "\n")
    summaries = {name: one.summary for name, one in made.items()}
    (out / "summary.json").write_text(json.dumps(summaries, indent=2) + "\n")
    plot({name: one.sample for name, one in made.items()}, out / "plot.png")
    for name, one in made.items():
        write_attempts(one, out / f"{name}.csv")


def _names(paths: tuple[Path, ...]) -> list[str]:
    """Return names that tell files apart: their own, or with the folders above where these are the same."""
    depth = 1
    while depth < 9 and len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    names = ["-".join(path.parts[-depth:]).removesuffix(".gz") for path in paths]
    return [name.removesuffix(Path(name).suffix).removesuffix("-crystals") for name in names]


def write_attempts(made: Evaluation, path: Path) -> None:
    """Write a row an attempt: where it stands, why it failed, formula, group, energy, every verdict, and its text."""
    attempts, sample = made.attempts, made.sample
    verdicts = ("structural", "compositional", "found", "novel")
    entries: list[dict[str, Any]] = [
        {"row": row, "place": place, "requested_space_group": int(attempts.groups[row]) or ""}
        for row, place in enumerate(attempts.places)
    ]
    for row, reason in attempts.failures.items():
        entries[row]["failure"] = reason
    for row, reason in attempts.remarks.items():
        entries[row]["remark"] = reason
    rows = np.concatenate([attempts.rows, attempts.foreign_rows]).astype(np.int64)
    groups, n = sample.groups(), len(sample.crystals)
    for i, row in enumerate(rows):
        crystal = sample.crystals[i] if i < n else None
        formula = crystal.formula if crystal else sample.foreign[i - n].composition.reduced_formula
        entry = {"formula": formula, "space_group": int(groups[i]) or "", "crystal": str(crystal) if crystal else ""}
        energy = sample.e_above_hull[i]
        entry |= {"e_above_hull": "" if np.isnan(energy) else f"{energy:.5f}", "label": int(rows[sample.label[i]])}
        entries[row] |= entry | {name: int(getattr(sample, name)[i]) for name in verdicts}
        if made.relaxed is not None:
            entries[row] |= _relaxed_columns(made, i)
    names = ["row", "place", "failure", "remark", "formula", "space_group", "requested_space_group", "e_above_hull"]
    names += [*verdicts, "label", *(_RELAXED if made.relaxed is not None else ()), "crystal"]
    with path.open("w", newline="") as file:
        rows_out = csv.DictWriter(file, names, restval="")
        rows_out.writeheader()
        rows_out.writerows(entries)


_RELAXED = ("relaxed_e_above_hull", "relaxed_rmsd", "relaxed_group_survives", "relaxed_failure")


def _relaxed_columns(made: Evaluation, i: int) -> dict[str, Any]:
    """Return what became of the i-th of all crystals and structures, if it was relaxed."""
    after, n = made.relaxed, len(made.sample.crystals)
    assert after is not None
    if i < n:
        place = i if i < len(after.crystals) else None
    else:
        place = len(after.crystals) + i - n if i - n < len(after.foreign) else None
    if place is None:
        return {}
    energy, rmsd = after.e_above_hull[place], after.rmsd[place]
    return {
        "relaxed_e_above_hull": "" if np.isnan(energy) else f"{energy:.5f}",
        "relaxed_rmsd": "" if np.isnan(rmsd) else f"{rmsd:.4f}",
        "relaxed_group_survives": int(after.group[place]),
        "relaxed_failure": after.failures[place] or "",
    }


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
        label = f"{name}: {(energy <= 0.1).sum() / max(len(energy), 1):.1%}"
        energies.hist(energy[np.isfinite(energy)], bins, histtype="stepfilled", alpha=0.5, label=label)
        A = sample.crystals.A
        share = [(z == A).any(1).sum() / max(len(A), 1) for z in common]
        elements.bar(np.arange(len(common)) + i * width, share, width, label=name)
        groups.hist(sample.groups(), np.arange(0, 240, 10), histtype="step", density=len(A) > 0, label=name)
    energies.axvline(0.1, color="tab:red", linestyle="--", linewidth=1)
    energies.set(xlabel="energy above hull (eV/atom)", ylabel="crystals")
    energies.legend(title="at most 0.1 eV/atom")
    elements.set_xticks(np.arange(len(common)), [SYMBOLS[z] for z in common], fontsize=7)
    elements.set(ylabel="share of crystals with the element")
    groups.set(xlabel="space group", ylabel="density")
    figure.savefig(path, dpi=130)
