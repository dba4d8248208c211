"""Time of S.U.N., stage by stage, compared with the plain double loop over ``StructureMatcher().fit``.

Run ``python -m benchmarks.speed.metrics`` on a quiet machine. The reference are the crystals of MP-20
(``mp20_train.csv.gz`` and ``mp20_val.csv.gz`` in ``$CRYSTALGEN_DATA``, read from the cache of tokens). The sample is
made of crystals of the reference in other settings, half of them the same few again and again, with one element of
every second one replaced by another, so that there are duplicates and novel ones; energies are random, half are stable.
What potentials take is measured by ``benchmarks.speed.rewards``.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.metrics.properties import fixed_order, groups_of_crystals
from benchmarks.metrics.reference import load_reference
from benchmarks.metrics.sample import STABLE
from crystal_env.crystal import CrystalBatch
from crystal_env.equivalents import equivalents
from rewards import Validity
from rewards.matching import Reference, rows_by_formula, structure_labels
from rewards.validity import composition_is_valid


@dataclass
class Args:
    """Settings of the measurement.

    Attributes:
        sizes: Crystals in a sample.
        repeats: Repeats of every stage; the median is shown.
        plain: Seconds for the plain double loops of a size, whose time is extrapolated.
        n_jobs: Number of processes.
    """

    sizes: tuple[int, ...] = (1000, 10000)
    repeats: int = 3
    plain: float = 20.0
    n_jobs: int = 2


def main(args: Args) -> None:
    """Measure and print tables."""
    try:
        reading, known = _timed(lambda: load_reference().crystals, args.repeats)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print(f"{args.n_jobs} processes on {os.cpu_count()} cores, medians of {args.repeats}")
    print(f"{'reading ' + str(len(known)) + ' reference crystals':<44}{reading:>9.2f} s", flush=True)
    for size in args.sizes:
        crystals, energies = sample(known, size, np.random.default_rng(size))
        stages = measure(crystals, energies, known, args)
        print(f"\n{size} crystals")
        for name, seconds in stages.items():
            print(f"  {name:<42}{seconds:>9.2f} s", flush=True)
        total = sum(stages.values())
        print(f"  {'S.U.N. and validity, without energies':<42}{total:>9.2f} s")
        plain, pairs, done = plain_loop(crystals, energies, known, args.plain)
        matching = sum(stages[name] for name in ("uniqueness of the stable", "novelty of the unique"))
        print(f"  {f'plain double loop, {done} of {pairs} pairs':<42}{plain:>9.0f} s, {plain / matching:.0f} times")


def sample(known: CrystalBatch, size: int, rng: np.random.Generator) -> tuple[CrystalBatch, NDArray[np.float64]]:
    """Return crystals like those of a generator, and energies above the hull (size,)."""
    few = rng.integers(len(known), size=size // 20)
    rows = np.where(rng.random(size) < 0.5, rng.integers(len(known), size=size), rng.choice(few, size))
    crystals = equivalents(known[rows], rng)
    for row in range(0, size, 2):
        elements = np.unique(crystals.A[row][crystals.A[row] > 0])
        old, new = rng.choice(elements), rng.choice([3, 11, 19, 8, 9, 16, 17, 22, 26, 13])
        crystals.A[row] = np.where(crystals.A[row] == old, new, crystals.A[row])
    return crystals, rng.uniform(-0.05, 0.25, size)


def measure(crystals: CrystalBatch, energies: NDArray[np.float64], known: CrystalBatch, args: Args) -> dict[str, float]:
    """Return stage -> median seconds."""
    order = fixed_order(crystals, energies)
    stable = order[energies[order] <= STABLE]
    labels = structure_labels(crystals[stable], n_jobs=args.n_jobs)
    unique, reference = stable[np.unique(labels)], Reference(known)
    _ = reference.rows  # has a stage of its own
    stages: dict[str, Callable[[], Any]] = {
        "validity": lambda: _validity(crystals),
        "symmetry": lambda: groups_of_crystals(crystals, f"{len(crystals)} crystals", n_jobs=args.n_jobs),
        "fixed order": lambda: fixed_order(crystals, energies),
        "formulas of the reference": lambda: rows_by_formula(known),
        "uniqueness of the stable": lambda: structure_labels(crystals[stable], n_jobs=args.n_jobs),
        "novelty of the unique": lambda: reference.contains(crystals[unique], n_jobs=args.n_jobs),
    }
    return {name: _timed(stage, args.repeats)[0] for name, stage in stages.items()}


def _validity(crystals: CrystalBatch) -> None:
    composition_is_valid.cache_clear()  # repeats would find every composition there
    Validity()(crystals)


def plain_loop(
    crystals: CrystalBatch, energies: NDArray[np.float64], known: CrystalBatch, seconds: float
) -> tuple[float, int, int]:
    """Return the seconds of the double loops over all pairs, their number, and how many of them were timed.

    The loops compare the stable crystals with those before them, and the unique ones with the whole reference, until
    one matches. Random pairs are timed until the time is over, and the mean is multiplied.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    stable = np.flatnonzero(energies <= STABLE)
    labels = structure_labels(crystals[stable], n_jobs=1)
    pairs = len(np.unique(labels)) * len(known) + len(stable) * (len(stable) - 1) // 2
    rng, matcher, done, spent = np.random.default_rng(0), StructureMatcher(), 0, 0.0
    while spent < seconds:
        ours = crystals[rng.choice(stable, 64)].to_structures(primitive=True)
        theirs = known[rng.integers(len(known), size=64)].to_structures(primitive=True)
        start = time.perf_counter()
        for one in ours:
            for other in theirs:
                matcher.fit(one, other)
        spent += time.perf_counter() - start
        done += len(ours) * len(theirs)
    return spent / done * pairs, pairs, done


def _timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the median wall time in seconds of repeated calls, and the result of the last one."""
    times, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return median(times), result


if __name__ == "__main__":
    main(tyro.cli(Args))
