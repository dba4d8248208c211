"""What fine-tuning makes of its oracle calls: stable, unique and novel crystals by two potentials, and what narrows.

Each row of the table is a method, given by the samples of its seeds: folders of seeds that ``crystalgen benchmark run``
has written, or of ``crystalgen sample``. Samples that were evaluated before are not evaluated again:
``python -m benchmarks.paper.sample_efficiency --rows "KLPPO=runs/best/seed-0,runs/best/seed-1" --out FOLDER``.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.evaluation.evaluate import evaluate
from benchmarks.metrics.intervals import over_seeds
from benchmarks.metrics.summary import markdown
from benchmarks.samples.readers import read_samples
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.files import atomic_write
from crystal_env.symmetry.canonical import prototype

_OXYGEN = 8
_F_BLOCK = np.r_[57:72, 89:104]  # lanthanides and actinides

_COLUMNS = {
    "stable": "stable, %",
    "unique": "unique, %",
    "novel": "novel, %",
    "sun": "S.U.N., %",
    "sun_without_outliers": "S.U.N. not deeper than 0.2, %",
    "cross_check_stable": "stable by the cross-check, %",
    "cross_check_sun": "S.U.N. by the cross-check, %",
    "sun_by_both": "S.U.N. by both, %",
    "elements": "elements",
    "prototypes": "prototypes",
    "formulas": "formulas",
    "oxygen": "with oxygen, %",
    "f_block": "with f-block, %",
}


@dataclass
class Args:
    """Settings of the table.

    Attributes:
        rows: Rows of the table, each "label=folder,folder", a folder for each seed.
        out: Folder of ``results.json`` and ``table.md``.
        cross_check: Potential that took no part in training, such as "sevennet+MP2020"; by default none.
        cross_check_hull: Its hull, a file.
        n_jobs: Number of processes, by default one per core.
    """

    rows: tuple[str, ...]
    out: Path
    cross_check: str | None = None
    cross_check_hull: Path | None = None
    n_jobs: int | None = None


def main(args: Args) -> None:
    """Evaluate the samples of all rows, and write the table."""
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for text in args.rows:
        label, equals, paths = text.partition("=")
        if not equals or not label or not paths:
            raise InputError(f"rows must be 'label=folder,folder', got {text!r}")
        seeds = [_numbers(Path(path), args) for path in paths.split(",")]
        columns = [name for name in _COLUMNS if all(name in seed for seed in seeds)]
        results[label] = {name: over_seeds([seed[name] for seed in seeds]) for name in columns}
        results[label]["crystals"] = [seed["crystals"] for seed in seeds]
    facts = {"cross_check": args.cross_check, "rows": results}
    atomic_write(args.out / "results.json", json.dumps(facts, indent=2) + "\n")
    atomic_write(args.out / "table.md", table(results) + "\n")
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """Return the results of all rows as a table: means over seeds, their intervals or ranges, numbers of seeds."""
    columns = [name for name in _COLUMNS if any(name in row for row in results.values())]
    head = ["", "seeds × crystals", *(_COLUMNS[name] for name in columns)]
    lines = [head, ["---"] * len(head)]
    for label, row in results.items():
        crystals = row["crystals"]
        cells = [cell(row[name]) if name in row else "" for name in columns]
        lines.append([label, f"{len(crystals)} × {crystals[0]}", *cells])
    return markdown(lines)


def cell(number: dict[str, Any]) -> str:
    """Return a number over seeds as text: the mean, and its t interval at 95 % or its range."""
    text = f"{number['value']:.1f}"
    if number["interval"] is None:
        return text
    low, high = number["interval"]
    return f"{text} [{low:.1f}, {high:.1f}]" if number["interval_kind"] == "t" else f"{text} ({low:.1f} to {high:.1f})"


def _numbers(path: Path, args: Args) -> dict[str, float]:
    """Return the numbers of a sample, from the folder of results if they are there."""
    samples = read_samples(path, args.n_jobs, progress=False)
    key = hashlib.sha256()
    for array in samples.crystals.arrays:
        key.update(np.ascontiguousarray(array).tobytes())
    key.update(f"{args.cross_check} {args.cross_check_hull and args.cross_check_hull.name}".encode())
    known = args.out / "samples" / f"{key.hexdigest()[:16]}.json"
    if known.is_file():
        found: dict[str, float] = json.loads(known.read_text())
        return found
    known.parent.mkdir(parents=True, exist_ok=True)
    numbers = evaluate(
        samples, cross_check=args.cross_check, cross_check_hull=args.cross_check_hull, n_jobs=args.n_jobs
    ).summary
    rates = {name: 100 * value["rate"] for name, value in numbers["rates"].items()}
    result = {
        "crystals": samples.n_attempts, "stable": rates["stable_0.1"], "unique": rates["unique"],
        "novel": rates["novel"], "sun": rates["sun_0.1"], "sun_without_outliers": rates["sun_0.1_without_outliers"],
        **chemistry(samples.crystals),
    }  # fmt: skip
    if "cross_check" in numbers:
        other = {name: 100 * value["rate"] for name, value in numbers["cross_check"]["rates"].items()}
        result |= {
            "cross_check_stable": other["stable_0.1"], "cross_check_sun": other["sun_0.1"],
            "sun_by_both": other["sun_by_both_0.1"],
        }  # fmt: skip
    atomic_write(known, json.dumps(result) + "\n")
    return result


def chemistry(crystals: CrystalBatch) -> dict[str, float]:
    """Return numbers of elements, prototypes and formulas, and the per cent with oxygen and with f-block elements."""
    size = max(len(crystals), 1)
    return {
        "elements": float(len(np.unique(crystals.A[crystals.A > 0]))),
        "prototypes": float(len({prototype(crystal) for crystal in crystals})),
        "formulas": float(len({crystal.formula for crystal in crystals})),
        "oxygen": 100 * float((crystals.A == _OXYGEN).any(1).sum()) / size,
        "f_block": 100 * float(np.isin(crystals.A, _F_BLOCK).any(1).sum()) / size,
    }


if __name__ == "__main__":
    main(tyro.cli(Args))
