"""A batch of crystals that a policy has drawn, with all that an update needs to know of them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult
from crystal_env.wyckoff import LETTERS


@dataclass(frozen=True)
class Rollout:
    """B crystals of an iteration.

    Attributes:
        crystals: B crystals.
        result: what the environment's reward says of them.
        rewards (B,): what is maximised: the total reward within its bounds.
        log_prob: name -> (B,) log-likelihoods by the policy that drew them, ``total`` and by part, in nats.
        base (B,): log-likelihood by the base model.
        decisions (B, 108): that of every decision by the policy that drew them, where ratios are those of decisions.
        infos: what stable-baselines3's callbacks get to see.
        seconds: name -> time that drawing, rewards and scoring took.
    """

    crystals: CrystalBatch
    result: RewardResult
    rewards: NDArray[np.float64]
    log_prob: dict[str, NDArray[np.float64]]
    base: NDArray[np.float64]
    decisions: NDArray[np.float64] | None = None
    infos: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def divergence(self) -> NDArray[np.float64]:
        """Return ln p / p_base (B,)."""
        return self.log_prob["total"] - self.base

    def usable(self) -> NDArray[np.int64]:
        """Return the rows whose numbers are all finite: others teach nothing."""
        numbers = np.stack([self.rewards, self.base, *self.log_prob.values()])
        return np.flatnonzero(np.isfinite(numbers).all(0))

    def statistics(self) -> dict[str, float]:
        """Return what is worth logging: rewards and their terms, divergence, entropies, variety."""
        rows, result = self.usable(), self.result
        d = self.divergence()[rows]
        logged = {"rollout/skipped": float(len(self.rewards) - len(rows))}
        if len(rows):
            logged |= {
                "rollout/reward_mean": float(self.rewards[rows].mean()),
                "rollout/reward_std": float(self.rewards[rows].std()),
                "rollout/kl": float(d.mean()),
                "rollout/kl_k3": float((np.expm1(-d.clip(-20, 20)) + d).mean()),
                **{f"entropy/{name}": float(-values[rows].mean()) for name, values in self.log_prob.items()},
            }
        failed = ~result.scored
        logged |= {f"terms/{name}": float(values.mean()) for name, values in result.terms.items()}
        for name, values in result.terms.items():
            if not failed.all():
                logged[f"terms_of_scored/{name}"] = float(values[~failed].mean())
        return logged | {"rollout/failed_share": float(failed.mean())} | variety(self.crystals, result.success())

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

    Two crystals count as the same where group, letters and elements agree up to the normaliser (`Crystal.key`);
    a prototype is a key without its elements.
    """
    size = max(len(crystals), 1)
    keys = [crystal.key() for crystal in crystals]
    prototypes = {"-".join(part for part in key.split("-") if part.isdigit() or part in LETTERS) for key in keys}
    formulas = [crystal.formula for crystal in crystals]
    stable = {keys[row] for row in np.flatnonzero(success)}
    most = max((formulas.count(formula) for formula in set(formulas)), default=0)
    return {
        "rollout/valid_share": float((crystals.min_distance(0.5) >= 0.5).mean()),
        "rollout/success_share": float(success.mean()),
        "rollout/unique_share": len(set(keys)) / size,
        "rollout/unique_success_share": len(stable) / size,
        "variety/formulas": float(len(set(formulas))),
        "variety/prototypes": float(len(prototypes)),
        "variety/largest_formula_share": most / size,
        "variety/elements": float(len(np.unique(crystals.A[crystals.A > 0]))),
        "variety/space_groups": float(len(np.unique(crystals.G))),
    }
