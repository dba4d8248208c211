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

from benchmarks.harness.integrity_checks import ASKED_BEFORE
from benchmarks.harness.provenance import SCHEMA
from benchmarks.metrics.sample import wilson
from benchmarks.tasks import TASKS, Task
from crystal_env.errors import InputError

_RESULTS = Path(__file__).parents[1] / "results"
_HEAD = ("", "agent", "score", "checks failed", "S.U.N.", "valid", "AUC top-10", "calls", "asked before", "each seed")
_INTERVAL = re.compile(r" \(([^()]* to [^()]*)\)$")
_ABOUT = (
    "Agents by score, higher is better: the interquartile mean over seeds with its bootstrap interval, or for fewer "
    "than three seeds the mean and the range. Calls are those of the oracle, a mean over seeds. Asked before is the "
    "share of the drawn crystals that the oracle had answered for: high where the best of a search are drawn, low "
    "where a model draws new ones, of which it can draw any number. Valid and S.U.N. (stable at 0.1 eV/atom, unique, "
    "novel) are shares of all attempts of all seeds, with Wilson intervals at 95 %. "
    "A score with failed checks is doubtful; what the checks are stands in benchmarks/harness/integrity_checks.py."
)


@dataclass(frozen=True)
class Entry:
    """The results of an agent on a task.

    Attributes:
        path: of ``results.json``.
        values: what it holds.
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
        """What ranks the agent."""
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
                _about_task(task),
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
        most = max([entry.score for _, entry in ranked] + [_bounds(entry)[1] for _, entry in ranked])
        rows = []
        for rank, entry in ranked:
            cells = [_INTERVAL.sub(r" <small>\1</small>", escape(cell)) for cell in _cells(rank, entry)]
            cells[2] += _bar(entry, most)
            cells[3] = f'<span class="mark bad">{cells[3]}</span>' if entry.values["flags"] else cells[3]
            rows.append(cells)
        parts.append(f"<section><h2>{_title(task)}</h2><p class='caption'>{escape(_about_task(task))}</p>")
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
                found[path.resolve()] = Entry(path, values, _reason(values))
    return sorted(found.values(), key=_order)


def _order(entry: Entry) -> tuple[Any, ...]:
    task = entry.values.get("task", {}).get("id", "")
    return (task, 0.0 if entry.reason else -entry.score, entry.agent, json.dumps(entry.values, sort_keys=True))


def _reason(values: dict[str, Any]) -> str:
    """Return why results cannot be ranked, empty if they can."""
    if values["schema"] != SCHEMA:
        return f"the schema is {values['schema']}, not {SCHEMA}"
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
    """Return the task that results are of, with the budget and the sample that they were made with, else None."""
    found = values["task"]
    for task in TASKS:
        if task.id == found["id"] and all(isinstance(found.get(name), int) for name in ("budget", "size")):
            resized = task.resized(found["budget"], found["size"])
            plain = json.loads(json.dumps(asdict(resized)))
            same = all(found.get(name) == value for name, value in plain.items() if name != "summary")
            return resized if same and found["digest"] == resized.digest else None
    return None


def _tasks(entries: Sequence[Entry]) -> list[Task]:
    """Return the tasks that there are results of, in the order of the catalogue, those of another size at the end."""
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


def _about_task(task: Task) -> str:
    cases = f", {len(task.cases)} cases with each" if len(task.cases) > 1 else ""
    return (
        f"Sought: {task.summary}. Score: {task.score.rstrip('.')}. "
        f"Budget {task.budget:,} oracle calls, {task.size:,} attempts{cases}. Definition {task.digest[:12]}."
    )


def _cells(rank: int, entry: Entry) -> list[str]:
    seeds = entry.values["seeds"]
    per_seed = entry.values["score"]["per_seed"]
    interval = entry.values["score"]["interval"]
    areas = [seed["efficiency"]["auc top-10"] for seed in seeds if seed["efficiency"].get("auc top-10") is not None]
    shares = [seed["summary"]["shares"] for seed in seeds]
    has_energies = any(share["scored"]["count"] for share in shares)
    return [
        str(rank),
        entry.agent,
        f"{entry.score:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""),
        "⚠ " + ", ".join(entry.values["flags"]) if entry.values["flags"] else "none",
        _pooled([share["S.U.N. (≤ 0.1 eV/atom)"] for share in shares]) if has_energies else "–",
        _pooled([share["valid"] for share in shares]),
        f"{sum(areas) / len(areas):.4f}" if areas else "–",
        f"{sum(seed['calls'] for seed in seeds) / len(seeds):,.0f}",
        _asked_before(seeds),
        ", ".join(f"{score:.4f}" for score in per_seed) + f" (n = {len(per_seed)})",
    ]


def _asked_before(seeds: Sequence[dict[str, Any]]) -> str:
    """Return the share of crystals that the oracle had answered for before they were drawn, a mean over seeds."""
    checks = [check for seed in seeds for check in seed["checks"] if check["name"] == ASKED_BEFORE]
    known = [check["value"] for check in checks if check["value"] is not None]
    return f"{100 * sum(known) / len(known):.1f} %" if known else "–"


def _pooled(shares: Sequence[dict[str, Any]]) -> str:
    count, of = sum(share["count"] for share in shares), sum(share["of"] for share in shares)
    low, high = wilson(count, of)
    return f"{100 * count / max(of, 1):.1f} % ({100 * low:.1f} to {100 * high:.1f})"


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


def _bar(entry: Entry, most: float) -> str:
    """Return a small bar of the score with its interval, as a share of the best of the table."""
    scale = 100 / most if most > 0 else 0.0
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
    (out / "leaderboard.html").write_text(page, encoding="utf-8")
    path = out / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def main(folders: Positional[tuple[Path, ...]] = (_RESULTS,), out: Path = _RESULTS / "leaderboard") -> None:
    """Write the leaderboard anew.

    Args:
        folders: are searched for ``results.json``, with all folders in them; by default ``benchmarks/results``.
        out: folder for ``README.md`` and ``leaderboard.html``, by default ``benchmarks/results/leaderboard``.
    """
    try:
        print(write(folders, out))
    except ValueError as error:
        raise SystemExit(f"leaderboard: {error}") from error


if __name__ == "__main__":
    tyro.cli(main)
