"""REINFORCE with a leave-one-out baseline: no ratio, no clipping, no second step on a batch."""

from dataclasses import dataclass

from agents.objective import Baseline
from benchmarks.baselines.klppo_best import KLPPOBest


@dataclass(frozen=True)
class LeaveOneOutREINFORCE(KLPPOBest):
    """`KLPPOBest` but for the baseline: the mean reward of all other crystals of the batch (RLOO, arXiv:2402.14740).

    With one step a batch the ratio is 1 and nothing is clipped, so this is REINFORCE, with the divergence from the base
    model as part of the reward.
    """

    baseline: Baseline = "leave_one_out"
