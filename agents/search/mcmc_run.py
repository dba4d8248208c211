"""Markov chains into a folder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.crystalformer.model import CrystalFormer
from agents.search.mcmc import MCMCResult, mcmc
from agents.search.mcmc_config import MCMCConfig
from agents.training.run_folder import RunFolder
from agents.training.sample_files import write_samples
from crystal_env.crystal import CrystalBatch
from crystal_env.reward import resolve_reward


@dataclass(frozen=True)
class MCMCRunConfig:
    """Settings of `run_mcmc`.

    Attributes:
        out: Output folder: ``run.json``, ``last/`` and ``best/`` with CIF files and tables, ``samples.npz``,
            ``trace.csv`` and ``trace.png``.
        chains: Settings of the chains.
        model: Base model, a name or a path.
        reward: Reward, as ``"module:attribute"``.
        reward_kwargs: Keyword arguments of the reward, as JSON.
        initial: File (npz) of crystals to start from, one per chain; by default they are sampled from the model.
        device: Device such as ``"cuda"``; by default a GPU if there is one.
    """

    out: Path
    chains: MCMCConfig = field(default_factory=MCMCConfig)
    model: str = "mp20"
    reward: str = "rewards:EnergyAboveHull"
    reward_kwargs: dict[str, Any] = field(default_factory=dict)
    initial: Path | None = None
    device: str | None = None


def run_mcmc(config: MCMCRunConfig, progress: bool = True) -> MCMCResult:
    """Run chains and write their results into a folder, also those of a run that is ended from outside.

    Args:
        config: all settings.
        progress: show a bar with the time left.

    Raises:
        ValueError: if a setting is malformed.
    """
    model = CrystalFormer.from_pretrained(config.model)
    model = model.to(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    initial = None if config.initial is None else CrystalBatch.load(config.initial)
    reward = resolve_reward(config.reward, config.reward_kwargs)
    result = mcmc(model, reward, config.chains, initial, progress)
    numbers = {name: getattr(result, name) for name in ("acceptance", "autocorrelation", "effective_size", "calls")}
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    RunFolder(config.out).write_settings(settings, interrupted=result.interrupted, **numbers)
    write_samples(config.out / "last", result.crystals, result.result, {"log_prob": result.log_prob})
    write_samples(config.out / "best", result.best, None, {"reward": result.best_rewards})
    result.samples.save(config.out / "samples.npz")
    header = "temperature,mean_reward,mean_log_prob"
    np.savetxt(config.out / "trace.csv", result.trace, delimiter=",", header=header, comments="")
    plot(result, config.out / "trace.png")
    return result


def plot(result: MCMCResult, path: Path) -> None:
    """Plot reward, log-likelihood and temperature by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    names = ("temperature", "mean reward", "mean log-likelihood (nats)")
    for axes, name, values in zip(figure.subplots(1, 3), names, result.trace.T, strict=True):
        axes.plot(values, linewidth=1)
        axes.set(xlabel="step", ylabel=name)
    figure.savefig(path, dpi=110)
