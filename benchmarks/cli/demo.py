"""The demo: reinforcement learning fine-tunes the shipped base model towards stable crystals.

`KLPPO` fine-tunes the model in five space groups of high symmetry, where crystals are small and energies cheap. The
reward is minus the energy above the convex hull by CHGNet. Samples of the base model and of the fine-tuned model are
compared, of the same size and in the same space groups.
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
"""I4/mmm, P6_3/mmc, F-43m, Pm-3m and Fm-3m: the space groups of many simple prototypes."""

MAX_DEPTH = 0.2
"""Largest energy below the hull in eV/atom that is accepted: farther below, the hull lacks a phase."""

_CHUNK = 128


@dataclass
class Args:
    """Settings of the demo.

    Attributes:
        out: Folder of the results.
        iterations: Number of batches to sample and learn from.
        batch_size: Crystals in a batch.
        crystals: Crystals sampled for the comparison, from each model.
        tau: KL coefficient; a smaller one gives more stable crystals of less variety.
        learning_rate: Peak Adam learning rate.
        seed: Seed of all random numbers.
    """

    out: Path = Path("runs/demo")
    iterations: int = 40
    batch_size: int = 256
    crystals: int = 1000
    tau: float = 0.1
    learning_rate: float = 4e-4
    seed: int = 0


def main(args: Args) -> None:
    """Fine-tune the base model on the energy above the hull and compare samples before and after."""
    started = time.time()
    config = TrainConfig.from_preset(
        "best",
        run=args.out / "run",
        reward_kwargs={"max_depth": MAX_DEPTH},
        space_group=SPACE_GROUPS,
        iterations=args.iterations,
        batch_size=args.batch_size,
        tau=args.tau,
        learning_rate=args.learning_rate,
        samples=0,
        seed=args.seed,
    )
    base = CrystalFormer.from_pretrained("mp20")
    reward = EnergyAboveHull(max_depth=MAX_DEPTH)
    print(f"base model mp20, space groups {SPACE_GROUPS}, tau {args.tau}, seed {args.seed}")
    before = _evaluate(base, base, reward, args, "base model")
    for leftover in ("agent.zip", "history.jsonl"):
        (args.out / "run" / leftover).unlink(missing_ok=True)
    try:
        model = train(config).model
    except KeyboardInterrupt:
        print("interrupted: evaluating the model of the last checkpoint")
        model = CrystalFormer.from_pretrained(args.out / "run" / "model")
    after = _evaluate(model.cpu(), base, reward, args, "fine-tuned")
    demo_report.write(args.out, before, after)
    print(f"done in {(time.time() - started) / 60:.1f} minutes; the model is in {args.out / 'run' / 'model'}")


def _evaluate(model: CrystalFormer, base: CrystalFormer, reward: EnergyAboveHull, args: Args, name: str) -> Sample:
    """Sample crystals and score them."""
    rng = np.random.default_rng([args.seed, args.iterations])
    crystals = model.sample(list(SPACE_GROUPS), args.crystals, seed=rng, temperature=1)
    parts = [crystals[start : start + _CHUNK] for start in range(0, len(crystals), _CHUNK)]
    results = [reward(part) for part in tqdm(parts, desc=name, unit="batch")]
    scored = np.concatenate([result.scored for result in results])
    return Sample(
        crystals,
        np.concatenate([result.terms["e_above_hull"] for result in results]),
        scored,
        np.concatenate([result.success() for result in results]),
        Validity()(crystals).success(),
        _kl_divergence(model, base, crystals),
    )


@torch.inference_mode()
def _kl_divergence(model: CrystalFormer, base: CrystalFormer, crystals: CrystalBatch) -> float:
    """Return the mean of ln(p / p_base) over samples of the model, in nats."""
    ours, theirs = (of.log_prob(crystals, temperature=1).total for of in (model, base))
    return float((ours - theirs).double().mean())
