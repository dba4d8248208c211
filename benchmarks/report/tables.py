"""Tables of the page: checks, metrics, cases and provenance."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from benchmarks.metrics.intervals import over_seeds, wilson
from benchmarks.metrics.labels import CHECKS, ENERGIES, label
from benchmarks.metrics.reference import reference_text
from benchmarks.report.folder import Results


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Return a table that scrolls within itself where it is too wide; cells are HTML."""
    lines = [f'<div class="scroll"><table class="{kind}"><thead><tr>']
    lines += [f"<th>{escape(name)}</th>" for name in head]
    lines.append("</tr></thead><tbody>")
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return "".join([*lines, "</tbody></table></div>"])


def checks(results: Results) -> str:
    """Return a row for each check: its outcome with each seed, the allowed and the measured number."""
    names = list(dict.fromkeys(check["name"] for entry in results.seeds for check in entry.get("checks", [])))
    if not names:
        return "<p>No checks were made.</p>"
    rows = []
    for name in names:
        found = [_find(entry, name) for entry in results.seeds]
        limit = next((check["limit"] for check in found if check and check["limit"]), "")
        details = [check["detail"] if check else "not made" for check in found]
        texts = details if len(set(details)) > 1 else details[:1]
        rows.append(
            [
                escape(_check_label(name)),
                _marks({entry["seed"]: _passed(entry, name) for entry in results.seeds}),
                escape(limit),
                "<br>".join(escape(text) for text in texts),
            ]
        )
    head = ["check", "outcome", "allowed", "measured"]
    return html_table(head, rows, "checks")


def failed(results: Results) -> list[tuple[str, str]]:
    """Return the label of each check that failed, and in words the measured and the allowed number."""
    found = []
    for name in results.values["flags"]:
        texts, limit = [], ""
        for entry in results.seeds:
            check = _find(entry, name)
            if check and check["passed"] is False:
                texts.append(f"seed {entry['seed']}: {check['detail']}")
                limit = check["limit"]
        found.append((_check_label(name), "; ".join(texts) + (f". Allowed: {limit}." if limit else "")))
    return found


def metrics(results: Results) -> str:
    """Return a row for each metric: of all seeds together and of each, with intervals."""
    seeds = results.seeds
    summaries = [entry["summary"] for entry in seeds]
    rows: list[list[str]] = []
    for name in summaries[0].get("rates", {}):
        entries = [summary["rates"][name] for summary in summaries]
        count, total = sum(entry["count"] for entry in entries), sum(entry["total"] for entry in entries)
        cells = [_interval(entry["rate"], entry["interval"], 100, 1, " %") for entry in entries]
        pooled = _interval(count / max(total, 1), wilson(count, total), 100, 1, " %")
        rows.append([escape(label(name)), pooled, *cells])
    for name in ENERGIES:
        if any(summary.get(name) is not None for summary in summaries):
            bounds = [summary.get("intervals", {}).get(name) for summary in summaries]
            values = [summary.get(name) for summary in summaries]
            cells = [_interval(value, bound, 1, 3) for value, bound in zip(values, bounds, strict=True)]
            rows.append([escape(label(name)), _over_seeds(values, 3), *cells])
    for group, digits in (("efficiency", 4), ("variety", 4)):
        parts = [entry["summary"].get(group, {}) if group == "variety" else entry.get(group, {}) for entry in seeds]
        for name in parts[0]:
            values = [part.get(name) for part in parts]
            rows.append(
                [escape(label(name)), _over_seeds(values, digits), *(_number(value, digits) for value in values)]
            )
    head = ["metric"] + (["all seeds"] if len(seeds) > 1 else []) + [f"seed {entry['seed']}" for entry in seeds]
    rows = rows if len(seeds) > 1 else [[row[0], *row[2:]] for row in rows]
    return html_table(head, rows, "numbers")


def cases(results: Results) -> str:
    """Return a row for each case of a task that has several, with the details of each seed; else nothing."""
    constraints = results.task["cases"]
    if len(constraints) < 2:
        return ""
    rows = []
    for number, constraint in enumerate(constraints):
        known = [entry["details"][number] if number < len(entry["details"]) else {} for entry in results.seeds]
        texts = [_details({name: value for name, value in one.items() if name not in constraint}) for one in known]
        rows.append([escape(", ".join(str(value) for value in constraint.values())), *texts])
    return html_table(["case", *(f"seed {entry['seed']}" for entry in results.seeds)], rows, "numbers")


def attempts(results: Results) -> str:
    """Return why attempts failed, if any did."""
    counts: dict[str, int] = {}
    for entry in results.seeds:
        for reason, count in entry.get("failures", {}).items():
            counts[reason] = counts.get(reason, 0) + count
    if not counts:
        return ""
    rows = [[escape(reason), str(count)] for reason, count in sorted(counts.items(), key=lambda item: -item[1])]
    return "<h3>Failed attempts</h3>" + html_table(["reason", "attempts"], rows, "numbers")


def provenance(results: Results) -> str:
    """Return what the numbers depend on: command, versions, hardware, reference, hashes, settings and the task."""
    about = results.values.get("provenance", {})
    hardware = ", ".join(f"{name} {value}" for name, value in about.get("hardware", {}).items() if value is not None)
    facts = [
        ("command", f"<code>{escape(str(about.get('command', '–')))}</code>"),
        ("date", escape(str(about.get("date", "–")))),
        ("time", duration(about.get("seconds"))),
        ("hardware", escape(hardware) or "–"),
        ("agent", f"<code>{escape(str(results.values['agent'].get('source', '–')))}</code>"),
        ("novel against", escape(reference_text(results.values.get("reference", {})))),
        ("task digest", f"<code>{escape(results.task['digest'])}</code>"),
        *((escape(name), f"<code>{escape(str(value))}</code>") for name, value in about.get("hashes", {}).items()),
    ]
    versions = ", ".join(f"{escape(name)} {escape(value)}" for name, value in about.get("versions", {}).items())
    facts.append(("versions", versions or "–"))
    return html_table(["", ""], facts, "facts") + "".join(
        f"<details><summary>{title}</summary><pre>{escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>"
        "</details>"
        for title, value in (
            ("Settings of the agent", results.values["agent"].get("settings", {})),
            ("Definition of the task", results.task),
        )
    )


def duration(seconds: float | None) -> str:
    """Return a time in words, such as ``"45 min"``."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _check_label(name: str) -> str:
    return CHECKS.get(name, name)


def _find(entry: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((check for check in entry.get("checks", []) if check["name"] == name), None)


def _passed(entry: dict[str, Any], name: str) -> bool | None:
    check = _find(entry, name)
    return None if check is None else check["passed"]


def _marks(passed: dict[int, bool | None]) -> str:
    """Return whether a check has passed, seed by seed where they differ."""
    marks = {True: ("good", "passed"), False: ("bad", "failed"), None: ("none", "–")}
    same = len(set(passed.values())) == 1
    outcomes = {"": next(iter(passed.values()))} if same else {f"seed {seed} ": one for seed, one in passed.items()}
    return " ".join(
        f'<span class="mark {marks[one][0]}">{name}{marks[one][1]}</span>' for name, one in outcomes.items()
    )


def _interval(value: float | None, bounds: Sequence[float] | None, factor: float, digits: int, unit: str = "") -> str:
    if value is None:
        return "–"
    text = f"{factor * value:.{digits}f}{unit}"
    if bounds is None:
        return text
    return f'{text} <span class="interval">{factor * bounds[0]:.{digits}f} to {factor * bounds[1]:.{digits}f}</span>'


def _over_seeds(values: Sequence[float | None], digits: int) -> str:
    known = [float(value) for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "–"
    whole = over_seeds(known)
    low, high = whole["interval"] or (None, None)
    text = f"{whole['value']:.{digits}g}"
    return text if low is None else f'{text} <span class="interval">{low:.{digits}g} to {high:.{digits}g}</span>'


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}g}" if isinstance(value, float) else f"{value:,}"


def _details(details: dict[str, Any]) -> str:
    plain = {name: value for name, value in details.items() if not isinstance(value, dict | list)}
    return "<br>".join(
        f"{escape(name.replace('_', ' '))}: {'–' if value is None else escape(str(value))}"
        for name, value in plain.items()
    )
