"""Sampling crystals from a model into a folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agents.crystalformer.config import GroupChoice
from agents.crystalformer.distribution import check_constraints, check_distribution
from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.temperature import TemperatureChoice, Temperatures, check_temperature
from agents.search.best_of_n import best_of_n
from agents.search.rejection import sample_accepted
from agents.training.sample_files import write_samples
from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward


@dataclass(frozen=True)
class SampleConfig:
    """Settings of `sample`.

    Attributes:
        out: Output folder: ``cif/``, ``crystals.csv`` and ``crystals.npz``.
        size: Number of crystals.
        model: Name of a model, a folder (such as ``model`` of a run) or a checkpoint of the paper's code.
        space_group: A number, a list of numbers, 230 weights or ``"mp20"``, their frequencies in MP-20.
        constraints: Constraints as for the environment, as JSON, such as '{"formula": "SrTiO3"}'.
        temperature: Sampling temperature, below 1 sharper: a number, or JSON such as '{"coordinates": 0.1, "lattice":
            0.1}' for parts of a crystal; by default what the model recommends.
        top_p: Probability mass of the letters, elements and components that are sampled from, the likeliest ones.
        bins: Number of bins for coordinates and lattice, as on the discrete environment; 0 for continuous values.
        reward: Reward of the table's crystals, as ``"module:attribute"``.
        reward_kwargs: Keyword arguments of the reward, as JSON.
        floor: Reward of a crystal that cannot be scored.
        device: Device such as ``"cuda"``; by default a GPU if there is one.
        best_of: Crystals sampled for each one that is kept, the one of highest reward.
        min_contact: Shortest distance of two atoms in units of the sum of their covalent radii, such as 0.65, which no
            crystal of MP-20's validation set falls below. Crystals with a shorter one are sampled again in the same
            space group, up to 20 times; 0 accepts all.
        seed: Random seed.

    Raises:
        ValueError: naming the setting that is out of range.
    """

    out: Path
    size: int = 100
    model: str = "mp20"
    space_group: GroupChoice = "mp20"
    constraints: dict[str, Any] = field(default_factory=dict)
    temperature: TemperatureChoice = None
    top_p: float = 1.0
    bins: int = 0
    reward: str | None = None
    reward_kwargs: dict[str, Any] = field(default_factory=dict)
    floor: float = -10.0
    device: str | None = None
    best_of: int = 1
    min_contact: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("best_of", 1), ("seed", 0)):
            integer(name, getattr(self, name), least)
        finite_number("floor", self.floor)
        finite_number("min_contact", self.min_contact, least=0)
        check_temperature("temperature", self.temperature)
        check_distribution(1.0, self.top_p, self.bins)
        check_constraints(self.space_group, self.constraints)
        if self.best_of > 1 and self.reward is None:
            raise InputError(f"best_of = {self.best_of} needs a reward")
        if self.best_of > 1 and self.min_contact:
            raise InputError(f"best_of and min_contact exclude each other, got {self.best_of} and {self.min_contact}")


def sample(config: SampleConfig, progress: bool = True) -> CrystalBatch:
    """Sample crystals, write them into a folder, and return them.

    Args:
        config: all settings.
        progress: show a bar with the time left.

    Raises:
        ValueError: if a setting is malformed, or no crystal of a space group meets the constraints.
    """
    reward = None if config.reward is None else resolve_reward(config.reward, config.reward_kwargs)
    model = CrystalFormer.from_pretrained(config.model)
    model = model.to(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    temperature = model.temperature if config.temperature is None else Temperatures.of(config.temperature)
    options: dict[str, Any] = {"bins": config.bins, "temperature": temperature, "top_p": config.top_p}
    options |= config.constraints
    if config.best_of > 1:
        assert reward is not None
        crystals, result = _best(model, reward, config, options, progress)
    else:
        crystals = _sampled(model, config, options, progress)
        result = None if reward is None else Scorer(reward, config.floor)(crystals)
    numbers = {}
    if temperature.have_densities or config.bins:
        with torch.inference_mode():
            numbers["log_prob"] = model.log_prob(crystals, **options).total.double().cpu().numpy()
    write_samples(config.out, crystals, result, numbers)
    return crystals


def _sampled(model: CrystalFormer, config: SampleConfig, options: dict[str, Any], progress: bool) -> CrystalBatch:
    if not config.min_contact:
        return model.sample(config.space_group, config.size, seed=config.seed, progress=progress, **options)
    accepted = sample_accepted(
        model, config.space_group, config.size, min_contact=config.min_contact, seed=config.seed, progress=progress,
        **options,
    )  # fmt: skip
    print(f"{accepted.sampled} crystals sampled for {config.size}, {accepted.failed} of which have a shorter contact")
    return accepted.crystals


def _best(
    model: CrystalFormer, reward: Reward, config: SampleConfig, options: dict[str, Any], progress: bool
) -> tuple[CrystalBatch, RewardResult | None]:
    best = best_of_n(
        model, reward, config.best_of, config.size, floor=config.floor, space_groups=config.space_group,
        seed=config.seed, progress=progress, **options,
    )  # fmt: skip
    return best.crystals, best.result
