"""How far a model has gone from another one."""

from typing import NamedTuple

import numpy as np
import torch

from agents import CrystalFormer
from agents.crystalformer.likelihood import LogProb
from crystal_env.grammar.constraints import SpaceGroup


class Divergence(NamedTuple):
    """KL(p || q) in nats with its standard error, and the part that each kind of decision has in it.

    The parts add up to the whole: each is the mean, over crystals of p, of the divergence of its decisions given those
    before them.
    """

    total: float
    error: float
    parts: dict[str, float]


@torch.inference_mode()
def kl_divergence(
    model: CrystalFormer, base: CrystalFormer, size: int = 1000, space_groups: SpaceGroup = "mp20", seed: int = 0
) -> Divergence:
    """Estimate the divergence of a model from a base model on crystals that it draws (k1, without bias).

    Args:
        model: p, which draws.
        base: q.
        size: crystals to draw.
        space_groups: what their groups are drawn from; both models are conditional on them.
        seed: of the crystals.
    """
    crystals = model.sample(space_groups, size, seed=seed)
    ours, theirs = model.log_prob(crystals), base.log_prob(crystals)
    apart = {name: (getattr(ours, name) - getattr(theirs, name)).double().cpu().numpy() for name in LogProb._fields}
    total = apart.pop("total")
    error = float(total.std(ddof=1) / np.sqrt(size)) if size > 1 else float("nan")
    return Divergence(float(total.mean()), error, {name: float(values.mean()) for name, values in apart.items()})
