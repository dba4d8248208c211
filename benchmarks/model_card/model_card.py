"""The card of a base model: what it is, how it was made, and how good its crystals are.

Run ``python -m benchmarks.model_card.model_card MODEL --run RUN_FOLDER``. It writes ``README.md``, ``card.json``,
``chemistry.png`` and, where the run is known, ``curve.png``. The model's crystals stand beside those of an untrained
network of the same sizes and beside real ones. It needs ``mp20_train.csv.gz`` and ``mp20_val.csv.gz`` in the data
folder.
"""

import json
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

from agents import CrystalFormer, PretrainConfig
from agents.crystalformer.checkpoint import MODELS
from agents.supervised.pretrain import mean_log_prob
from agents.supervised.training_data import load_training_data
from agents.training.run_folder import RunFolder, draw_curve
from benchmarks.metrics.labels import label
from benchmarks.metrics.sample import SampleMetrics, evaluate_sample
from benchmarks.metrics.summary import summarise
from benchmarks.model_card.plots import UNITS, distances, draw_chemistry
from benchmarks.samples.samples import Samples
from crystal_env import CrystalBatch
from crystal_env.dataset import data_folder
from crystal_env.errors import InputError
from crystal_env.reward import Reward
from rewards import EnergyAboveHull

TRAINING, VALIDATION, MODEL, UNTRAINED = "MP-20 training", "MP-20 validation", "model", "untrained network"
_PUBLISHED = {"structurally_valid": 0.874, "compositionally_valid": 0.824, "novel": 0.805, "in_p1": 0.009}


@dataclass
class Args:
    """What the card is of.

    Attributes:
        model: what `CrystalFormer.from_pretrained` takes: a name, a folder or a file.
        run: folder of the training run, for its settings and its curve.
        samples: crystals that are drawn and examined, of each kind.
        seed: of the samples, the untrained network and the choice of real crystals.
        out: folder of the card, by default that of the model.
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
    samples: int = 1000,
    seed: int = 0,
    energy: Reward | None = None,
) -> tuple[dict[str, Any], dict[str, SampleMetrics]]:
    """Return all numbers of a model's card, and the crystals they are of.

    Args:
        model: the model.
        training: crystals it was trained on.
        validation: real crystals it was not trained on.
        samples: crystals of each kind, at most all of ``validation``.
        seed: of everything random.
        energy: reward with the term ``e_above_hull``, by default `rewards.EnergyAboveHull`.
    """
    untrained = CrystalFormer(model.config, seed).eval()
    batches = {
        MODEL: model.sample("mp20", size=samples, seed=seed, progress=True),
        UNTRAINED: untrained.sample("mp20", size=samples, seed=seed, progress=True),
        VALIDATION: validation[_choice(len(validation), samples, seed)],
    }
    energy = energy or EnergyAboveHull()
    examined = {
        name: evaluate_sample(Samples.from_crystals(batch, name), training, energy) for name, batch in batches.items()
    }
    numbers = {
        "config": model.config.to_dict(),
        "n_parameters": model.n_parameters,
        "training_crystals": len(training),
        "validation_crystals": len(validation),
        "most_elements": {
            name: int(np.count_nonzero(known.composition(), axis=1).max())
            for name, known in ((TRAINING, training), (VALIDATION, validation))
        },
        "training_fraction_in_p1": float((training.G == 1).mean()),
        "log_likelihood": {MODEL: mean_log_prob(model, validation), UNTRAINED: mean_log_prob(untrained, validation)},
        "samples": {name: summarise(sample) for name, sample in examined.items()},
        "distances": {
            name: distances(batch, training)
            for name, batch in {**batches, TRAINING: training[_choice(len(training), samples, seed)]}.items()
        },
    }
    return numbers, examined


def _choice(total: int, size: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(total)[:size]


def training_facts(run: Path) -> dict[str, Any]:
    """Return settings, command line and course of a training run, and of the run it went on from, if there was one.

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
        "the space group: the network of CrystalFormer (Cao et al., arXiv:2403.15734) in PyTorch. It is loaded by "
        f"`CrystalFormer.from_pretrained({numbers['model']!r})`.",
        "## Data and training",
        f"MP-20 (Xie et al., ICLR 2022): crystals of the Materials Project with at most 20 atoms in the primitive "
        f"cell. {numbers['training_crystals']:,} are for training, of up to {numbers['most_elements'][TRAINING]} "
        f"elements, and {numbers['validation_crystals']:,} for validation, of up to "
        f"{numbers['most_elements'][VALIDATION]} elements.",
        _training_text(numbers.get("training")),
        f"{numbers['n_parameters']:,} parameters: "
        + ", ".join(f"`{name}` {value}" for name, value in numbers["config"].items())
        + ".",
        f"This card was made by\n\n```\n{numbers['command']}\n```",
        "## Likelihood of the validation data",
        _likelihood_table(numbers["log_likelihood"]),
        "Means in nats per crystal of the exact likelihood, the density that the model samples from: coordinates per "
        "unit of a fractional coordinate, lattice in normalised Å (lengths per cube root of the atoms in the "
        "conventional cell) and radians.",
        "## Samples",
        _share_table(numbers["samples"]),
        _share_text(numbers),
        "## Do the samples look like chemistry?",
        _distance_table(numbers["distances"]),
        "Distances of distributions to those of the training data: Jensen-Shannon divergences of categories in bits, "
        "Wasserstein distances of numbers in their units. As many training crystals, drawn at random, show the floor. "
        "Space groups are asked for with the frequencies of the training data and are no achievement of the model.",
        "![distributions](chemistry.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _training_text(training: dict[str, Any] | None) -> str:
    if training is None:
        return ""
    return _stage_text(training) + "\n\n![learning curve](curve.png)"


def _stage_text(training: dict[str, Any]) -> str:
    """Describe a run after those before it."""
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
    return _table("log-likelihood", names, [(part, [f"{likelihoods[n][part]:.2f}" for n in names]) for part in parts])


def _share_table(samples: dict[str, dict[str, Any]]) -> str:
    names = list(samples)
    rows: list[tuple[str, list[str]]] = []
    for key in samples[names[0]]["rates"]:
        published = [f"{100 * _PUBLISHED[key]:.1f}" if key in _PUBLISHED else ""]
        rows.append((f"{label(key)}, %", [_percent(samples[name]["rates"][key]) for name in names] + published))
    for key in ("e_above_hull_mean", "e_above_hull_median"):
        values = [samples[name][key] for name in names]
        rows.append((label(key), [*("–" if v is None else f"{v:.3f}" for v in values), ""]))
    deep = "below_hull_outliers_count"
    rows.append((label(deep), [*(str(samples[name][deep]) for name in names), ""]))
    heads = [f"{name} ({samples[name]['rates']['valid']['total']})" for name in names]
    return _table("", [*heads, "published"], rows)


def _percent(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{100 * entry['rate']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _distance_table(found: dict[str, dict[str, float]]) -> str:
    rows = [
        (f"{name}, {unit}" if unit else name, [f"{values[name]:.3g}" for values in found.values()])
        for name, unit in UNITS.items()
    ]
    return _table("distance to the training data", list(found), rows)


def _table(corner: str, heads: list[str], rows: list[tuple[str, list[str]]]) -> str:
    lines = [f"| {corner} | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def _share_text(numbers: dict[str, Any]) -> str:
    return (
        "Shares of all crystals with Wilson's 95 % interval; space groups are drawn from the training data's, "
        f"{100 * numbers['training_fraction_in_p1']:.1f} % of which is P1. Validity: no atoms closer than 0.5 Å; "
        "SMACT's charges. Unique, novel: pymatgen's `StructureMatcher()` among crystals of one reduced formula; novel "
        "is what matches no training crystal, real ones included. Space group: found by moyo at 0.01 Å. Energies: "
        "CHGNet without relaxation, against the hull of MP-20 (training and validation crystals) by CHGNet; means are "
        "over what could be scored, the rest counts as not stable. ≤ 0 allows 0.1 meV/atom of noise. Far below the "
        "hull are gaps of the hull, not discoveries. S.U.N.: stable, then the first of each structure, then novel. "
        "Published: a CrystalFormer trained on MP-20, by another protocol."
    )


def main(args: Args) -> None:
    """Examine a model and write its card."""
    if args.samples < 1:
        raise InputError(f"samples must be at least 1, got {args.samples}")
    model = CrystalFormer.from_pretrained(args.model)
    facts = None if args.run is None else training_facts(args.run)
    out = args.out or _model_folder(args.model)
    train, val = (load_training_data(data_folder() / f"mp20_{part}.csv.gz") for part in ("train", "val"))
    numbers, examined = card(model, train, val, args.samples, args.seed)
    command = ["python", "-m", "benchmarks.model_card.model_card", args.model, "--samples", str(args.samples)]
    command += ["--seed", str(args.seed), *(["--run", str(args.run)] if args.run else [])]
    versions = {name: version(name) for name in ("crystalgen", "torch", "chgnet", "pymatgen", "smact", "moyopy")}
    numbers = {"model": args.model, "command": shlex.join(command), "training": facts, **numbers}
    write_card(out, {**numbers, "versions": versions}, examined, train)
    if facts is not None:
        draw_curve(facts["history"], out / "curve.png")
    print(f"card in {out / 'README.md'}")


def write_card(out: Path, numbers: dict[str, Any], examined: dict[str, SampleMetrics], training: CrystalBatch) -> None:
    """Write ``README.md``, ``card.json`` and ``chemistry.png``.

    Args:
        out: folder, made where there is none.
        numbers: those of `card`, with ``model``, ``command`` and ``training`` (what `training_facts` gives, or None).
        examined: what `card` gives.
        training: crystals the model was trained on.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "card.json").write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    (out / "README.md").write_text(render(numbers))
    batches = {TRAINING: training, **{name: examined[name].samples.crystals for name in (MODEL, UNTRAINED)}}
    energies = {name: examined[name].e_above_hull for name in (VALIDATION, MODEL, UNTRAINED)}
    draw_chemistry(out / "chemistry.png", batches, energies)


def _model_folder(name: str) -> Path:
    """Return the folder of a model.

    Raises:
        ValueError: if it is a single file, which has no folder of its own.
    """
    for folder in (MODELS / name, Path(name)):
        if folder.is_dir():
            return folder
    raise InputError(f"out must be given for the model {name!r}, which is no folder")


if __name__ == "__main__":
    main(tyro.cli(Args))
