"""The demo: reinforcement learning fine-tunes the shipped base model towards stable, unique, novel crystals.

`KLPPO` with its preset ``best`` learns from `rewards.SUN`, in the space groups of MP-20. Samples of the base model, at
temperature 1 and at those of the fine-tuned one, are compared with samples of the latter, all of the same size.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents import CrystalFormer
from agents.crystalformer.temperature import Temperatures
from agents.klppo.config import TrainConfig
from agents.klppo.run import train
from agents.training.run_folder import RunFolder
from benchmarks.cli import demo_report
from benchmarks.cli.demo_results import DOUBTFUL_DEPTH, ModelSample
from benchmarks.metrics.kl import kl_divergence_on
from benchmarks.metrics.reference import DEFAULT_FILES, NoveltyReference, load_reference, reference_text
from benchmarks.metrics.sample import evaluate_sample
from benchmarks.samples.samples import Samples
from crystal_env.dataset import data_folder
from rewards import EnergyAboveHull

_SAMPLES = 99  # tells the random numbers of the samples from those of training


@dataclass
class Args:
    """Settings of the demo.

    Attributes:
        out: Folder of the results.
        iterations: Number of batches to sample and learn from.
        batch_size: Crystals in a batch, each of which is an oracle call.
        replay_ratio: Crystals learned from for each one that is sampled.
        crystals: Crystals sampled for the comparison, from each model.
        seed: Seed of all random numbers.
    """

    out: Path = Path("runs/demo")
    iterations: int = 20
    batch_size: int = 200
    replay_ratio: float = 6.0
    crystals: int = 1000
    seed: int = 0


def main(args: Args) -> None:
    """Fine-tune the base model on S.U.N. and compare samples before and after."""
    started = time.time()
    reference = load_reference(required=False)
    config = TrainConfig.from_preset(
        "best",
        run=args.out / "run",
        reward_kwargs={"reference": "mp20" if reference.files else None, "max_depth": DOUBTFUL_DEPTH},
        iterations=args.iterations,
        batch_size=args.batch_size,
        learning_starts=0,
        replay_ratio=args.replay_ratio,
        samples=0,
        seed=args.seed,
    )
    about = [
        f"The base model mp20 is fine-tuned with {args.iterations * args.batch_size:,} calls of rewards.SUN "
        f"(CHGNet, hull mp20-chgnet), seed {args.seed}.",
        _about_novelty(reference),
        f"Sharp is temperature {config.sampling.in_words()}, which the fine-tuned model recommends.",
    ]
    print("\n".join(about))
    base, one = CrystalFormer.from_pretrained("mp20"), Temperatures()
    before = [
        _evaluate(base, base, one, reference, args, "base model, T = 1"),
        _evaluate(base, base, config.sampling, reference, args, "base model, sharp"),
    ]
    for leftover in ("agent.zip", "history.jsonl"):
        (args.out / "run" / leftover).unlink(missing_ok=True)
    try:
        model = train(config).model
    except KeyboardInterrupt:
        print("interrupted: evaluating the model of the last checkpoint")
        model = CrystalFormer.from_pretrained(args.out / "run" / "model")
    after = _evaluate(model.cpu(), base, config.sampling, reference, args, "fine-tuned, sharp")
    demo_report.write(args.out, [*before, after], RunFolder(args.out / "run").history(), about)
    print(f"done in {(time.time() - started) / 60:.1f} minutes; the model is in {args.out / 'run' / 'model'}")


def _about_novelty(reference: NoveltyReference) -> str:
    """Return what novelty is measured against, or that it cannot be."""
    if reference.files:
        return f"Novel is what is not in {reference_text(reference.facts())}."
    return (
        "Novelty could not be checked, and stable and unique crystals are counted instead of S.U.N.: the folder "
        f"$CRYSTALGEN_DATA, {data_folder()}, must hold {' and '.join(DEFAULT_FILES)}, tables with a column cif."
    )


def _evaluate(
    model: CrystalFormer,
    base: CrystalFormer,
    temperature: Temperatures,
    reference: NoveltyReference,
    args: Args,
    name: str,
) -> ModelSample:
    """Sample crystals and evaluate them."""
    rng = np.random.default_rng([args.seed, _SAMPLES])
    crystals = model.sample("mp20", args.crystals, seed=rng, temperature=temperature)
    metrics = evaluate_sample(Samples.from_crystals(crystals, name), reference.crystals, EnergyAboveHull(), None)
    kl = kl_divergence_on(crystals, model, base, temperature).parts
    return ModelSample(metrics, kl["letters"] + kl["elements"], bool(reference.files))
