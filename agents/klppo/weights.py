"""The log ratio's weights of letters, elements, coordinates and lattice, for whole crystals and for each decision."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.crystalformer.likelihood import DecisionLogProb
from agents.klppo.config import KLPPOConfig
from agents.klppo.rollout import Rollout
from crystal_env.wyckoff import N_SLOTS


def weighted(config: KLPPOConfig, parts: Mapping[str, Any]) -> Any:
    """Return the weighted sum (B,) of the parts of log-likelihoods."""
    return sum(weight * parts[name] for name, weight in config.weights().items() if weight)


def old_log_prob(config: KLPPOConfig, batch: Rollout) -> NDArray[np.float64]:
    """Return the weighted ln p_old of Eq. S1: (B,) of crystals, or (B, 108) of their decisions."""
    if batch.decisions is not None:
        return batch.decisions * decision_weights(config)
    old: NDArray[np.float64] = weighted(config, batch.log_prob)
    return old


def decision_weights(config: KLPPOConfig) -> NDArray[np.float64]:
    """Return the weight of every decision (108,)."""
    ones = DecisionLogProb(*(torch.ones(1, *shape) for shape in ((N_SLOTS + 1,), (N_SLOTS + 1,), (N_SLOTS, 3), ())))
    weights = config.weights()
    by_decision = DecisionLogProb(*(part * weights[name] for name, part in ones._asdict().items()))
    return by_decision.flattened()[0].double().numpy()
