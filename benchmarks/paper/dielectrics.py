"""Figures 6 and S4, Tables S2 and S3: reinforcement learning from the figure of merit (section III B)."""

import csv
import json
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.paper.captions import about, about_rl
from benchmarks.paper.outcome import Estimate, Outcome, markdown, mean, percent
from benchmarks.paper.plots import plot_energies, plot_figures_of_merit, table_figure
from benchmarks.paper.published import (
    DIELECTRIC_GROUP,
    EXAMPLES,
    MIN_FOM,
    STABLE,
    TABLE_S2,
    TABLE_S3,
    TAU_FOM,
    Candidate,
    Known,
    elements,
)
from benchmarks.paper.stability import sampling_speed, sun_flags
from benchmarks.paper.work import Work
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.render.picture import draw_on
from crystal_env.reward import RewardResult
from rewards.matching import Reference, reduced_formulas, same, structure_labels

_POINTS = 1000
_BASE = "base"


class Dielectrics(NamedTuple):
    """The distinct stable crystals of high figure of merit in a sample, the best first.

    Attributes:
        crystals: n crystals.
        rows: of Table S2, one each.
        known: row of the training set with the same structure, -1 for none.
    """

    crystals: CrystalBatch
    rows: list[Candidate]
    known: list[int]


def fig6(work: Work) -> Outcome:
    """Return band gaps, dielectric constants and energies of base model and fine-tuned models, and two examples."""
    size = work.settings.size or 1000
    names = (_BASE, *work.fom_names)
    samples = {name: _sample(work, name, size) for name in names}
    found = candidates(work, *samples[names[1]])
    estimates = {
        "tau (eV)": Estimate(TAU_FOM),
        "points shown of each model": Estimate(min(size, _POINTS)),
        "line of constant figure of merit (eV)": Estimate(MIN_FOM),
    }
    for name, sample in samples.items():
        estimates |= _estimates(work, sample, {_BASE: _BASE, names[1]: "RL"}.get(name, name))
    data = {name: _points(*sample) for name, sample in samples.items()}
    examples = _examples(found)
    return Outcome(_about(work, size), estimates, _figure6(samples, examples), {**data, "examples": examples[1]})


class _Sample(NamedTuple):
    """Crystals of one model with their figures of merit and their energies above the hull (B,) in eV/atom."""

    crystals: CrystalBatch
    foms: RewardResult
    energies: NDArray[np.float64]


def _sample(work: Work, name: str, size: int) -> _Sample:
    crystals = work.crystals(name, size, DIELECTRIC_GROUP)
    return _Sample(crystals, work.figures_of_merit(crystals, name), work.energies(crystals, name))


def _estimates(work: Work, sample: _Sample, short: str) -> dict[str, Estimate]:
    """Return the quantities of Fig. 6 of one model, called ``short``."""
    crystals, foms, energies = sample
    flags = sun_flags(crystals, energies, work.training, work.settings.n_jobs)
    good, size = foms.total > MIN_FOM, len(crystals)
    first = structure_labels(crystals, n_jobs=work.settings.n_jobs) == np.arange(size)
    novel = ~work.training.contains(crystals, n_jobs=work.settings.n_jobs)
    return {
        f"mean figure of merit, {short} (eV)": mean(foms.total),
        f"figure of merit above 100 eV, {short} (%)": percent(good),
        f"stable, {short} (%)": percent(flags.stable),
        f"S.U.N., {short} (%)": percent(flags.sun),
        f"mean band gap, {short} (eV)": mean(foms.terms["band_gap"]),
        f"mean dielectric constant, {short}": mean(foms.terms["dielectric_constant"]),
        f"figure of merit above 100 eV and stable, {short} (%)": percent(good & flags.stable),
        f"figure of merit above 100 eV, stable and distinct, {short} (%)": percent(good & flags.stable & first),
        f"figure of merit above 100 eV, stable, distinct and novel, {short} (%)": percent(
            good & flags.stable & first & novel
        ),
        f"distinct structures, {short}": Estimate(int(first.sum())),
        f"distinct formulas, {short}": Estimate(len(set(reduced_formulas(crystals)))),
    }


def table_s2(work: Work) -> Outcome:
    """Return the dielectric materials discovered, ranked by their figures of merit."""
    size, name = work.settings.size or 5000, work.fom_names[0]
    found = _found(work, size)
    speed = sampling_speed(work.model(name), DIELECTRIC_GROUP, work.temperature(name))
    head = ["formula", "gap (eV)", "constant", "figure of merit (eV)", "E_hull", "novel", "no DFPT"]
    lines = [["", *(f"paper: {name}" for name in head), *(f"ours: {name}" for name in head)]]
    for place in range(len(TABLE_S2)):
        cells = [_cells(rows[place]) if place < len(rows) else [""] * 7 for rows in (TABLE_S2, found.rows)]
        lines.append([str(place + 1), *cells[0], *cells[1]])
    rows = found.rows
    estimates = {
        "crystals sampled": Estimate(size),
        "seconds to sample them": Estimate(size / speed),
        "rows": Estimate(len(rows)),
        "rows not in the training set": Estimate(sum(row.novel for row in rows)),
        "rows in the DFPT data": Estimate(sum(not row.unlabelled for row in rows)),
        "highest figure of merit (eV)": Estimate(max((row.figure_of_merit for row in rows), default=None)),
        "median figure of merit (eV)": Estimate(median(row.figure_of_merit for row in rows) if rows else None),
        **{f"rows with {long} (%)": _fraction(rows, symbol) for long, symbol in (("fluorine", "F"), ("caesium", "Cs"))},
    }
    data = {"rows": [row._asdict() | {"crystal": str(c)} for row, c in zip(rows, found.crystals, strict=True)]}
    shown = f"{len(rows)} rows of ours, at most {len(TABLE_S2)} of them shown"
    figure = table_figure(lines, f"Table S2: the paper's beside ours ({shown})", 0.95)
    return Outcome(f"{_about(work, size)} {shown}.", estimates, figure, data, _markdown(lines))


def table_s3(work: Work) -> Outcome:
    """Return the rows of Table S2 that the training set has, beside its structures."""
    size = work.settings.size or 5000
    found = _found(work, size)
    places = np.array([place for place, known in enumerate(found.known) if known >= 0], np.int64)
    equilibrium = work.training.crystals[np.array(found.known, np.int64)[places]]
    rows = pairs(
        found, places, equilibrium, work.figures_of_merit(equilibrium, "known structures") if len(places) else None
    )
    head = ["formula", "gap", "constant", "FoM", "a", "gap_eq", "constant_eq", "FoM_eq", "a_eq"]
    lines = [["", *(f"paper: {name}" for name in head), *(f"ours: {name}" for name in head)]]
    for place in range(len(TABLE_S3)):
        cells = [_numbers(rows_[place]) if place < len(rows_) else [""] * 9 for rows_ in (TABLE_S3, rows)]
        lines.append([str(place + 1), *cells[0], *cells[1]])
    apart = [100 * abs(row.figure_of_merit / row.figure_of_merit_eq - 1) for row in rows if row.figure_of_merit_eq]
    estimates = {
        "rows": Estimate(len(rows)),
        "median deviation of the figure of merit from the known (%)": Estimate(median(apart) if apart else None),
        "median deviation of a from the known (Å)": Estimate(
            median(abs(row.a - row.a_eq) for row in rows) if rows else None
        ),
    }
    caption = (
        f"{_about(work, size)} {len(rows)} rows of ours. Gaps and figures of merit in eV, a of the primitive cell in Å."
    )
    figure = table_figure(lines, "Table S3: the paper's beside ours", 0.8)
    return Outcome(caption, estimates, figure, {"rows": [row._asdict() for row in rows]}, _markdown(lines))


def fig_s4(work: Work) -> Outcome:
    """Return the predicted over the calculated total dielectric constants of the test set."""
    run = work.dielectric_run()
    with (run / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    test = [row for row in table if row["part"] == "test"]
    target = next(name for name in table[0] if f"predicted_{name}" in table[0])
    truth, guess = (np.array([float(row[key]) for row in test]) for key in (target, f"predicted_{target}"))
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    low, high = min(truth.min(), guess.min(), 0), max(truth.max(), guess.max())
    axes.plot([low, high], [low, high], color="black", linewidth=0.8, linestyle="--")
    axes.scatter(truth, guess, s=10, linewidths=0, alpha=0.8)
    axes.set(xlabel=r"$\epsilon_\mathrm{total}$, DFPT", ylabel=r"$\epsilon_\mathrm{total}$, M3GNet", aspect="equal")
    estimates = {
        "structures": Estimate(len(table)),
        "fraction in the test set (%)": Estimate(100 * len(test) / len(table)),
        "highest constant": Estimate(max(float(row[target]) for row in table)),
        **parity(truth, guess),
        "mean absolute error, test, of the training median": Estimate(
            json.loads((run / "test.json").read_text())["test_mae_of_training_median"]
        ),
    }
    caption = (
        f"M3GNet on {len(table)} structures of MP-20 with a DFPT constant, which is one number (the paper: about 7,000 "
        f"with all six components); at most {work.settings.epochs} epochs at ten times the learning rate, all else as "
        f"in appendix D. Seed {work.settings.seed}."
    )
    return Outcome(caption, estimates, figure, {"dfpt": truth.tolist(), "m3gnet": guess.tolist()})


def parity(truth: NDArray[np.float64], guess: NDArray[np.float64]) -> dict[str, Estimate]:
    """Return the errors of predictions (n,), and the fraction that lies below the truth (n,)."""
    return {
        "mean absolute error, test": mean(np.abs(guess - truth)),
        "mean error, test": mean(guess - truth),
        "underestimated, test (%)": percent(guess < truth),
    }


def candidates(work: Work, crystals: CrystalBatch, foms: RewardResult, energies: NDArray[np.float64]) -> Dielectrics:
    """Return the distinct crystals of B that are stable and have a figure of merit above 100 eV, the best first."""
    scored = foms.scored
    rows = np.flatnonzero(scored & (foms.total > MIN_FOM) & (energies < STABLE))
    rows = rows[np.argsort(-foms.total[rows], kind="stable")]
    rows = rows[structure_labels(crystals[rows], n_jobs=work.settings.n_jobs) == np.arange(len(rows))]
    best = crystals[rows]
    known, labelled = known_rows(best, work.training), known_rows(best, work.labelled) if len(rows) else []
    terms = foms.terms
    found = [
        Candidate(
            crystal.formula,
            float(terms["band_gap"][row]),
            float(terms["dielectric_constant"][row]),
            float(foms.total[row]),
            float(energies[row]),
            trained < 0,
            label < 0,
        )
        for crystal, row, trained, label in zip(best, rows.tolist(), known, labelled, strict=True)
    ]
    return Dielectrics(best, found, known)


def known_rows(crystals: CrystalBatch, reference: Reference) -> list[int]:
    """Return for each of B crystals the row of the first of a reference with the same structure, -1 for none."""
    found = []
    structures = crystals.to_structures(primitive=True)
    for structure, formula in zip(structures, reduced_formulas(crystals), strict=True):
        rows = reference.rows.get(formula, np.zeros(0, np.int64))
        others = reference.crystals[rows].to_structures(primitive=True)
        found.append(next((int(r) for r, o in zip(rows, others, strict=True) if same(structure, o)), -1))
    return found


def pairs(
    found: Dielectrics, places: NDArray[np.int64], equilibrium: CrystalBatch, foms: RewardResult | None
) -> list[Known]:
    """Return the rows of Table S3.

    Args:
        found: the rows of Table S2.
        places: (n,) of those that the training set has.
        equilibrium: n structures of the training set.
        foms: their figures of merit, None where there is no structure.
    """
    rows = []
    for place, at in enumerate(places.tolist() if foms is not None else []):
        assert foms is not None
        ours, crystal = found.rows[at], found.crystals[at]
        gap, constant = (float(foms.terms[term][place]) for term in ("band_gap", "dielectric_constant"))
        theirs = (gap, constant, float(foms.total[place]), lattice_constant(equilibrium[place]))
        here = (ours.formula, ours.band_gap, ours.dielectric_constant, ours.figure_of_merit, lattice_constant(crystal))
        rows.append(Known(*here, *theirs))
    return rows


def lattice_constant(crystal: Crystal) -> float:
    """Return the length of the primitive cell's first vector in Å."""
    return float(np.linalg.norm(crystal.to_atoms().cell.array[0]))


def tokens(crystal: Crystal) -> str:
    """Return the text of a crystal without coordinates and lattice, as in Fig. 6(c)."""
    return "-".join([str(crystal.G), *(word for word in str(crystal).split("-X-")[0].split("-")[1:] if word.isalpha())])


def _found(work: Work, size: int) -> Dielectrics:
    return candidates(work, *_sample(work, work.fom_names[0], size))


def _figure6(samples: dict[str, _Sample], examples: Any) -> Figure:
    figure = Figure(figsize=(14, 10.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.2, 1))
    labels = {name: {_BASE: "pre-trained", "fom": "RL fine-tuned"}.get(name, name) for name in samples}
    terms = {name: sample.foms.terms for name, sample in samples.items()}
    points = {n: (t["band_gap"][:_POINTS], t["dielectric_constant"][:_POINTS]) for n, t in terms.items()}
    axes = figure.add_subplot(grid[0, 0])
    plot_figures_of_merit(axes, points, labels)
    axes.set_title("(a)", loc="left")
    axes = figure.add_subplot(grid[1, 0])
    plot_energies(axes, {name: sample.energies for name, sample in samples.items()}, labels)
    axes.set_title("(b)", loc="left")
    crystals, rows = examples
    for place in range(2):
        axes = figure.add_subplot(grid[place, 1])
        axes.axis("off")
        if place == 0:
            axes.set_title("(c)", loc="left")
        if place < len(rows):
            row = rows[place]
            draw_on(axes, crystals[place])
            gap, constant, fom = (row[key] for key in ("band_gap", "dielectric_constant", "figure_of_merit"))
            text = f"gap {gap:.2f} eV, constant {constant:.1f}, figure of merit {fom:.0f} eV"
            axes.text(0.5, -0.02, f"{text}\n{row['tokens']}", transform=axes.transAxes, ha="center", va="top")
    return figure


def _examples(found: Dielectrics) -> tuple[list[Crystal], list[dict[str, Any]]]:
    """Return the two best that the training set does not have."""
    places = [place for place, row in enumerate(found.rows) if row.novel][:2]
    crystals = [found.crystals[place] for place in places]
    return crystals, [found.rows[p]._asdict() | {"tokens": tokens(c)} for p, c in zip(places, crystals, strict=True)]


def _points(crystals: CrystalBatch, foms: RewardResult, energies: NDArray[np.float64]) -> dict[str, Any]:
    terms = {name: foms.terms[name].round(4).tolist() for name in ("band_gap", "dielectric_constant")}
    shown = [round(value, 5) if np.isfinite(value) else None for value in energies.tolist()]
    return {**terms, "e_above_hull": shown, "formula": [crystal.formula for crystal in crystals]}


def _about(work: Work, size: int) -> str:
    settings = work.settings
    constant = settings.dielectric_model or "M3GNet trained here (see fig_s4)"
    runs = (
        f"RL: {', '.join(run.name for run in settings.runs)}."
        if settings.runs
        else about_rl(settings, "the figure of merit")
    )
    return (
        f"{about(work)} {runs} {size} crystals of each model in space group {DIELECTRIC_GROUP} (the "
        f"paper: 5,000). Dielectric constant: {constant}; band gap: MEGNet, PBE. All numbers are predictions of the "
        f"models that gave the reward. The paper's examples: {' and '.join(EXAMPLES)}."
    )


def _cells(row: Candidate) -> list[str]:
    numbers = [f"{value:.2f}" for value in row[1:5]]
    return [row.formula, *numbers, "✓" if row.novel else "", "✓" if row.unlabelled else ""]


def _numbers(row: Known) -> list[str]:
    return [row.formula, *(f"{value:.2f}" for value in row[1:])]


def _fraction(rows: list[Candidate], symbol: str) -> Estimate:
    return percent(np.array([symbol in elements(row.formula) for row in rows], bool)) if rows else Estimate(None)


def _markdown(lines: list[list[str]]) -> str:
    return markdown([lines[0], ["---"] * len(lines[0]), *lines[1:]])
