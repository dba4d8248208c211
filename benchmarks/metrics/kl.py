"""The KL divergence of a model from a reference model."""

from typing import NamedTuple

import numpy as np
import torch

from agents import CrystalFormer
from agents.crystalformer.likelihood import LogProb
from agents.crystalformer.temperature import Temperature
from crystal_env.crystal import CrystalBatch
from crystal_env.grammar.constraints import SpaceGroup


class Divergence(NamedTuple):
    """KL(p || q) in nats with its standard error, and the contribution of each kind of decision.

    The parts add up to the total: each is the mean, over crystals of p, of the divergence of its decisions given those
    before them.
    """

    total: float
    error: float
    parts: dict[str, float]


def kl_divergence(
    model: CrystalFormer,
    base: CrystalFormer,
    size: int = 1000,
    space_groups: SpaceGroup = "mp20",
    seed: int = 0,
    temperature: Temperature = 1.0,
) -> Divergence:
    """Estimate the KL divergence of a model from a base model on its own samples (the unbiased estimator k1).

    Args:
        model: p, which is sampled.
        base: q.
        size: number of crystals.
        space_groups: distribution of their space groups, on which both models are conditioned.
        seed: of the crystals.
        temperature: of both models.
    """
    crystals = model.sample(space_groups, size, seed=seed, temperature=temperature)
    return kl_divergence_on(crystals, model, base, temperature)


@torch.inference_mode()
def kl_divergence_on(
    crystals: CrystalBatch, model: CrystalFormer, base: CrystalFormer, temperature: Temperature = 1.0
) -> Divergence:
    """Estimate the KL divergence of a model from a base model on samples of the model.

    Args:
        crystals: B samples of p.
        model: p.
        base: q.
        temperature: of both models, at which the crystals were sampled.
    """
    size = len(crystals)
    ours, theirs = (of.log_prob(crystals, temperature=temperature) for of in (model, base))
    apart = {name: (getattr(ours, name) - getattr(theirs, name)).double().cpu().numpy() for name in LogProb._fields}
    total = apart.pop("total")
    error = float(total.std(ddof=1) / np.sqrt(size)) if size > 1 else float("nan")
    return Divergence(float(total.mean()), error, {name: float(values.mean()) for name, values in apart.items()})
