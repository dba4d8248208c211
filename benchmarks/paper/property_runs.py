"""What fine-tuning towards a property gives: crystals that have it and are stable, unique and novel, by two potentials.

Each row is a method, given by the models of its seeds: folders of runs, or a base model's name. As many crystals of
each are sampled at its recommended temperatures, and evaluated:
``python -m benchmarks.paper.property_runs --rows "base=mp20" "KLPPO=runs/gap-0,runs/gap-1" --out FOLDER
--property rewards:BandGap --term band_gap --least 3``.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from agents import CrystalFormer
from agents.crystalformer.config import GroupChoice
from benchmarks.evaluation.evaluate import evaluate
from benchmarks.metrics.intervals import over_seeds
from benchmarks.metrics.summary import markdown
from benchmarks.paper.sample_efficiency import cell
from crystal_env.errors import InputError
from crystal_env.files import atomic_write
from crystal_env.reward import Scorer, resolve_reward

_COLUMNS = {
    "property": "has the property, %",
    "stable": "stable, %",
    "sun": "S.U.N., %",
    "both": "property and S.U.N., %",
    "confirmed": "and stable by the cross-check, %",
    "structures": "different structures with it",
    "formulas": "different formulas",
    "largest_formula": "most common formula, %",
}


@dataclass
class Args:
    """Settings of the table.

    Attributes:
        rows: Rows of the table, each "label=folder,folder", a folder or the name of a base model for each seed.
        out: Folder of ``NAME.json`` and ``NAME.md``.
        property: Reward that predicts the property, as "module:attribute".
        term: The property's name among the terms of that reward.
        least: The least value that is asked for.
        property_kwargs: Arguments that the reward is made with, as JSON.
        space_group: Space groups to sample: a number, a list of numbers, 230 weights or "mp20".
        size: Crystals sampled from each model.
        seed: Seed of the crystals.
        cross_check: Potential that took no part in training, such as "sevennet+MP2020"; by default none.
        cross_check_hull: Its hull, a file.
        n_jobs: Number of processes, by default one per core.
    """

    rows: tuple[str, ...]
    out: Path
    property: str
    term: str
    least: float
    property_kwargs: str = "{}"
    space_group: GroupChoice = "mp20"
    size: int = 1000
    seed: int = 12345
    cross_check: str | None = None
    cross_check_hull: Path | None = None
    n_jobs: int | None = None


def main(args: Args) -> None:
    """Sample and evaluate the models of all rows, and write the table."""
    args.out.mkdir(parents=True, exist_ok=True)
    predict, rows = Scorer(resolve_reward(args.property, json.loads(args.property_kwargs)), 0.0), {}
    for text in args.rows:
        label, equals, models = text.partition("=")
        if not equals or not label or not models:
            raise InputError(f"rows must be 'label=folder,folder', got {text!r}")
        seeds = [_numbers(model, args, predict, args.seed + i) for i, model in enumerate(models.split(","))]
        rows[label] = {name: over_seeds([seed[name] for seed in seeds]) for name in seeds[0]}
    columns = [name for name in _COLUMNS if all(name in row for row in rows.values())]
    lines = [["", *(_COLUMNS[name] for name in columns)], ["---"] * (len(columns) + 1)]
    lines += [[label, *(cell(row[name]) for name in columns)] for label, row in rows.items()]
    facts = {"property": f"{args.term} >= {args.least:g}", "cross_check": args.cross_check, "size": args.size}
    atomic_write(args.out / f"{args.term}.json", json.dumps({**facts, "rows": rows}, indent=2) + "\n")
    atomic_write(args.out / f"{args.term}.md", markdown(lines) + "\n")
    print(markdown(lines))


def _numbers(model: str, args: Args, predict: Scorer, seed: int) -> dict[str, float]:
    """Return the numbers of a sample of a model, in per cent of all attempts or as counts."""
    path = Path(model) / "model"
    network = CrystalFormer.from_pretrained(path if path.is_dir() else model)
    crystals = network.sample(args.space_group, args.size, seed=seed)
    result = predict(crystals)
    has = result.scored & (result.terms[args.term] >= args.least)
    evaluation = evaluate(
        crystals, cross_check=args.cross_check, cross_check_hull=args.cross_check_hull, n_jobs=args.n_jobs
    )
    metrics = evaluation.metrics
    both = metrics.sun(among=has)
    formulas = [crystal.formula for crystal in crystals]
    numbers = {
        "property": has.mean(), "stable": metrics.stable().mean(), "sun": metrics.sun().mean(), "both": both.mean(),
        "largest_formula": max(map(formulas.count, set(formulas))) / len(formulas),
    }  # fmt: skip
    if evaluation.cross_check is not None:
        numbers["confirmed"] = (both & evaluation.cross_check.stable()).mean()
    counts = {"structures": len(np.unique(metrics.label[has])), "formulas": len(set(formulas))}
    return {**{name: 100 * float(value) for name, value in numbers.items()}, **{k: float(v) for k, v in counts.items()}}


if __name__ == "__main__":
    main(tyro.cli(Args))
