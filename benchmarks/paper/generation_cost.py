"""What a stable, unique and novel crystal costs in oracle calls and minutes: search, base model, fine-tuned models.

A search returns crystals that it has paid for; a model samples any number of them once it is trained, and the oracle is
asked to confirm them. What it finds while it is trained counts too. Each method samples the same number of crystals in
space groups as in MP-20, all of which are evaluated:
``python -m benchmarks.paper.generation_cost --models "KLPPO=runs/KLPPOBest/seed-0" --out FOLDER``.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from agents import CrystalFormer
from benchmarks.baselines.element_substitution import Substitution
from benchmarks.baselines.training_set import load_training_set
from benchmarks.evaluation.evaluate import evaluate
from benchmarks.metrics.summary import markdown
from benchmarks.tasks.oracle import load_trace
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.files import atomic_write
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from rewards import SUN, EnergyAboveHull

_TIMED = 1000  # crystals whose scoring is timed

Sample = Callable[[NDArray[np.int64], np.random.Generator], CrystalBatch]


@dataclass
class Args:
    """Settings of the comparison.

    Attributes:
        models: Fine-tuned models, each "label=folder", the folder of a seed of ``crystalgen benchmark run``.
        out: Folder of ``cost.json`` and ``cost.md``.
        size: Crystals that each method samples.
        wanted: Stable, unique and novel crystals that the costs are given for.
        seed: Seed of the crystals.
        cross_check: Potential that took no part in training, such as "sevennet+MP2020"; by default none.
        cross_check_hull: Its hull, a file.
        n_jobs: Number of processes, by default one per core.
    """

    models: tuple[str, ...]
    out: Path
    size: int = 10_000
    wanted: int = 10_000
    seed: int = 12345
    cross_check: str | None = None
    cross_check_hull: Path | None = None
    n_jobs: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a method has given for what.

    Attributes:
        training_calls: oracle calls before the first sample.
        training_minutes: minutes before it.
        training_found: stable and novel crystals, by their keys different ones, among those calls.
        sampled: crystals sampled.
        found: of these, stable, unique and novel ones.
        minutes: minutes of sampling and of the oracle's answers for all that were sampled.
        confirmed: of those found, stable by the cross-check potential too, None if there is none.
    """

    training_calls: int
    training_minutes: float
    training_found: int
    sampled: int
    found: int
    minutes: float
    confirmed: int | None = None

    def calls(self, wanted: int) -> float:
        """Return the calls for a number of stable, unique and novel crystals that the oracle has confirmed."""
        return self.training_calls + self._samples(wanted)

    def total_minutes(self, wanted: int) -> float:
        """Return the minutes for them."""
        return self.training_minutes + self._samples(wanted) * self.minutes / self.sampled

    def _samples(self, wanted: int) -> float:
        """Return how many crystals have to be sampled after training."""
        return max(0, wanted - self.training_found) * self.sampled / max(self.found, 1)


def main(args: Args) -> None:
    """Sample and evaluate with all methods, and write the table."""
    folders = {}
    for text in args.models:
        label, equals, path = text.partition("=")
        if not equals or not label or not path:
            raise InputError(f"models must be 'label=folder', got {text!r}")
        folders[label] = Path(path)
    args.out.mkdir(parents=True, exist_ok=True)
    substitution = Substitution(load_training_set(), compile_grammar(constraints()))
    base = CrystalFormer.from_pretrained("mp20")
    costs = {
        "substitution search": _cost(substitution.sample, args),
        "base model": _cost(_sampler(base), args),
    }
    for label, folder in folders.items():
        seed = json.loads((folder / "seed.json").read_text())
        model = CrystalFormer.from_pretrained(folder / "agent" / "model")
        costs[label] = replace(
            _cost(_sampler(model), args), training_calls=seed["calls"],
            training_minutes=seed["seconds"]["training"] / 60, training_found=found(folder / "trace.npz"),
        )  # fmt: skip
    facts = {"size": args.size, "wanted": args.wanted, "cross_check": args.cross_check}
    rows = {label: vars(cost) for label, cost in costs.items()}
    atomic_write(args.out / "cost.json", json.dumps({**facts, "methods": rows}, indent=2) + "\n")
    atomic_write(args.out / "cost.md", table(costs, args.wanted) + "\n")
    print(table(costs, args.wanted))


def table(costs: dict[str, Cost], wanted: int) -> str:
    """Return what a number of stable, unique and novel crystals costs, a line a method."""
    lines = [
        [
            "", "training: calls", "minutes", "found", "S.U.N., %", "by both potentials, %", "S.U.N. per 1,000 calls",
            "S.U.N. per minute", f"calls for {wanted:,}", "minutes",
        ]
    ]  # fmt: skip
    lines.append(["---"] * len(lines[0]))
    for label, cost in costs.items():
        rate = cost.found / cost.sampled
        cells = [f"{cost.training_calls:,}", f"{cost.training_minutes:.1f}", f"{cost.training_found:,}"]
        cells += [f"{100 * rate:.1f}", "" if cost.confirmed is None else f"{100 * cost.confirmed / cost.sampled:.1f}"]
        cells += [f"{1000 * rate:.0f}", f"{cost.found / cost.minutes:.0f}"]
        lines.append([label, *cells, f"{cost.calls(wanted):,.0f}", f"{cost.total_minutes(wanted):,.0f}"])
    return markdown(lines)


def _sampler(model: CrystalFormer) -> Sample:
    return lambda groups, rng: model.sample(groups.tolist(), seed=rng)


def found(trace: Path) -> int:
    """Return how many different crystals that an oracle has scored are stable and novel."""
    crystals, result = load_trace(trace)
    return int(SUN(energy=lambda _: result, max_depth=None)(crystals).success().sum())


def _cost(sample: Sample, args: Args) -> Cost:
    """Sample with a method, evaluate, and return its cost without training."""
    rng = np.random.default_rng(args.seed)
    started = time.perf_counter()
    crystals = sample(compile_grammar(constraints(space_group="mp20")).sample_groups(args.size, rng), rng)
    sampled = time.perf_counter()
    timed = crystals[: min(args.size, _TIMED)]
    EnergyAboveHull()(timed)
    seconds = sampled - started + (time.perf_counter() - sampled) * args.size / len(timed)
    numbers = evaluate(
        crystals, cross_check=args.cross_check, cross_check_hull=args.cross_check_hull, n_jobs=args.n_jobs
    ).summary
    both = numbers["cross_check"]["rates"]["sun_by_both_0.1"]["count"] if args.cross_check else None
    return Cost(0, 0.0, 0, args.size, numbers["rates"]["sun_0.1"]["count"], seconds / 60, both)


if __name__ == "__main__":
    main(tyro.cli(Args))
