"""The leaderboard: one table a task, from folders of results, as Markdown and as a page of HTML.

``python -m benchmarks.report.leaderboard [FOLDERS...]`` writes ``README.md`` and ``leaderboard.html`` into
``benchmarks/results/leaderboard``. Equal results give equal bytes. Only results of the very same task, by the digest of
its definition, are ranked; others are listed apart, with the reason.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from benchmarks.harness.integrity_checks import PREVIOUSLY_QUERIED
from benchmarks.harness.migrate import migration_hint
from benchmarks.harness.provenance import SCHEMA
from benchmarks.metrics.intervals import interval_name, wilson
from benchmarks.metrics.labels import CHECKS, label
from benchmarks.metrics.reference import reference_text
from benchmarks.tasks import TASKS, Task
from crystal_env.errors import InputError
from crystal_env.files import atomic_write

_RESULTS = Path(__file__).parents[1] / "results"
_HEAD = (
    "",
    "agent",
    "score",
    "failed checks",
    "S.U.N.",
    "valid",
    "mean of top 10",
    "calls",
    "previously queried",
    "each seed",
)
_INTERVAL = re.compile(r" \(([^()]* to [^()]*)\)$")
_ABOUT = (
    "Agents by score, higher is better: the mean over seeds, with Student's t interval at 95 % of five and more "
    "seeds and with the range of fewer. Calls are those of the oracle, a mean over seeds. Mean of top 10 is the "
    "mean of the ten best rewards so far, averaged over calls. Previously queried is the fraction of the samples "
    "that the oracle had scored before they were sampled: high where a search returns its best crystals, low "
    "where a model samples new ones, of which it can sample any number. Valid and S.U.N. (stable at 0.1 eV/atom, "
    "unique, novel) are rates over all attempts of all seeds, with Wilson intervals at 95 %. A score with failed "
    "checks is doubtful; the checks are defined in benchmarks/harness/integrity_checks.py."
)


@dataclass(frozen=True)
class Entry:
    """The results of an agent on a task.

    Attributes:
        path: path of ``results.json``.
        values: its content.
        reason: why they cannot be ranked, empty if they can.
    """

    path: Path
    values: dict[str, Any]
    reason: str

    @property
    def agent(self) -> str:
        """The agent's name."""
        return str(self.values.get("agent", {}).get("name", "?"))

    @property
    def score(self) -> float:
        """The score that ranks the agent."""
        return float(self.values["score"]["value"])


def leaderboard(folders: Sequence[Path], out: Path | None = None) -> str:
    """Return the tables in Markdown.

    Args:
        folders: are searched for ``results.json``, with all folders in them.
        out: folder of the leaderboard; agents link to the results that are in the folder that holds it.

    Raises:
        ValueError: if there is no such folder, or a ``results.json`` in it is not JSON.
    """
    entries = read_entries(folders)
    parts = ["# Leaderboard", _ABOUT]
    for task in _tasks(entries):
        if ranked := _ranked(entries, task):
            parts += [
                f"## {_title(task)}",
                _about_task(task, ranked[0][1]),
                _markdown(_HEAD, [_linked(_cells(*one), 1, one[1], out) for one in ranked]),
            ]
    if apart := [entry for entry in entries if entry.reason]:
        rows = [_linked(_apart(entry), 0, entry, out) for entry in apart]
        parts += ["## Not comparable", _markdown(("agent", "task", "reason"), rows)]
    if len(parts) == 2:
        parts.append("There are no results yet.")
    return "\n\n".join(parts) + "\n"


def leaderboard_page(folders: Sequence[Path]) -> str:
    """Return the same as a page of HTML that opens from disk, without a network; see `leaderboard`."""
    entries = read_entries(folders)
    parts = [f"<header><h1>Leaderboard</h1><p>{escape(_ABOUT)}</p></header><main>"]
    for task in _tasks(entries):
        ranked = _ranked(entries, task)
        best = max([entry.score for _, entry in ranked] + [_bounds(entry)[1] for _, entry in ranked])
        rows = []
        for rank, entry in ranked:
            cells = [_INTERVAL.sub(r" <small>\1</small>", escape(cell)) for cell in _cells(rank, entry)]
            cells[2] += _bar(entry, best)
            cells[3] = f'<span class="mark bad">{cells[3]}</span>' if entry.values["flags"] else cells[3]
            rows.append(cells)
        about = escape(_about_task(task, ranked[0][1]))
        parts.append(f"<section><h2>{_title(task)}</h2><p class='caption'>{about}</p>")
        parts.append(_html(_HEAD, rows) + "</section>")
    if apart := [entry for entry in entries if entry.reason]:
        rows = [[escape(cell) for cell in _apart(entry)] for entry in apart]
        parts.append(f"<section><h2>Not comparable</h2>{_html(('agent', 'task', 'reason'), rows)}</section>")
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Leaderboard</title>\n<style>\n{style}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</main>\n"
        "</body>\n</html>\n"
    )


def read_entries(folders: Sequence[Path]) -> list[Entry]:
    """Return all results below folders, in a fixed order; ``results.json`` of other kinds, without a schema, are not.

    Raises:
        ValueError: if there is no such folder, or a ``results.json`` in it is not JSON.
    """
    found: dict[Path, Entry] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"folders must be folders of results, there is no {folder}")
        for path in sorted(folder.rglob("results.json")):
            try:
                values = json.loads(path.read_text())
            except json.JSONDecodeError as error:
                raise InputError(f"{path} must be JSON: {error}") from error
            if isinstance(values, dict) and str(values.get("schema", "")).startswith(SCHEMA.partition("/")[0]):
                found[path.resolve()] = Entry(path, values, _reason(values, path.parent))
    return sorted(found.values(), key=_order)


def _order(entry: Entry) -> tuple[Any, ...]:
    task = entry.values.get("task", {}).get("id", "")
    return (task, 0.0 if entry.reason else -entry.score, entry.agent, json.dumps(entry.values, sort_keys=True))


def _reason(values: dict[str, Any], folder: Path) -> str:
    """Return why results cannot be ranked, empty if they can."""
    if values["schema"] != SCHEMA:
        return f"the schema is {values['schema']}, not {SCHEMA}{migration_hint(values['schema'], folder)}"
    found = values["task"]
    task = next((task for task in TASKS if task.id == found["id"]), None)
    if _task_of(values) is not None:
        return ""
    if task is None:
        return "there is no such task"
    known = json.loads(json.dumps(asdict(task)))
    changed = [
        f"{name} is {_short(found.get(name))} instead of {_short(value)}"
        for name, value in known.items()
        if name not in ("summary", "budget", "size") and found.get(name) != value
    ]
    if changed:
        return "another task: " + "; ".join(changed)
    return "another task: the digest is not that of the definition"


def _task_of(values: dict[str, Any]) -> Task | None:
    """Return the task of results, with their budget and number of samples, None if they are of no task."""
    found = values["task"]
    for task in TASKS:
        if task.id == found["id"] and all(isinstance(found.get(name), int) for name in ("budget", "size")):
            resized = task.resized(found["budget"], found["size"])
            plain = json.loads(json.dumps(asdict(resized)))
            same = all(found.get(name) == value for name, value in plain.items() if name != "summary")
            return resized if same and found["digest"] == resized.digest else None
    return None


def _tasks(entries: Sequence[Entry]) -> list[Task]:
    """Return the tasks with results, in the order of the catalogue, those of another size at the end."""
    present = {task.digest: task for entry in entries if not entry.reason and (task := _task_of(entry.values))}
    whole = [task for task in TASKS if present.pop(task.digest, None)]
    return whole + sorted(present.values(), key=lambda task: (task.id, -task.budget, -task.size))


def _title(task: Task) -> str:
    return task.id if task in TASKS else f"{task.id} with another budget"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _ranked(entries: Sequence[Entry], task: Task) -> list[tuple[int, Entry]]:
    """Return the entries of a task with their ranks; equal scores share one."""
    among = [entry for entry in entries if not entry.reason and entry.values["task"]["digest"] == task.digest]
    return [(1 + sum(other.score > entry.score for other in among), entry) for entry in among]


def _about_task(task: Task, entry: Entry) -> str:
    cases = f", {len(task.cases)} cases with each" if len(task.cases) > 1 else ""
    novel = f" Novel against {reference_text(entry.values.get('reference', {}))}." if task.stability else ""
    return (
        f"Goal: {task.summary}. Score: {label(task.score)} (`{task.score}`). "
        f"Budget {task.budget:,} oracle calls, {task.size:,} attempts{cases}.{novel} Definition {task.digest[:12]}."
    )


def _cells(rank: int, entry: Entry) -> list[str]:
    seeds, per_seed = entry.values["seeds"], entry.values["score"]["per_seed"]
    interval = entry.values["score"]["interval"]
    tops = [seed["efficiency"]["mean_top_10"] for seed in seeds if seed["efficiency"].get("mean_top_10") is not None]
    rates = [seed["summary"]["rates"] for seed in seeds]
    has_energies = any(one["scored"]["count"] for one in rates)
    flags = [CHECKS.get(name, name) for name in entry.values["flags"]]
    return [
        str(rank),
        entry.agent,
        f"{entry.score:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""),
        "⚠ " + ", ".join(flags) if flags else "none",
        _pooled([one["sun_0.1"] for one in rates]) if has_energies else "–",
        _pooled([one["valid"] for one in rates]),
        f"{sum(tops) / len(tops):.4f}" if tops else "–",
        f"{sum(seed['calls'] for seed in seeds) / len(seeds):,.0f}",
        _previously_queried(seeds),
        ", ".join(f"{score:.4f}" for score in per_seed) + f" ({interval_name(len(per_seed))})",
    ]


def _previously_queried(seeds: Sequence[dict[str, Any]]) -> str:
    """Return the fraction of samples that the oracle had scored before they were sampled, a mean over seeds."""
    checks = [check for seed in seeds for check in seed["checks"] if check["name"] == PREVIOUSLY_QUERIED]
    known = [check["value"] for check in checks if check["value"] is not None]
    return f"{100 * sum(known) / len(known):.1f} %" if known else "–"


def _pooled(rates: Sequence[dict[str, Any]]) -> str:
    count, total = sum(rate["count"] for rate in rates), sum(rate["total"] for rate in rates)
    low, high = wilson(count, total)
    return f"{100 * count / max(total, 1):.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _apart(entry: Entry) -> list[str]:
    task = entry.values.get("task", {}).get("id", "?")
    return [entry.agent, task, entry.reason]


def _linked(cells: list[str], place: int, entry: Entry, out: Path | None) -> list[str]:
    """Return cells for Markdown, the one with the agent's name as a link to results that lie beside the leaderboard."""
    cells = [cell.replace("|", "\\|") for cell in cells]
    path = entry.path.resolve()
    if out is not None and path.is_relative_to(out.resolve().parent):
        cells[place] = f"[{cells[place]}]({Path(os.path.relpath(path, out.resolve())).as_posix()})"
    return cells


def _bounds(entry: Entry) -> tuple[float, float]:
    low, high = entry.values["score"]["interval"] or (entry.score, entry.score)
    return float(low), float(high)


def _bar(entry: Entry, best: float) -> str:
    """Return a small bar of the score with its interval, as a fraction of the best of the table."""
    scale = 100 / best if best > 0 else 0.0
    low, high = (max(0.0, scale * bound) for bound in _bounds(entry))
    return (
        '<svg viewBox="0 0 100 10" width="140" height="14" aria-hidden="true">'
        f'<rect y="2" width="{max(0.0, scale * entry.score):.1f}" height="6" fill="var(--blue)"/>'
        f'<path d="M{low:.1f} 5H{high:.1f}" stroke="var(--ink)" stroke-width="1.5"/></svg>'
    )


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from benchmarks.report.tables import html_table

    return html_table(head, rows, "ranks")


def write(folders: Sequence[Path], out: Path = _RESULTS / "leaderboard") -> Path:
    """Write ``README.md`` and ``leaderboard.html`` into a folder, and return the path of the former.

    Args:
        folders: are searched for ``results.json``, with all folders in them.
        out: folder that is written.

    Raises:
        ValueError: if there is no such folder, or a ``results.json`` in it is not JSON.
    """
    text, page = leaderboard(folders, out), leaderboard_page(folders)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "leaderboard.html", page)
    path = out / "README.md"
    atomic_write(path, text)
    return path


def main(folders: Positional[tuple[Path, ...]] = (_RESULTS,), out: Path = _RESULTS / "leaderboard") -> None:
    """Write the leaderboard.

    Args:
        folders: are searched for ``results.json``, with all folders in them; by default ``benchmarks/results``.
        out: folder for ``README.md`` and ``leaderboard.html``, by default ``benchmarks/results/leaderboard``.
    """
    try:
        print(write(folders, out))
    except InputError as error:
        raise SystemExit(f"leaderboard: {error}") from error


if __name__ == "__main__":
    tyro.cli(main)
