"""Drawing crystals of a model into a folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agents.crystalformer.config import GroupChoice
from agents.crystalformer.model import CrystalFormer
from agents.search.best_of_n import best_of_n
from agents.training.sample_files import write_samples
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult, Scorer, resolve_reward


@dataclass(frozen=True)
class SampleConfig:
    """What `sample` does.

    Attributes:
        out: folder to write: ``cif/``, ``crystals.csv`` and ``crystals.npz``.
        size: number of crystals.
        model: a name, a folder (such as ``model`` of a run) or a checkpoint of the paper's code.
        space_group: a number, a list of numbers, 230 weights or ``"mp20"``, their frequencies in MP-20.
        constraints: what the crystals must be like, as for the environment, as JSON, such as '{"formula": "SrTiO3"}'.
        temperature: sharpens the distribution where it is below 1.
        top_p: letters, elements and components come from the most likely ones that together have this probability.
        bins: draw numbers from that many bins, as on the discrete environment; 0 for continuous ones.
        reward: ``"module:attribute"`` of what says what crystals are worth, to be told in the table.
        reward_kwargs: arguments that the reward is made with, as JSON.
        floor: reward of a crystal that cannot be scored.
        device: such as ``"cuda"``; by default a GPU where there is one.
        best_of: crystals to draw, of each space group that is drawn, for the best one of them to be kept.
        seed: of all that is random.
    """

    out: Path
    size: int = 100
    model: str = "mp20"
    space_group: GroupChoice = "mp20"
    constraints: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    top_p: float = 1.0
    bins: int = 0
    reward: str | None = None
    reward_kwargs: dict[str, Any] = field(default_factory=dict)
    floor: float = -10.0
    device: str | None = None
    best_of: int = 1
    seed: int = 0


def sample(config: SampleConfig, progress: bool = True) -> CrystalBatch:
    """Draw crystals, write them into a folder, and return them.

    Args:
        config: all settings.
        progress: show a bar with the time left.

    Raises:
        ValueError: if a setting is malformed, or no crystal of a space group meets the constraints.
    """
    reward = None if config.reward is None else resolve_reward(config.reward, config.reward_kwargs)
    if config.best_of != 1 and (reward is None or (config.temperature, config.top_p) != (1, 1)):
        raise InputError(f"best_of = {config.best_of} needs a reward, and temperature and top_p 1")
    model = CrystalFormer.from_pretrained(config.model)
    model = model.to(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options: dict[str, Any] = {"bins": config.bins, **config.constraints}
    result: RewardResult | None
    if config.best_of != 1:
        assert reward is not None
        best = best_of_n(
            model, reward, config.best_of, config.size, floor=config.floor, space_groups=config.space_group,
            seed=config.seed, progress=progress, **options,
        )  # fmt: skip
        crystals, result = best.crystals, best.result
    else:
        options |= {"temperature": config.temperature, "top_p": config.top_p}
        crystals = model.sample(config.space_group, config.size, seed=config.seed, progress=progress, **options)
        result = None if reward is None else Scorer(reward, config.floor)(crystals)
    numbers = {}
    if config.temperature > 0 or config.bins:
        with torch.inference_mode():
            numbers["log_prob"] = model.log_prob(crystals, **options).total.double().cpu().numpy()
    write_samples(config.out, crystals, result, numbers)
    return crystals
