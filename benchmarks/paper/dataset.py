"""Figures S1 to S3: the training set, and the validity of model samples."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.paper.captions import about_rl
from benchmarks.paper.outcome import Estimate, Outcome, percent
from benchmarks.paper.plots import plot_bars
from benchmarks.paper.work import Work
from crystal_env.crystal import CrystalBatch
from crystal_env.elements import SYMBOLS
from crystal_env.wyckoff import N_ELEMENTS, N_GROUPS
from rewards import Validity


def fig_s1(work: Work) -> Outcome:
    """Return the distribution of space groups in the training set."""
    crystals = _training(work)
    counts = np.bincount(crystals.G, minlength=N_GROUPS + 1)[1:]
    most = int(counts.argmax()) + 1
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(1, N_GROUPS + 1), counts, width=1.0)
    axes.set(xlabel="space group", ylabel="crystals", xlim=(0, N_GROUPS + 1))
    estimates = {
        "crystals of the training set": Estimate(len(crystals)),
        "space groups that occur": Estimate(int((counts > 0).sum())),
        "fraction in P1 (%)": Estimate(100 * counts[0] / len(crystals)),
        "most common space group": Estimate(most),
        "its fraction (%)": Estimate(100 * counts[most - 1] / len(crystals)),
    }
    return Outcome(_about(work), estimates, figure, {"counts": dict(enumerate(counts.tolist(), 1))})


def fig_s2(work: Work) -> Outcome:
    """Return the distribution of elements in the training set: how many crystals have each."""
    crystals = _training(work)
    counts = element_counts(crystals)
    shown = int(np.flatnonzero(counts).max())
    figure = Figure(figsize=(14, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(1, shown + 1), counts[1 : shown + 1])
    axes.set_xticks(range(1, shown + 1), SYMBOLS[1 : shown + 1], fontsize=7, rotation=90)
    axes.set(xlabel="element", ylabel="crystals with the element", xlim=(0, shown + 1))
    estimates = {
        "crystals of the training set": Estimate(len(crystals)),
        "elements that occur": Estimate(int((counts > 0).sum())),
        "crystals with oxygen (%)": Estimate(100 * counts[SYMBOLS.index("O")] / len(crystals)),
    }
    data = {"counts": {SYMBOLS[z]: int(counts[z]) for z in range(1, N_ELEMENTS + 1)}}
    return Outcome(f"{_about(work)} Counted is in how many crystals an element occurs.", estimates, figure, data)


def element_counts(crystals: CrystalBatch) -> NDArray[np.int64]:
    """Return how many of B crystals have each element (119,), by atomic number."""
    counts = np.count_nonzero(crystals.composition(), axis=0)
    return np.asarray(counts, np.int64)


def fig_s3(work: Work) -> Outcome:
    """Return the fractions of structurally and compositionally valid crystals."""
    settings = work.settings
    size = settings.size or 1000
    names = {"mp20": "MP-20", **({} if settings.base == "mp20" else {"base": "Alex-20"}), "rl": "RL"}
    terms = {short: Validity()(work.crystals(name, size)).terms for name, short in names.items()}
    found = {
        (kind, short): percent(values[kind] > 0)
        for short, values in terms.items()
        for kind in ("structural", "compositional")
    }
    figure = Figure(figsize=(5.5, 3.5), layout="constrained")
    axes = figure.subplots()
    kinds = ("compositional", "structural")
    plot_bars(
        axes,
        list(kinds),
        {short: [found[kind, short].value or 0.0 for kind in kinds] for short in names.values()},
        {short: [found[kind, short][1:] for kind in kinds] for short in names.values()},
        "valid (%)",
    )
    axes.legend(frameon=False)
    estimates = {
        f"{kind}ly valid, {short} (%)": found.get((kind, short), Estimate(None))
        for kind in ("structural", "compositional")
        for short in ("MP-20", "Alex-20", "RL")
    }
    caption = (
        f"{about_rl(work.settings)} {size} crystals of each model, space groups as in the training set. Fine-tuned is "
        f"{settings.base}. Structurally valid: no atoms closer than 0.5 Å, periodic images included; compositionally: "
        "SMACT's charges (smact14)."
    )
    data = {short: {kind: int((values[kind] > 0).sum()) for kind in kinds} for short, values in terms.items()}
    return Outcome(caption, estimates, figure, {"of": size, **data})


def _training(work: Work) -> CrystalBatch:
    return work.training.crystals[: work.settings.size]


def _about(work: Work) -> str:
    return f"{work.settings.training_file().name} in place of Alex-20."
