"""The command ``crystalgen evaluate``: metrics of files of crystals, in parallel columns."""

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from benchmarks.evaluation.evaluate import Evaluation, evaluate
from benchmarks.evaluation.plot import plot
from benchmarks.metrics.columns import COLUMNS, METRIC_COLUMNS, attempt_rows, number
from benchmarks.metrics.labels import DISTRIBUTION, label
from benchmarks.metrics.reference import reference_text
from benchmarks.metrics.summary import comparison_table, markdown, rate_row
from benchmarks.samples.readers import read_samples
from benchmarks.samples.samples import Samples
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.errors import InputError
from crystal_env.files import atomic_write

_SECOND = "cross-check: "
_SECOND_ENERGIES = ("e_above_hull_median", "e_above_hull_mean_unscored_10", "e_above_hull_difference_median")
_MAX_SHOWN = 10  # failures that are printed


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate files of crystals.

    Attributes:
        paths: Samples to compare: a folder of CIF files, a folder of ``crystalgen sample``, a CSV file with a column
            ``cif``, ``structure`` or ``crystal`` such as a table of the benchmark, an extended XYZ file, a database of
            ASE, an npz file of crystals, or any other file of structures that ASE reads.
        reference: Files of crystals that are not novel, by default MP-20's in the folder $CRYSTALGEN_DATA.
        potential: Name of the potential.
        hull: Name of a shipped hull, or a file.
        max_depth: Maximum depth below the hull in eV/atom of an accepted energy; by default any, as in the paper.
        cross_check: Second potential that evaluates all samples again, such as ``sevennet+MP2020``.
        cross_check_hull: Hull of the second potential: a file of its own energies or of DFT energies on its scale.
        size: Number of attempts of each file, from the first, that are evaluated; by default all.
        relax: Number of attempts of each file, from the first, that are relaxed too, about a second each.
        coverage: Compute the coverage of MP-20's validation set in the folder $CRYSTALGEN_DATA too.
        weighted: Compute rates with space groups weighted by their frequencies in MP-20 too.
        seconds: Time that sampling each file took, for S.U.N. per second.
        out: Folder for ``summary.json``, ``table.md``, ``plot.png`` and a table of the attempts of each file.
        n_jobs: Number of processes, by default one a core.
    """

    paths: Positional[tuple[Path, ...]]
    reference: tuple[Path, ...] = ()
    potential: str = "chgnet"
    hull: str = "mp20-chgnet"
    max_depth: float | None = None
    cross_check: str | None = None
    cross_check_hull: str | None = None
    size: int | None = None
    relax: int = 0
    coverage: bool = False
    weighted: bool = False
    seconds: tuple[float, ...] = ()
    out: Path | None = None
    n_jobs: int | None = None


def main(config: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """Evaluate files of crystals, print their numbers in parallel columns, and return their summaries by name.

    Raises:
        ValueError: if a file cannot be read, or there is no reference.
    """
    if not config.paths:
        raise InputError("paths must name at least one file of crystals")
    if config.seconds and len(config.seconds) != len(config.paths):
        raise InputError(f"seconds must be one number for each of {len(config.paths)} paths, got {config.seconds}")
    evaluations: dict[str, Evaluation] = {}
    cover = load_crystals(data_folder() / "mp20_val.csv.gz").crystals if config.coverage else None
    for index, (name, path) in enumerate(zip(_names(config.paths), config.paths, strict=True)):
        samples = read_samples(path, config.n_jobs, name=name).first(config.size)
        _report_failures(path, samples)
        evaluations[name] = evaluate(
            samples,
            reference=config.reference,
            potential=config.potential,
            hull=config.hull,
            max_depth=config.max_depth,
            cross_check=config.cross_check,
            cross_check_hull=config.cross_check_hull,
            weights="mp20" if config.weighted else None,
            relax=config.relax,
            cover=cover,
            seconds=config.seconds[index] if config.seconds else None,
            n_jobs=config.n_jobs,
        )
    summaries = {name: one.summary for name, one in evaluations.items()}
    text = table(summaries)
    print(text)
    if config.out is not None:
        _write(config.out, evaluations, text)
    return summaries


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """Return all numbers of samples in parallel columns, in Markdown, with the reference of novelty below."""
    columns = list(summaries.values())
    rows = []
    for part, prefix in (
        ("space_groups", ""),
        ("weighted", "weighted: "),
        ("relaxed", "relaxed: "),
        ("cross_check", _SECOND),
    ):
        rates = [_rates(one.get(part, {})) for one in columns]
        names = dict.fromkeys(name for one in rates for name in one)
        rows += [rate_row(name, [one.get(name) for one in rates], prefix) for name in names]
    for part, keys, prefix in (
        ("relaxed", ("rmsd_mean", "rmsd_median", "energy_gain_mean", "e_above_hull_mean"), "relaxed: "),
        ("cross_check", _SECOND_ENERGIES, _SECOND),
        ("distribution", tuple(DISTRIBUTION), ""),
    ):
        for name in keys:
            values = [one.get(part, {}).get(name) for one in columns]
            if any(value is not None for value in values):
                rows.append([prefix + label(name), *("–" if value is None else f"{value:.4g}" for value in values)])
    if any("sun_per_second" in one for one in columns):
        rows.append([label("sun_per_second"), *(f"{one['sun_per_second']:.4g}" for one in columns)])
    text = comparison_table(summaries) + ("\n" + markdown(rows) if rows else "")
    return f"{text}\n\nNovel against {reference_text(columns[0]['provenance']['reference'])}."


def write_attempts(evaluation: Evaluation, path: Path) -> None:
    """Write a row for each attempt: its place, why it failed, and all metrics of its sample."""
    rows, relaxed, second = attempt_rows(evaluation.metrics), evaluation.relaxed, evaluation.cross_check
    if second is not None:
        for row, energy in zip(second.samples.rows, second.e_above_hull, strict=True):
            rows[row][_SECOND_COLUMN] = number(energy)
    if relaxed is not None:
        for position, row in enumerate(relaxed.samples.rows):
            rows[row] |= {
                "relaxed_e_above_hull": number(relaxed.e_above_hull[position]),
                "relaxed_rmsd": number(relaxed.rmsd[position]),
                "relaxed_space_group_kept": int(relaxed.space_group_kept[position]),
                "relaxed_failure": relaxed.failures[position] or "",
            }
    further = () if relaxed is None else _RELAXED_COLUMNS
    names = [*COLUMNS[:-1], *METRIC_COLUMNS, *(() if second is None else (_SECOND_COLUMN,)), *further, COLUMNS[-1]]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


_SECOND_COLUMN = "cross_check_e_above_hull"
_RELAXED_COLUMNS = ("relaxed_e_above_hull", "relaxed_rmsd", "relaxed_space_group_kept", "relaxed_failure")


def _report_failures(path: Path, samples: Samples) -> None:
    """Name the attempts that gave no structure, and count structures outside the representation."""
    for row, reason in list(samples.failures.items())[:_MAX_SHOWN]:
        print(f"{path}, {samples.places[row]}: {reason}", file=sys.stderr)
    if samples.failures:
        print(f"{path}: {len(samples.failures)} of {samples.n_attempts} attempts are failures", file=sys.stderr)
    if samples.outside:
        row, reason = next(iter(samples.outside.items()))
        text = f"{len(samples.outside)} structures are outside the representation and evaluated as they are"
        print(f"{path}: {text}, such as {samples.places[row]}: {reason}", file=sys.stderr)


def _rates(part: dict[str, Any]) -> dict[str, Any]:
    entries: dict[str, Any] = part.get("rates", part)
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict) and "rate" in entry}


def _write(out: Path, evaluations: dict[str, Evaluation], text: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "table.md", text + "\n")
    summaries = {name: one.summary for name, one in evaluations.items()}
    atomic_write(out / "summary.json", json.dumps(summaries, indent=2) + "\n")
    plot({name: one.metrics for name, one in evaluations.items()}, out / "plot.png")
    for name, one in evaluations.items():
        write_attempts(one, out / f"{name}.csv")


def _names(paths: tuple[Path, ...]) -> list[str]:
    """Return names that tell files apart: their own, or with the folders above where these are the same."""
    depth = 1
    while depth < 9 and len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    names = ["-".join(path.parts[-depth:]).removesuffix(".gz") for path in paths]
    return [name.removesuffix(Path(name).suffix).removesuffix("-crystals") for name in names]
