"""Report of the demo: a table, the best crystals, pictures, CIF files and a page."""

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.io.cif import CifWriter

from benchmarks.cli.demo_plots import plot_best, plot_learning, plot_summary
from benchmarks.cli.demo_results import DOUBTFUL_DEPTH, ModelSample
from benchmarks.metrics.labels import label
from benchmarks.metrics.summary import rate_row
from benchmarks.report.tables import html_table

_BEST, _DRAWN = 12, 6
_STYLE = Path(__file__).parents[1] / "report" / "page.css"
_CAVEAT = (
    "Crystals are as sampled, not relaxed, and their energies are those of the potential that gave the reward, on a "
    "hull that knows MP-20 only: candidates, not discoveries."
)


def write(out: Path, models: Sequence[ModelSample], history: list[dict[str, float]], about: Sequence[str]) -> None:
    """Print the results and write ``results.json``, ``report.html``, three pictures and ``best/*.cif``.

    Args:
        out: folder of the results.
        models: base model at temperature 1, base model and fine-tuned model at that of the latter.
        history: of the run, an entry for each iteration.
        about: how the samples were made, in sentences.
    """
    after, numbers = models[-1], [model.numbers() for model in models]
    best = after.best(_BEST)
    crystals = [_described(after, row) for row in best.tolist()]
    table, gain, doubtful = _table(models, numbers), _gain(models, numbers), _doubtful(after)
    content = {"about": [*about], "models": {model.name: of for model, of in zip(models, numbers, strict=True)}}
    (out / "results.json").write_text(json.dumps(content | {"best": crystals}, indent=1) + "\n")
    _write_cifs(out / "best", after, best)
    plot_learning(out / "learning.png", models, history)
    plot_summary(out / "summary.png", models, history, after.best(_DRAWN, novel=True))
    plot_best(out / "best.png", after, best, [crystal["mark"] for crystal in crystals])
    (out / "report.html").write_text(_page([*about, _CAVEAT], table, gain, crystals, doubtful), encoding="utf-8")
    print("\n" + "\n".join(f"{name:<54}" + "".join(f"{cell:>20}" for cell in cells) for name, *cells in table))
    print(f"\n{gain}\n\nbest compounds of the fine-tuned model, by energy above the hull:")
    for rank, crystal in enumerate(crystals, 1):
        formula, energy, mark, where = _cells(crystal)
        print(f"{rank:>3}  {formula:<16}{energy:<16}{mark:<7}{where}")
    print(f"\n{doubtful}\n{_CAVEAT}\nreport: {out / 'report.html'}")


def _table(models: Sequence[ModelSample], numbers: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return head and rows of the table: rates in per cent with 95 % intervals, energies, variety, KL divergences."""
    texts = {
        "success": models[0].success,
        "plausible_success": f"the same, none deeper than {DOUBTFUL_DEPTH} below the hull",
        **{name: label(name) for name in ("stable_0.1", "unique", "novel", "valid")},
    }
    rows = [["", *(model.name for model in models)]]
    for name, text in texts.items():
        if name in numbers[0]["rates"]:
            rows.append([f"{text}, %", *rate_row("stable_0.1", [of["rates"][name] for of in numbers])[1:]])
    energies = ("e_above_hull_mean", "e_above_hull_median")
    cells = {label(name): [_number(of[name]) for of in numbers] for name in energies}
    for name in ("elements", "templates", "formulas"):
        cells[label(name)] = [f"{of['variety'][name]:.0f}" for of in numbers]
    cells["KL divergence of letters and elements (nats)"] = [_number(of["kl_divergence"]) for of in numbers]
    return rows + [[text, *values] for text, values in cells.items()]


def _gain(models: Sequence[ModelSample], numbers: Sequence[dict[str, Any]]) -> str:
    """Return by how much training, and how much temperature alone, has raised the rate of successes."""
    first, sharp, after = (of["rates"]["success"]["rate"] for of in numbers)
    text = f"{models[0].success}: {100 * first:.1f} % before, {100 * after:.1f} % after"
    if not first or not sharp:
        return f"{text}."
    return (
        f"{text}, {after / first:.1f} times as many; temperature alone gives {sharp / first:.1f} times, training "
        f"{after / sharp:.1f} times that."
    )


def _described(sample: ModelSample, row: int) -> dict[str, Any]:
    """Return a crystal of a sample, JSON-plain."""
    crystal, metrics = sample.metrics.samples.crystals[row], sample.metrics
    mark = ("novel" if metrics.novel[row] else "known") if sample.is_novelty_known else ""
    return {
        "formula": crystal.formula,
        "e_above_hull": float(metrics.e_above_hull[row]),
        "mark": mark,
        "space_group": int(crystal.G),
        "letters": crystal.letters,
        "crystal": str(crystal),
    }


def _cells(crystal: dict[str, Any]) -> list[str]:
    where = f"{crystal['letters']} in {crystal['space_group']}"
    return [crystal["formula"], f"{crystal['e_above_hull']:+.3f} eV/atom", crystal["mark"], where]


def _doubtful(sample: ModelSample) -> str:
    """Return how many crystals are doubtful, with the deepest of them."""
    rows = np.flatnonzero(sample.doubtful)
    rows = rows[np.argsort(sample.metrics.e_above_hull[rows])]
    text = (
        f"Doubtful, and not among the best (more than {DOUBTFUL_DEPTH} eV/atom below the hull: it lacks a phase there, "
        f"or the potential errs): {len(rows)} of {len(sample.doubtful):,} crystals"
    )
    deepest = (_described(sample, row) for row in rows[:6].tolist())
    named = ", ".join(f"{crystal['formula']} ({crystal['e_above_hull']:+.2f})" for crystal in deepest)
    return f"{text}{', the deepest ' if named else ''}{named}."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _write_cifs(folder: Path, sample: ModelSample, rows: NDArray[np.int64]) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.cif"):
        old.unlink()
    for rank, row in enumerate(rows.tolist(), 1):
        crystal = sample.metrics.samples.crystals[row]
        CifWriter(crystal.to_structure(), symprec=0.01).write_file(str(folder / f"{rank:02}-{crystal.formula}.cif"))


def _page(
    about: Sequence[str], table: list[list[str]], gain: str, crystals: list[dict[str, Any]], doubtful: str
) -> str:
    """Return the page, which shows the pictures beside it."""
    best = [
        [f'<a href="best/{rank:02}-{crystal["formula"]}.cif">{_formula(crystal["formula"])}</a>',
         *map(escape, _cells(crystal)[1:])]
        for rank, crystal in enumerate(crystals, 1)
    ]  # fmt: skip
    head, *rows = table
    columns = ["formula", "energy above the hull", "", "Wyckoff letters and space group"]
    sections = {
        "Before and after": '<img src="summary.png" alt="rates, learning curve and crystals">'
        + html_table(head, [list(map(escape, row)) for row in rows], "numbers"),
        "Training and energies": '<img src="learning.png" alt="learning curves and energies above the hull">',
        "Best compounds": html_table(columns, best, "numbers")
        + f'<p>{escape(doubtful)}</p><img src="best.png" alt="the best crystals">',
    }
    style = _STYLE.read_text(encoding="utf-8") + "img { max-width: 100%; background: white; border-radius: 8px; }"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>CrystalGen demo</title>\n<style>\n{style}</style>\n</head>\n<body>",
            f'<header><h1>CrystalGen demo</h1>\n<p class="summary"><b>{escape(gain)}</b></p>',
            *(f"<p>{escape(text)}</p>" for text in about),
            "</header>\n<main>",
            *(f"<section><h2>{title}</h2>{text}</section>" for title, text in sections.items()),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _formula(formula: str) -> str:
    return re.sub(r"(\d+)", r"<sub>\1</sub>", escape(formula))
