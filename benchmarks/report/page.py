"""The page: its parts in their order, with style, script and data inside."""

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from benchmarks.metrics.intervals import interval_name
from benchmarks.metrics.labels import label
from benchmarks.metrics.reference import reference_text
from benchmarks.report import chemistry, curves, samples, tables
from benchmarks.report.crystals import best, from_trace
from benchmarks.report.figure import Figure
from benchmarks.report.folder import Results

_HERE = Path(__file__).parent
# nothing may be fetched, whatever the data contain
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(results: Results) -> str:
    """Return the HTML of the page."""
    figures = [
        figure
        for figure in (
            curves.learning(results),
            samples.energies(results),
            samples.totals(results),
            samples.groups(results),
            curves.scatter(results),
            chemistry.sunburst(results),
            chemistry.elements(results),
        )
        if figure is not None
    ]
    crystals = best(results)
    data = {
        "figures": {figure.name: {"data": figure.data, "layout": figure.layout} for figure in figures},
        "crystals": [crystal["scene"] for crystal in crystals],
    }
    title = f"{results.values['agent']['name']} on {results.task['id']}"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{(_HERE / 'page.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>",
            _header(results),
            "<main>",
            *(_figure(figure) for figure in figures),
            _gallery(results, crystals),
            _section("checks", "Checks", "A check that fails does not change the score; it stands beside it.",
                     tables.checks(results)),
            _section("metrics", "All metrics", _about_metrics(results),
                     tables.metrics(results) + tables.attempts(results)),
            _section("provenance", "Provenance", "", tables.provenance(results)),
            "</main>",
            f'<script type="application/json" id="data">{_json(data)}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>\n{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>\n</body>\n</html>\n",
        ]
    )  # fmt: skip


def _header(results: Results) -> str:
    score, task, seeds = results.values["score"], results.task, results.seeds
    interval = " to ".join(_score(bound) for bound in score["interval"] or ())
    interval = f"{interval_name(len(seeds))}: {interval}" if interval else "one seed"
    calls = sum(entry["calls"] for entry in seeds) / len(seeds)
    times = [sum(entry["seconds"].values()) for entry in seeds if entry.get("seconds")]
    facts = {
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(str(entry['seed']) for entry in seeds)}": ", ".join(
            _score(entry["score"]) for entry in seeds
        ),
        "oracle calls": f"{calls:,.0f} of {seeds[0]['budget']:,} a seed",
        "attempts": f"{task['size'] * len(task['cases']):,} a seed",
        "time": f"{tables.duration(sum(times) / len(times))} a seed" if times else "–",
    }
    return f"""<header>
<p class="task">{escape(task["id"])}</p>
<h1>{escape(results.values["agent"]["name"])}</h1>
<p class="summary">Goal: {escape(task["summary"])}.</p>
<div class="score"><div class="value"><span>{escape(label(score["name"]))}</span>
<strong>{_score(score["value"])}</strong>
<em>{interval}</em></div>
<dl>{"".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())}</dl></div>
{_flags(results)}
</header>"""


def _flags(results: Results) -> str:
    failed = tables.failed(results)
    if not failed:
        made = [check for entry in results.seeds for check in entry.get("checks", []) if check["passed"] is not None]
        text = "No check has failed." if made else "No check applies to this score."
        return f'<p class="flags {"good" if made else "bad"}">{text}</p>'
    items = "".join(f"<li><b>{escape(name)}:</b> {escape(text)}</li>" for name, text in failed)
    plural = "checks have" if len(failed) > 1 else "check has"
    return f'<div class="flags bad"><p>{len(failed)} {plural} failed: this score is doubtful.</p><ul>{items}</ul></div>'


def _figure(figure: Figure) -> str:
    body = f'<div class="plot" id="{figure.name}" style="height:{figure.height}px"></div>'
    return _section(
        f"part-{figure.name}", figure.title, figure.caption, body, "" if figure.name == "learning" else "half"
    )


def _gallery(results: Results, crystals: list[dict[str, Any]]) -> str:
    parts = []
    if case_table := tables.cases(results):
        parts.append(_section("cases", "Case by case", "", case_table))
    if crystals:
        note = f"Of the samples, {results.counted[0]} first, then by reward; one of each formula and space group. "
        note += "Drag to turn."
        if from_trace(results):
            note += " The score itself is of all crystals that the oracle scored."
        cards = "".join(_card(number, crystal) for number, crystal in enumerate(crystals))
        parts.append(_section("crystals", "Best crystals", note, f'<div class="cards">{cards}</div>'))
    return "\n".join(parts)


def _card(number: int, crystal: dict[str, Any]) -> str:
    file = f"{crystal['formula']}-{crystal['group'].rpartition('(')[2].rstrip(')')}.cif"
    cif = base64.b64encode(crystal["cif"].encode()).decode()
    facts = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in crystal["facts"].items())
    legend = "".join(
        f'<span><i style="background:{element["colour"]}"></i>{element["symbol"]}</span>'
        for element in crystal["scene"]["elements"]
    )
    formula = "".join(f"<sub>{letter}</sub>" if letter.isdigit() else escape(letter) for letter in crystal["formula"])
    return f"""<article class="card"><h3>{formula} <small>{escape(crystal["group"])}</small></h3>
<div class="crystal" id="crystal-{number}"></div><p class="legend">{legend}</p><dl>{facts}</dl>
<a download="{escape(file)}" href="data:chemical/x-cif;base64,{cif}">CIF</a></article>"""


def _section(name: str, title: str, caption: str, body: str, kind: str = "") -> str:
    text = f'<p class="caption">{escape(caption).replace(" %", "&nbsp;%")}</p>' if caption else ""
    return f'<section id="{name}" class="{kind}"><h2>{escape(title)}</h2>{text}{body}</section>'


def _about_metrics(results: Results) -> str:
    n, reference = len(results.seeds), reference_text(results.values.get("reference", {}))
    text = "Of one seed: Wilson intervals at 95 % for rates, bootstrap intervals at 95 % for energies. "
    if n > 1:
        text += "Of all seeds: Wilson intervals at 95 % for pooled rates; for other numbers, the mean with the "
        text += f"{interval_name(n)}. "
    return f"{text}Every attempt is in the denominator. Novel against {reference}."


def _score(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _json(value: Any) -> str:
    """Return JSON that can stand inside a script of HTML."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
