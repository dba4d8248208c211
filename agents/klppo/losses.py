"""What KLPPO maximises, as functions of numbers: baselines, the clipped surrogate, an estimate of the KL divergence.

References by short name: *the paper* is CrystalFormer-RL (arXiv:2504.02367), PPO Schulman et al. (arXiv:1707.06347),
k3 Schulman, "Approximating KL divergence" (2020), TOPR Le Roux et al. (arXiv:2503.14286), trajectory balance Malkin et
al. (arXiv:2201.13259), GRPO Shao et al. (arXiv:2402.03300), RLOO Ahmadian et al. (arXiv:2402.14740).
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Baseline = Literal["ema", "batch", "leave_one_out", "group"]
Loss = Literal["ppo", "topr", "balance"]

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
        return group_means(returns, groups, np.ones(len(returns))), average
    return np.full(len(returns), mean), average


def group_means(
    returns: NDArray[np.float64], groups: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean returns (B,) of the crystals of each one's space group, drawn towards the mean of all.

    Args:
        returns: (B,) of B crystals, B > 0.
        groups: (B,) their space groups.
        weights: (B,) of the crystals in the means, of mean 1; five crystals of average return are added to each group.
    """
    mean = float(np.average(returns, weights=weights))
    _, place = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(place, weights * returns), np.bincount(place, weights)
    means: NDArray[np.float64] = ((sums + _PRIOR * mean) / (sizes + _PRIOR))[place]
    return means


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


def tapered_surrogate(
    log_prob: Tensor, old: Tensor, advantages: Tensor, clip_range: float, negatives: float = 1.0
) -> Tensor:
    """Return the surrogates (B,) of TOPR, to be maximised: w A ln p (Le Roux et al., arXiv:2503.14286).

    The importance weight w, which has no gradient, is p / p_old, at least 1 for positive advantages, so that good
    crystals are imitated whoever sampled them, and at most 1 for negative ones, so that the likelihood of bad crystals
    is not lowered without end. The paper's weight of positive ones is 1; here it may grow to 1 + ``clip_range``.

    Args:
        log_prob: (B,) ln p of crystals, with gradient.
        old: (B,) ln p by the policy that sampled them.
        advantages: (B,) of the crystals.
        clip_range: what the weight of a positive advantage may exceed 1 by.
        negatives: factor of negative advantages; 0 leaves them out.
    """
    ratio = (log_prob.detach() - old).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
    weight = torch.where(advantages > 0, ratio.clamp(1, 1 + clip_range), negatives * ratio.clamp(max=1))
    return weight * advantages * log_prob


def balance_loss(residuals: Tensor, tau: float) -> Tensor:
    """Return the losses (B,) of trajectory balance, Huber's of residuals (B,) over tau, to be minimised.

    A residual is r - tau ln p / p_ref - tau ln Z, with gradient through ln p, and all are 0 where p is
    p_ref exp(r / tau) / Z, whatever distribution the crystals come from: trajectory balance with the log partition
    function from the batch, VarGrad (Richter et al., arXiv:2010.10436; TBA, arXiv:2503.18929). The gradient of a
    small residual is minus it times that of ln p, as that of REINFORCE with the KL divergence in the reward.
    """
    return torch.nn.functional.huber_loss(residuals, torch.zeros_like(residuals), reduction="none") / tau


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
