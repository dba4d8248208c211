"""The demonstration: reinforcement teaches a base model of known crystals to draw stable ones.

`KLPPO` fine-tunes the shipped model in a few space groups of high symmetry, where crystals are small and energies
cheap. The reward is minus the energy above the convex hull, by the CHGNet potential. Before and after are compared on
crystals of the same number and space groups.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from agents import CrystalFormer
from agents.klppo.config import TrainConfig
from agents.klppo.run import train
from benchmarks.cli import demo_report
from benchmarks.cli.demo_report import Sample
from crystal_env.crystal import CrystalBatch
from rewards import EnergyAboveHull, Validity

SPACE_GROUPS = (139, 194, 216, 221, 225)
"""I4/mmm, P6_3/mmc, F-43m, Pm-3m and Fm-3m: home of many simple prototypes."""

MAX_DEPTH = 0.2
"""Deepest energy below the hull in eV/atom that is believed: deeper, the hull lacks a phase."""

_CHUNK = 128


@dataclass
class Args:
    """What the demonstration does.

    Attributes:
        out: folder of the results.
        iterations: batches that the agent draws and learns from.
        batch_size: crystals of an iteration.
        crystals: crystals that the model is judged by, before and after.
        tau: how strongly the agent is held to the base model: less of it gives more stable crystals of fewer kinds.
        learning_rate: of Adam, at its highest.
        seed: of everything random.
    """

    out: Path = Path("runs/demo")
    iterations: int = 40
    batch_size: int = 256
    crystals: int = 1000
    tau: float = 0.1
    learning_rate: float = 4e-4
    seed: int = 0


def main(args: Args) -> None:
    """Fine-tune the base model on the energy above the hull and compare before with after."""
    started = time.time()
    config = TrainConfig(
        run=args.out / "run",
        reward_kwargs={"max_depth": MAX_DEPTH},
        space_group=SPACE_GROUPS,
        iterations=args.iterations,
        batch_size=args.batch_size,
        tau=args.tau,
        learning_rate=args.learning_rate,
        warmup=5,
        schedule="linear",
        n_epochs=1,
        weights={"lattice": 0.0},
        baseline="group",
        reward_range=(-2.0, 1.0),
        samples=0,
        seed=args.seed,
    )
    base = CrystalFormer.from_pretrained("mp20")
    reward = EnergyAboveHull(max_depth=MAX_DEPTH)
    print(f"base model mp20, space groups {SPACE_GROUPS}, tau {args.tau}, seed {args.seed}")
    before = _examine(base, base, reward, args, "base model")
    for leftover in ("agent.zip", "history.jsonl"):
        (args.out / "run" / leftover).unlink(missing_ok=True)
    try:
        model = train(config).model
    except KeyboardInterrupt:
        print("interrupted: judging what has been learned so far")
        model = CrystalFormer.from_pretrained(args.out / "run" / "model")
    after = _examine(model.cpu(), base, reward, args, "after training")
    demo_report.write(args.out, before, after)
    print(f"done in {(time.time() - started) / 60:.1f} minutes; the model is in {args.out / 'run' / 'model'}")


def _examine(model: CrystalFormer, base: CrystalFormer, reward: EnergyAboveHull, args: Args, name: str) -> Sample:
    """Draw crystals and say what they are worth."""
    rng = np.random.default_rng([args.seed, args.iterations])
    crystals = model.sample(list(SPACE_GROUPS), args.crystals, seed=rng)
    parts = [crystals[start : start + _CHUNK] for start in range(0, len(crystals), _CHUNK)]
    results = [reward(part) for part in tqdm(parts, desc=name, unit="batch")]
    scored = np.concatenate([[failure is None for failure in result.failures] for result in results]).astype(bool)
    return Sample(
        crystals,
        np.concatenate([result.terms["e_above_hull"] for result in results]),
        scored,
        np.concatenate([result.success() for result in results]),
        Validity()(crystals).success(),
        _divergence(model, base, crystals),
    )


@torch.inference_mode()
def _divergence(model: CrystalFormer, base: CrystalFormer, crystals: CrystalBatch) -> float:
    """Return the mean of ln p / p_base over crystals that the model has drawn."""
    return float((model.log_prob(crystals).total - base.log_prob(crystals).total).double().mean())
