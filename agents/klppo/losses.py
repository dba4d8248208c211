"""What KLPPO maximises, as functions of numbers: baselines, the clipped surrogate, an estimate of the KL divergence.

References by short name: *the paper* is CrystalFormer-RL (arXiv:2504.02367), PPO Schulman et al. (arXiv:1707.06347),
k3 Schulman, "Approximating KL divergence" (2020), GRPO Shao et al. (arXiv:2402.03300), RLOO Ahmadian et al.
(arXiv:2402.14740).
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Baseline = Literal["ema", "batch", "leave_one_out", "group"]

_PRIOR = 5  # crystals of average return that are added to every group
_MAX_LOG_RATIO = 20.0  # whose exponential is still taken: no infinity enters a gradient


def baselines(
    kind: Baseline, returns: NDArray[np.float64], groups: NDArray[np.int64], average: float | None, decay: float
) -> tuple[NDArray[np.float64], float]:
    """Return the baselines (B,) of returns (B,), and the updated moving average.

    Args:
        kind: ``"ema"``, the moving average of the batch means, this one included (the paper, Appendix C); ``"batch"``,
            the mean; ``"leave_one_out"``, the mean of all others (RLOO); ``"group"``, the mean of the crystals of the
            same space group (GRPO), together with five times the mean of all, since many groups are small.
        returns: of B crystals, B > 0.
        groups: (B,) their space groups.
        average: the moving average before this batch, None if it is the first.
        decay: fraction of the moving average that is kept.
    """
    mean = float(returns.mean())
    average = mean if average is None else decay * average + (1 - decay) * mean
    if kind == "ema":
        return np.full(len(returns), average), average
    if kind == "leave_one_out" and len(returns) > 1:
        return (returns.sum() - returns) / (len(returns) - 1), average
    if kind == "group":
        _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        means = (np.bincount(place, returns) + _PRIOR * mean) / (sizes + _PRIOR)
        return means[place], average
    return np.full(len(returns), mean), average


def surrogate(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """Return the clipped surrogates (B,), to be maximised: the paper's Eq. S1, PPO's Eq. 7.

    Args:
        log_ratio: (B,) ln p / p_old of whole crystals, or (B, T) of their decisions, whose surrogates add up.
        advantages: (B,) of the crystals.
        clip_range: distance from 1 at which ratios are clipped.
    """
    if log_ratio.dim() == 2:
        advantages = advantages[:, None]
    ratio = log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
    clipped = torch.minimum(ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages)
    return clipped.sum(1) if clipped.dim() == 2 else clipped


def published_surrogate(
    log_prob: Tensor, old: Tensor, reference: Tensor, advantages: Tensor, clip_range: float, tau: float
) -> Tensor:
    """Return the surrogates (B,) that the paper's published code maximises.

    Its advantages are those of the bare reward, and the KL divergence from the reference policy is subtracted from them
    inside the differentiated expression, where the paper says that it carries no gradient.

    Args:
        log_prob: (B,) ln p of the crystals, with gradient.
        old: (B,) ln p by the policy that sampled them.
        reference: (B,) ln p by the reference policy.
        advantages: (B,) reward minus baseline.
        clip_range: distance from 1 at which ratios are clipped.
        tau: coefficient of the KL divergence.
    """
    return surrogate(log_prob - old, advantages - tau * (log_prob - reference), clip_range)


def k3(log_ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(-d) - 1 + d (...) of d = ln p / q (...): never negative, and in the mean over p the KL divergence."""
    d: NDArray[np.float64] = np.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return np.expm1(-d) + d
