"""Columns of tables with one row an attempt, the same in all tables of samples."""

from typing import Any

import numpy as np

from benchmarks.metrics.sample import SampleMetrics
from crystal_env.crystal import Crystal

FLAGS = ("structurally_valid", "compositionally_valid", "space_group_recovered", "novel")
COLUMNS = ("row", "place", "failure", "outside", "formula", "space_group", "requested_space_group", "crystal")
METRIC_COLUMNS = ("e_above_hull", *FLAGS, "label")


def attempt_rows(metrics: SampleMetrics) -> list[dict[str, Any]]:
    """Return a row for each attempt (N): its place, why it failed, or formula, group, text and metrics of its sample.

    ``outside`` says why a sample is outside the representation; ``crystal`` is then empty, and otherwise the text that
    `Crystal.from_string` reads. ``label`` is the attempt of the first sample of the same structure.
    """
    samples = metrics.samples
    rows: list[dict[str, Any]] = [
        {
            "row": row,
            "place": place,
            "failure": samples.failures.get(row, ""),
            "outside": samples.outside.get(row, ""),
            "requested_space_group": int(samples.requested[row]) or "",
        }
        for row, place in enumerate(samples.places)
    ]
    flags, groups = {name: getattr(metrics, name) for name in FLAGS}, metrics.space_group
    for position, sample in enumerate(samples):
        crystal = sample if isinstance(sample, Crystal) else None
        formula = sample.formula if isinstance(sample, Crystal) else sample.composition.reduced_formula
        rows[samples.rows[position]] |= {
            "formula": formula,
            "space_group": int(groups[position]) or "",
            "crystal": "" if crystal is None else str(crystal),
            "e_above_hull": number(metrics.e_above_hull[position]),
            **{name: int(values[position]) for name, values in flags.items()},
            "label": int(samples.rows[metrics.label[position]]),
        }
    return rows


def number(value: float) -> str:
    """Return a number to six decimals, an empty text where it is not finite."""
    return repr(round(float(value), 6)) if np.isfinite(value) else ""
