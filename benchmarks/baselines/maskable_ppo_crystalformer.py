"""MaskablePPO with the base model as its policy: reinforcement decision by decision, with a standard library."""

from dataclasses import dataclass

import torch
from sb3_contrib import MaskablePPO
from torch import Tensor

from agents import CrystalFormerPolicy
from agents.training.micro_batches import micro_batches
from benchmarks.baselines.masked_ppo import learn
from benchmarks.harness.session import Session

_TOKENS = 100_000  # per micro-batch: larger than any batch


@dataclass(frozen=True)
class MaskablePPOCrystalFormer:
    """sb3-contrib's MaskablePPO with `agents.CrystalFormerPolicy`, initialised with the base model.

    Every decision is a training example of its own, with a forward pass over all decisions before it: on a CPU this
    takes several times as long as `KLPPOPaper`, which passes over a crystal once.

    Attributes:
        model: Base model: ``"mp20"``, which ships with the package, or a path.
        bins: Numeric bins of the environment.
        num_envs: Episodes in parallel.
        n_steps: Decisions of each environment between updates.
        batch_size: Decisions in an optimiser step.
        n_epochs: Passes over the decisions of an update.
        learning_rate: Adam learning rate.
        gamma: Discount factor.
        gae_lambda: Lambda of generalised advantage estimation.
        device: Device such as ``"cuda"``; ``"auto"`` takes a GPU if there is one.
    """

    model: str = "mp20"
    bins: int = 240
    num_envs: int = 64
    n_steps: int = 32
    batch_size: int = 512
    n_epochs: int = 1
    learning_rate: float = 1e-4
    gamma: float = 1.0
    gae_lambda: float = 1.0
    device: str = "auto"

    def train(self, session: Session) -> MaskablePPO:
        """Spend the budget and return the trained agent."""
        return learn(
            session,
            self.bins,
            self.num_envs,
            lambda env: MaskablePPO(
                MicroBatchedPolicy,
                env,
                n_steps=self.n_steps,
                batch_size=self.batch_size,
                n_epochs=self.n_epochs,
                learning_rate=self.learning_rate,
                gamma=self.gamma,
                gae_lambda=self.gae_lambda,
                policy_kwargs={"model": self.model},
                seed=session.seed,
                device=self.device,
            ),
        )


class MicroBatchedPolicy(CrystalFormerPolicy):
    """The policy with batches split into prefixes of similar length: the same numbers with less padding."""

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (N, 1), log probabilities (N,) of actions (N,), and entropies (N,)."""
        length = (obs[:, 2:] != 0).sum(1).cpu().numpy()
        parts = [torch.from_numpy(part).to(obs.device) for part in micro_batches(length // 3, _TOKENS)]
        masks = None if action_masks is None else torch.as_tensor(action_masks, device=obs.device).view(len(obs), -1)
        results = [
            super(MicroBatchedPolicy, self).evaluate_actions(
                obs[part], actions[part], None if masks is None else masks[part]
            )
            for part in parts
        ]
        back = torch.cat(parts).argsort()
        values, log_probs, entropies = (torch.cat(column)[back] for column in zip(*results, strict=True))
        return values, log_probs, entropies
