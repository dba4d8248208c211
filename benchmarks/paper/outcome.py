"""What a figure or table comes to: its numbers beside the paper's, printed and written with their provenance."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.metrics.intervals import bootstrap, wilson
from benchmarks.paper.published import NUMBERS
from benchmarks.paper.settings import Settings
from benchmarks.provenance import command, hardware, versions
from crystal_env.errors import InputError

SCHEMA = "crystalgen-paper/1"


class Estimate(NamedTuple):
    """A number of ours with its 95 % interval, None where it has none; None itself where there is no number."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What a figure or table comes to.

    Attributes:
        caption: what was done, and in what it differs from the paper.
        estimates: quantity -> ours. Those of `NUMBERS` stand beside the paper's, others below.
        figure: the picture.
        data: what the figure shows or the table lists, JSON-plain.
        table: a table in Markdown, for those that are tables.
    """

    caption: str
    estimates: Mapping[str, Estimate]
    figure: Figure
    data: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""


def percent(chosen: NDArray[np.bool_]) -> Estimate:
    """Return the percentage of True in (B,), with Wilson's interval."""
    count, total = int(chosen.sum()), len(chosen)
    low, high = wilson(count, total)
    return Estimate(100 * count / total if total else None, 100 * low, 100 * high)


def mean(values: NDArray[np.float64]) -> Estimate:
    """Return the mean of values (B,), with its bootstrap interval."""
    interval = bootstrap(values)
    return Estimate(None) if interval is None else Estimate(float(values.mean()), *interval)


def comparison(name: str, outcome: Outcome) -> list[dict[str, Any]]:
    """Return a row for each quantity: the paper's number and its source, and ours.

    Raises:
        ValueError: if a quantity of the paper's has no counterpart.
    """
    rows: list[dict[str, Any]] = []
    ours = dict(outcome.estimates)
    for number in NUMBERS[name]:
        if number.quantity not in ours:
            raise InputError(f"{name} must give {number.quantity!r}, it gives {list(outcome.estimates)}")
        estimate = ours.pop(number.quantity)
        rows.append({"quantity": number.quantity, "paper": number.value, "source": number.source} | _plain(estimate))
    extra = [{"quantity": key, "paper": None, "source": ""} | _plain(value) for key, value in ours.items()]
    return rows + extra


def render(name: str, outcome: Outcome) -> str:
    """Return caption, numbers and table as text in Markdown."""
    lines = [["", "paper", "ours [95 %]", "the paper's from"], ["---", "---:", "---:", "---"]]
    for row in comparison(name, outcome):
        interval = row["interval"]
        ours = _text(row["ours"]) + ("" if interval is None else f" [{_text(interval[0])}, {_text(interval[1])}]")
        lines.append([row["quantity"], _text(row["paper"]), ours, row["source"]])
    parts = [f"# {title(name)}", outcome.caption, markdown(lines)]
    return "\n\n".join([*parts, *([outcome.table] if outcome.table else [])]) + "\n"


def write(name: str, outcome: Outcome, settings: Settings, hashes: Mapping[str, str], seconds: float) -> Path:
    """Write ``NAME.png``, ``NAME.svg``, ``NAME.md`` and ``NAME.json`` into the settings' folder, and return the last.

    Args:
        name: of the figure or table.
        outcome: what it came to.
        settings: those it was made with.
        hashes: name -> SHA-256 of what the numbers depend on.
        seconds: how long it took.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        outcome.figure.savefig(settings.out / f"{name}.{kind}", dpi=150)
    (settings.out / f"{name}.md").write_text(render(name, outcome))
    content = {
        "schema": SCHEMA,
        "name": name,
        "caption": outcome.caption,
        "comparison": comparison(name, outcome),
        "data": outcome.data,
        "provenance": {
            "settings": json.loads(json.dumps(asdict(settings), default=str)),
            "hashes": dict(hashes),
            "versions": versions(),
            "hardware": hardware(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command("python", "-m", "benchmarks.paper", *sys.argv[1:]),
            "seconds": round(seconds, 1),
        },
    }
    path = settings.out / f"{name}.json"
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def title(name: str) -> str:
    """Return what the paper calls a figure or table."""
    number = name.removeprefix("fig_").removeprefix("fig").removeprefix("table_").upper()
    return f"{'Table' if name.startswith('table') else 'Figure'} {number}"


def markdown(lines: list[list[str]]) -> str:
    """Return rows as a table, the second one being the rule."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {"ours": estimate.value, "interval": _interval(estimate)}


def _interval(estimate: Estimate) -> list[float] | None:
    return None if estimate.low is None or estimate.high is None else [estimate.low, estimate.high]


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
