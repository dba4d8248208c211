"""Time of one iteration of KLPPO, stage by stage, with the machine's matrix-multiply rate.

An iteration samples a batch of crystals, evaluates the reward (CHGNet and the shipped hull) and the likelihoods of the
reference policy, and takes three optimiser steps on the whole batch: the paper's setting. The published code samples a
crystal in 6 to 9 s on two such cores, which is hours for the same batch.
"""

from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import gymnasium as gym
import torch
import tyro
from stable_baselines3.common.logger import Logger

import crystal_env  # noqa: F401  registers the environment
from agents import KLPPO, CrystalFormerConfig
from benchmarks.speed.model import matmul_rate
from rewards import EnergyAboveHull

_STAGES = ("sampling", "reward", "scoring", "update")


@dataclass
class Args:
    """Settings of the measurement.

    Attributes:
        model: ``"mp20"``, the shipped model, or ``"paper"``, random weights at the paper's size.
        batch_size: Crystals in an iteration.
        iterations: Iterations whose median is shown, after a warm-up.
        n_epochs: Optimiser steps in an iteration.
        threads: Threads of PyTorch, by default all cores.
    """

    model: Literal["mp20", "paper"] = "mp20"
    batch_size: int = 1000
    iterations: int = 3
    n_epochs: int = 3
    threads: int | None = None


def main(args: Args) -> None:
    """Run some iterations and print where their time goes."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    env = gym.make_vec(
        "CrystalGen-v0",
        action_mode="continuous",
        reward=EnergyAboveHull(),
    )
    model = CrystalFormerConfig() if args.model == "paper" else args.model
    agent = KLPPO(
        "CrystalFormerPolicy",
        env,
        batch_size=args.batch_size,
        n_epochs=args.n_epochs,
        learning_rate=1e-9 if args.model == "paper" else 1e-5,
        seed=0,
        policy_kwargs={"model": model},
    )
    seconds: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    sites: list[float] = []
    agent.set_logger(Logger(None, []))
    for iteration in range(args.iterations + 1):
        lengths: list[float] = []

        def look(seen: dict[str, Any], _: Any, lengths: list[float] = lengths) -> bool:
            lengths.append(float(seen["rollout"].crystals.n_sites().mean()))
            return True

        agent.learn(1, callback=look, log_interval=0, reset_num_timesteps=False)
        logged = dict(agent.logger.name_to_value)
        if iteration:
            sites += lengths
            for stage in _STAGES:
                seconds[stage].append(logged[f"time/{stage}_seconds"])
    print(
        f"{agent.model.n_parameters:,} parameters, {args.batch_size} crystals of {sum(sites) / len(sites):.1f} sites, "
        f"{args.n_epochs} steps, {torch.get_num_threads()} threads, {matmul_rate(torch.float32, 5) / 1e9:.0f} GFLOP/s"
    )
    total = sum(median(values) for values in seconds.values())
    for stage in _STAGES:
        value = median(seconds[stage])
        print(f"{stage:<10}{value:>8.2f} s{value / total:>8.1%}")
    print(f"{'all':<10}{total:>8.2f} s   {args.batch_size / total:.1f} crystals/s")


if __name__ == "__main__":
    main(tyro.cli(Args))
