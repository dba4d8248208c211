"""The card of a base model: what it is, how it was trained, and how good its samples are.

``python -m benchmarks.model_card MODEL [--run RUN_FOLDER]`` writes ``README.md``, ``card.json``, ``chemistry.png`` and,
with a run, ``curve.png``. Samples of the model, at temperature 1 and at those that it recommends, are compared with
those of an untrained network of the same size and with real crystals. It needs ``mp20_train.csv.gz`` and
``mp20_val.csv.gz`` in the data folder.
"""

import json
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from agents import CrystalFormer, PretrainConfig
from agents.crystalformer.checkpoint import MODELS
from agents.crystalformer.temperature import Temperatures
from agents.supervised.pretrain import mean_log_prob
from agents.supervised.training_data import load_training_data
from agents.training.run_folder import RunFolder, draw_curve
from benchmarks.metrics.labels import label
from benchmarks.metrics.reference import NoveltyReference, load_reference, reference_text
from benchmarks.metrics.sample import SampleMetrics, evaluate_sample
from benchmarks.metrics.summary import summarise
from benchmarks.model_card.plots import PROPERTIES, distances, plot_chemistry
from benchmarks.samples.samples import Samples
from crystal_env import CrystalBatch
from crystal_env.dataset import data_folder
from crystal_env.errors import InputError
from crystal_env.reward import Reward
from rewards import EnergyAboveHull

TRAINING, VALIDATION, MODEL, RECOMMENDED, UNTRAINED = "training", "validation", "model", "recommended", "untrained"
SETS = {
    MODEL: "model, temperature 1",
    RECOMMENDED: "model, as recommended",
    UNTRAINED: "untrained network",
    VALIDATION: "MP-20 validation",
    TRAINING: "MP-20 training",
}
"""Set of crystals -> its label."""

_PUBLISHED = {"structurally_valid": 0.874, "compositionally_valid": 0.824, "novel": 0.805, "in_p1": 0.009}


@dataclass
class Args:
    """Settings of the card.

    Attributes:
        model: Name, folder or file of the model, as for `CrystalFormer.from_pretrained`.
        run: Folder of the training run, for its settings and its curve. By default those of an earlier card are kept.
        samples: Crystals sampled from model and untrained network, and real ones compared with them.
        seed: Seed of the samples, the untrained network and the choice of real crystals.
        out: Folder of the card, by default that of the model.
    """

    model: Positional[str]
    run: Path | None = None
    samples: int = 1000
    seed: int = 0
    out: Path | None = None


def card(
    model: CrystalFormer,
    training: CrystalBatch,
    validation: CrystalBatch,
    reference: NoveltyReference,
    samples: int = 1000,
    seed: int = 0,
    energy: Reward | None = None,
) -> tuple[dict[str, Any], dict[str, SampleMetrics]]:
    """Return all numbers of a model's card, and the metrics of the samples.

    Args:
        model: the model.
        training: crystals it was trained on.
        validation: real crystals it was not trained on.
        reference: crystals that are not novel: all that the model or its training has seen.
        samples: crystals of each set, at most all of ``validation``.
        seed: of all random numbers.
        energy: reward with the term ``e_above_hull``, by default `rewards.EnergyAboveHull`.
    """
    untrained = CrystalFormer(model.config, seed).eval()
    batches = {MODEL: model.sample("mp20", size=samples, seed=seed, temperature=1, progress=True)}
    if not model.temperature.are_one:
        batches[RECOMMENDED] = model.sample("mp20", size=samples, seed=seed, progress=True)
    batches[UNTRAINED] = untrained.sample("mp20", size=samples, seed=seed, temperature=1, progress=True)
    batches[VALIDATION] = validation[_choice(len(validation), samples, seed)]
    energy = energy or EnergyAboveHull()
    metrics = {
        name: evaluate_sample(Samples.from_crystals(batch, SETS[name]), reference.crystals, energy)
        for name, batch in batches.items()
    }
    numbers = {
        "config": model.config.to_dict(),
        "temperature": model.temperature.to_dict(),
        "n_parameters": model.n_parameters,
        "training_crystals": len(training),
        "validation_crystals": len(validation),
        "novelty_reference": reference.facts(),
        "max_elements": {
            name: int(np.count_nonzero(known.composition(), axis=1).max())
            for name, known in ((TRAINING, training), (VALIDATION, validation))
        },
        "training_fraction_in_p1": float((training.G == 1).mean()),
        "log_likelihood": {MODEL: mean_log_prob(model, validation), UNTRAINED: mean_log_prob(untrained, validation)},
        "samples": {name: summarise(sample) for name, sample in metrics.items()},
        "distances": {
            name: distances(batch, training)
            for name, batch in {**batches, TRAINING: training[_choice(len(training), samples, seed)]}.items()
        },
    }
    return numbers, metrics


def _choice(total: int, size: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(total)[:size]


def training_facts(run: Path) -> dict[str, Any]:
    """Return settings, command line and course of a training run, and of the run that it continued, if there was one.

    Raises:
        ValueError: if the folder holds no run, or it has not been validated yet.
    """
    if not run.is_dir():
        raise InputError(f"run must be the folder of a training run, got {str(run)!r}")
    folder = RunFolder(run)
    settings, history = folder.read_settings(), folder.history()
    if not history:
        raise InputError(f"run {run} has no validation yet")
    best = max(history, key=lambda entry: entry.get("validation_total", entry["step"]))
    facts: dict[str, Any] = {"settings": settings, "command": _pretrain_command(settings)}
    facts |= {"last": history[-1], "best": best, "history": history}
    before = Path(settings["initial"] or "").parent
    if settings["initial"] and before.is_dir() and RunFolder(before).has_state:
        facts["before"] = earlier = training_facts(before)
        kept = [entry for entry in earlier["history"] if entry["epoch"] <= earlier["best"]["epoch"]]
        later = [{**entry, "epoch": entry["epoch"] + kept[-1]["epoch"]} for entry in history]
        facts["history"] = kept + later
    return facts


def _pretrain_command(settings: dict[str, Any]) -> str:
    """Return the command line of settings, with what is not by default."""
    usual = PretrainConfig(Path(), Path()).plain()
    words = ["crystalgen", "pretrain"]
    given = {k: v for k, v in settings.items() if k not in ("model", "resume") and v != usual[k]}
    given |= {k: v for k, v in settings["model"].items() if v != usual["model"][k]}
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def render(numbers: dict[str, Any]) -> str:
    """Return the card in Markdown from all its numbers."""
    parts = [
        "# CrystalFormer, trained on MP-20",
        "An autoregressive transformer over Wyckoff letters, elements, fractional coordinates and the lattice, given "
        "the space group: the network of CrystalFormer (Cao et al., arXiv:2403.15734) in PyTorch. Load it with "
        f"`CrystalFormer.from_pretrained({numbers['model']!r})`.",
        "## Data and training",
        f"MP-20 (Xie et al., ICLR 2022): crystals of the Materials Project with at most 20 atoms in the primitive "
        f"cell. {numbers['training_crystals']:,} are for training, of up to {numbers['max_elements'][TRAINING]} "
        f"elements, and {numbers['validation_crystals']:,} for validation, of up to "
        f"{numbers['max_elements'][VALIDATION]} elements.",
        _training_text(numbers.get("training")),
        f"{numbers['n_parameters']:,} parameters: "
        + ", ".join(f"`{name}` {value}" for name, value in numbers["config"].items())
        + ".",
        f"This card was made by\n\n```\n{numbers['command']}\n```",
        "## Likelihood of the validation data",
        _likelihood_table(numbers["log_likelihood"]),
        "Means in nats per crystal of the exact likelihood at temperature 1, the density sampled from: coordinates per "
        "unit of a fractional coordinate, lattice in normalised Å (lengths per cube root of the atoms in the "
        "conventional cell) and radians.",
        "## Samples",
        _temperature_text(numbers["temperature"]),
        _rate_table(numbers["samples"]),
        _rate_text(numbers),
        "## Do the samples look like chemistry?",
        _distance_table(numbers["distances"]),
        "Distances of distributions to those of the training data: Jensen-Shannon divergences of categories in bits, "
        "Wasserstein distances of numbers in their units. The last column, as many random training crystals, is the "
        "floor. Space groups are given with the frequencies of the training data, not learned.",
        "![distributions](chemistry.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _training_text(training: dict[str, Any] | None) -> str:
    if training is None:
        return ""
    return _stage_text(training) + "\n\n![learning curve](curve.png)"


def _stage_text(training: dict[str, Any]) -> str:
    """Describe a run after those that it continued."""
    settings, last, best = training["settings"], training["last"], training["best"]
    shown = ("batch_size", "learning_rate", "schedule", "warmup", "weight_decay", "augment", "precision", "seed")
    before = f"{_stage_text(training['before'])}\n\nThen: " if "before" in training else ""
    return before + (
        f"Trained for {last['epoch']:.0f} of {settings['epochs']} epochs ({last['step']:,.0f} steps, "
        f"{last['hours']:.2f} hours); the model with the best validation likelihood, of epoch {best['epoch']:.0f}, was "
        f"kept. Settings: {', '.join(f'`{name}` {settings[name]}' for name in shown)}.\n\n"
        f"```\n{training['command']}\n```"
    )


def _likelihood_table(likelihoods: dict[str, dict[str, float]]) -> str:
    names = list(likelihoods)
    parts = list(likelihoods[names[0]])
    heads = [SETS[name] for name in names]
    return _table("log-likelihood", heads, [(part, [f"{likelihoods[n][part]:.2f}" for n in names]) for part in parts])


def _temperature_text(temperature: dict[str, float]) -> str:
    recommended = Temperatures.of(temperature)
    if recommended.are_one:
        return ""
    return (
        f"Recommended temperatures: {recommended.in_words()}, all others 1. `sample` and `log_prob` use them unless "
        "another `temperature` is given."
    )


def _rate_table(samples: dict[str, dict[str, Any]]) -> str:
    names = list(samples)
    rows: list[tuple[str, list[str]]] = []
    for key in samples[names[0]]["rates"]:
        published = [f"{100 * _PUBLISHED[key]:.1f}" if key in _PUBLISHED else ""]
        cells = ["–" if _is_known(name, key) else _percent(samples[name]["rates"][key]) for name in names]
        rows.append((f"{label(key)}, %", cells + published))
    for key in ("e_above_hull_mean", "e_above_hull_median"):
        values = [samples[name][key] for name in names]
        rows.append((label(key), [*("–" if v is None else f"{v:.3f}" for v in values), ""]))
    deep = "below_hull_outliers_count"
    rows.append((label(deep), [*(str(samples[name][deep]) for name in names), ""]))
    heads = [f"{SETS[name]} ({samples[name]['rates']['valid']['total']})" for name in names]
    return _table("", [*heads, "published"], rows)


def _is_known(name: str, key: str) -> bool:
    """Return whether a rate needs novelty, which crystals of the reference do not have."""
    return name == VALIDATION and (key == "novel" or key.startswith("sun"))


def _percent(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{100 * entry['rate']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _distance_table(found: dict[str, dict[str, float]]) -> str:
    rows = [
        (f"{name}, {unit}" if unit else name, [f"{values[key]:.3g}" for values in found.values()])
        for key, (name, unit) in PROPERTIES.items()
    ]
    return _table("distance to the training data", [SETS[name] for name in found], rows)


def _table(corner: str, heads: list[str], rows: list[tuple[str, list[str]]]) -> str:
    lines = [f"| {corner} | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def _rate_text(numbers: dict[str, Any]) -> str:
    return (
        "Fractions of all crystals with Wilson's 95 % interval; space groups have the training data's frequencies, "
        f"{100 * numbers['training_fraction_in_p1']:.1f} % of which is P1. Validity: no atoms closer than 0.5 Å; "
        "SMACT's charges. Unique, novel: pymatgen's `StructureMatcher()` among crystals of one reduced formula; novel "
        f"crystals match none of {reference_text(numbers['novelty_reference'])}, to which the validation set belongs. "
        "Space group: detected by moyo at 0.01 Å. Energies: CHGNet without relaxation, relative to the hull of MP-20 "
        "(training and validation crystals) by CHGNet; means are over crystals with an energy, the rest counts as not "
        "stable. ≤ 0 allows 0.1 meV/atom of noise. Crystals far below the hull show its gaps, not discoveries. "
        "S.U.N.: stable crystals, of these the first of each structure, of these the novel ones. Published: a "
        "CrystalFormer trained on MP-20, by another protocol."
    )


def main(args: Args) -> None:
    """Evaluate a model and write its card."""
    if args.samples < 1:
        raise InputError(f"samples must be at least 1, got {args.samples}")
    model = CrystalFormer.from_pretrained(args.model)
    out = args.out or _model_folder(args.model)
    facts = _earlier_facts(out) if args.run is None else training_facts(args.run)
    train, val = (load_training_data(data_folder() / f"mp20_{part}.csv.gz") for part in ("train", "val"))
    numbers, metrics = card(model, train, val, load_reference(), args.samples, args.seed)
    command = ["python", "-m", "benchmarks.model_card", args.model, "--samples", str(args.samples)]
    command += ["--seed", str(args.seed), *(["--run", str(args.run)] if args.run else [])]
    versions = {name: version(name) for name in ("crystalgen", "torch", "chgnet", "pymatgen", "smact", "moyopy")}
    numbers = {"model": args.model, "command": shlex.join(command), "training": facts, **numbers}
    write_card(out, {**numbers, "versions": versions}, metrics, train)
    if args.run is not None and facts is not None:
        draw_curve(facts["history"], out / "curve.png")
    print(f"card in {out / 'README.md'}")


def write_card(out: Path, numbers: dict[str, Any], metrics: dict[str, SampleMetrics], training: CrystalBatch) -> None:
    """Write ``README.md``, ``card.json`` and ``chemistry.png``.

    Args:
        out: folder, made where there is none.
        numbers: those of `card`, with ``model``, ``command`` and ``training`` (what `training_facts` gives, or None).
        metrics: what `card` gives.
        training: crystals the model was trained on.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "card.json").write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    (out / "README.md").write_text(render(numbers))
    models = [name for name in metrics if name != VALIDATION]
    batches = {SETS[name]: metrics[name].samples.crystals for name in models}
    energies = {SETS[name]: metrics[name].e_above_hull for name in (VALIDATION, *models)}
    plot_chemistry(out / "chemistry.png", {SETS[TRAINING]: training, **batches}, energies)


def _earlier_facts(folder: Path) -> dict[str, Any] | None:
    """Return the facts of training in the card that a folder has, None without one."""
    path = folder / "card.json"
    facts: dict[str, Any] | None = json.loads(path.read_text())["training"] if path.is_file() else None
    return facts


def _model_folder(name: str) -> Path:
    """Return the folder of a model.

    Raises:
        ValueError: if it is a single file, which has no folder of its own.
    """
    for folder in (MODELS / name, Path(name)):
        if folder.is_dir():
            return folder
    raise InputError(f"out must be given for the model {name!r}, which is no folder")
