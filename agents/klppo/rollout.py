"""A batch of crystals that a policy has sampled, with all that an update needs to know of them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.klppo.losses import k3
from agents.training.transitions import PARTS, Transitions
from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult
from crystal_env.symmetry.canonical import prototype, wyckoff_template


@dataclass(frozen=True)
class Rollout:
    """B crystals of an iteration.

    Attributes:
        crystals: B crystals.
        result: their scores by the environment's reward.
        rewards (B,): what is maximised: the total reward, clipped to its range.
        log_prob: name -> (B,) log-likelihoods by the policy that sampled them, ``total`` and by part, in nats.
        reference_log_prob: name -> (B,) log-likelihoods by the reference policy, likewise.
        decisions (B, 108): log-likelihood of every decision, where ratios are those of decisions.
        infos: infos for the callbacks of stable-baselines3.
        seconds: name -> time of sampling, reward and scoring.
        settings: name -> settings that the numbers depend on.
        is_relaxed (B,): whether a crystal was relaxed before it was scored; its log-likelihoods are those by the policy
            that sampled what it was relaxed from. None if none was.
        rejected: crystals that were sampled and not scored, filter -> a rollout with the lowest reward.
    """

    crystals: CrystalBatch
    result: RewardResult
    rewards: NDArray[np.float64]
    log_prob: dict[str, NDArray[np.float64]]
    reference_log_prob: dict[str, NDArray[np.float64]]
    decisions: NDArray[np.float64] | None = None
    infos: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    is_relaxed: NDArray[np.bool_] | None = None
    rejected: "dict[str, Rollout]" = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    def kl_divergence(self) -> NDArray[np.float64]:
        """Return ln p / p_ref (B,), whose mean estimates the KL divergence from the reference policy."""
        return self.log_prob["total"] - self.reference_log_prob["total"]

    def usable(self) -> NDArray[np.int64]:
        """Return the rows whose numbers are all finite: the others are left out of the update."""
        numbers = np.stack([self.rewards, *self.reference_log_prob.values(), *self.log_prob.values()])
        return np.flatnonzero(np.isfinite(numbers).all(0))

    def take(self, rows: NDArray[np.int64]) -> "Rollout":
        """Return the rollout of the given rows (n,), without its infos."""
        return Rollout(
            self.crystals[rows],
            self.result.take(rows),
            self.rewards[rows],
            {name: values[rows] for name, values in self.log_prob.items()},
            {name: values[rows] for name, values in self.reference_log_prob.items()},
            None if self.decisions is None else self.decisions[rows],
            is_relaxed=None if self.is_relaxed is None else self.is_relaxed[rows],
        )

    def transitions(self, iteration: int) -> Transitions:
        """Return the crystals for the replay buffer, added in an iteration."""
        by_policy, by_reference = (
            np.column_stack([parts[name] for name in PARTS]) for parts in (self.log_prob, self.reference_log_prob)
        )
        iterations = np.full(len(self), iteration)
        are_sampled = np.ones(len(self), bool) if self.is_relaxed is None else ~self.is_relaxed
        return Transitions(self.crystals, self.rewards, self.result, by_policy, by_reference, iterations, are_sampled)

    def statistics(self) -> dict[str, float]:
        """Return what is logged: rewards and their terms, KL divergence, entropies, variety."""
        usable, scored = self.take(self.usable()), self.result.scored
        logged = {"rollout/skipped": float(len(self) - len(usable))}
        if len(usable):
            kl = usable.kl_divergence()
            logged |= {
                "rollout/reward_mean": float(usable.rewards.mean()),
                "rollout/reward_std": float(usable.rewards.std()),
                "rollout/kl": float(kl.mean()),
                "rollout/kl_k3": float(k3(kl).mean()),
                **{f"entropy/{name}": float(-values.mean()) for name, values in usable.log_prob.items()},
                **{
                    f"kl/{name}": float((usable.log_prob[name] - usable.reference_log_prob[name]).mean())
                    for name in PARTS
                },
            }
        if self.is_relaxed is not None:
            logged["rollout/relaxed"] = float(self.is_relaxed.sum())
        logged |= {f"rejected/{name}": float(len(rejected)) for name, rejected in self.rejected.items()}
        if not len(self):
            return logged
        logged |= {f"terms/{name}": float(values.mean()) for name, values in self.result.terms.items()}
        if scored.any():
            terms = self.result.terms.items()
            logged |= {f"terms_of_scored/{name}": float(values[scored].mean()) for name, values in terms}
        logged["rollout/failure_rate"] = float((~scored).mean())
        return logged | variety(self.crystals, self.result.success())

    def failures(self) -> dict[str, int]:
        """Return reason -> number of the crystals that could not be scored, numbers in the reasons left out."""
        counts: dict[str, int] = {}
        for failure in self.result.failures:
            if failure is not None:
                words = " ".join(word for word in failure.split() if not any(c.isdigit() for c in word))
                counts[words] = counts.get(words, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


def variety(crystals: CrystalBatch, success: NDArray[np.bool_]) -> dict[str, float]:
    """Return how valid, successful and different crystals (B,) are, of which some succeeded (B,).

    Two crystals count as the same where group, letters and elements agree up to the normaliser (`Crystal.key`).
    """
    size = max(len(crystals), 1)
    keys = [crystal.key() for crystal in crystals]
    formulas = [crystal.formula for crystal in crystals]
    largest = max((formulas.count(formula) for formula in set(formulas)), default=0)
    return {
        "rollout/valid_rate": float((crystals.min_distance(0.5) >= 0.5).mean()),
        "rollout/success_rate": float(success.mean()),
        "rollout/unique_rate": len(set(keys)) / size,
        "rollout/unique_success_rate": len({keys[row] for row in np.flatnonzero(success)}) / size,
        "variety/formulas": float(len(set(formulas))),
        "variety/templates": float(len({wyckoff_template(crystal) for crystal in crystals})),
        "variety/prototypes": float(len({prototype(crystal) for crystal in crystals})),
        "variety/largest_formula_fraction": largest / size,
        "variety/elements": float(len(np.unique(crystals.A[crystals.A > 0]))),
        "variety/space_groups": float(len(np.unique(crystals.G))),
    }
