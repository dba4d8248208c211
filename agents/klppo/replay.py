"""Losses on minibatches of the replay buffer: tapered off-policy REINFORCE, and trajectory balance."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.crystalformer.distribution import Distribution
from agents.crystalformer.likelihood import log_prob, score
from agents.crystalformer.network import Network
from agents.klppo.config import KLPPOConfig
from agents.klppo.losses import balance_loss, group_means, tapered_surrogate
from agents.training.micro_batches import micro_batches
from agents.training.replay_buffer import ReplayBuffer
from agents.training.transitions import PARTS, Transitions
from crystal_env.equivalents import equivalents

_PRIOR = 50  # crystals that the running offset of a group counts as
_MAX_ADVANTAGE = 5.0  # standard deviations of the rewards
_ROUNDING = 1e-12  # of the largest reward: differences from the group's mean that are none


class ReplayLosses:
    """The losses of an iteration's minibatches.

    The return of a crystal is R = r - tau ln p / p_ref with the current policy p (Eq. S2), of the parts that have a
    weight in the log ratio. Its baseline is the mean reward of its space group in the buffer, plus the group's running
    mean of what R differs from that by; at the optimum of "balance" it is tau ln Z. Returns are in units of the
    standard deviation of r minus its baseline over the buffer.

    Args:
        model: the policy.
        reference: the reference policy.
        distribution: what both are sampled from, and scored with.
        config: the settings.
        buffer: not empty.
        offsets: (231,) running offsets by space group, which are updated.
        rng: draws minibatches and equivalent settings.
        max_tokens: of a micro-batch.

    Attributes:
        statistics: name -> mean over the minibatch drawn last.
    """

    def __init__(
        self,
        model: Network,
        reference: Network,
        distribution: Distribution,
        config: KLPPOConfig,
        buffer: ReplayBuffer,
        offsets: NDArray[np.float64],
        rng: np.random.Generator,
        max_tokens: int,
    ) -> None:
        self.model, self.reference, self.distribution, self.config = model, reference, distribution, config
        self.buffer, self.offsets, self.rng, self.max_tokens = buffer, offsets, rng, max_tokens
        self.probabilities = buffer.weights(config.draw, config.recency)
        data = buffer.data
        self.means = group_means(data.rewards, data.crystals.G, self.probabilities * len(data))
        self.gains = data.rewards - self.means
        self.gains[np.abs(self.gains) <= _ROUNDING * np.abs(data.rewards).max()] = 0.0
        self.scale = float(np.average(self.gains**2, weights=self.probabilities) ** 0.5) or 1.0
        self.weights = {row: config.weights()[name] for row, name in enumerate(PARTS) if config.weights()[name]}
        self.statistics: dict[str, float] = {}

    def __call__(self) -> Iterator[Tensor]:
        """Yield the losses of the micro-batches of a minibatch."""
        config, size = self.config, min(self.config.minibatch_size, len(self.buffer))
        rows = self.rng.choice(len(self.buffer), size, p=self.probabilities)
        batch, gains = self.buffer.data.take(rows), self.gains[rows]
        is_good = (gains > 0) & batch.result.success()
        moves = np.flatnonzero((gains > 0) & (self.rng.random(size) < config.augmentation))
        if len(moves):
            batch = self._in_equivalent_settings(batch, moves)
        reference, old = self._weighted(batch.reference_log_prob), self._weighted(batch.log_prob)
        baseline, log_ratio = gains - self.offsets[batch.crystals.G], np.zeros(size)
        for part in micro_batches(batch.crystals.n_sites(), self.max_tokens):
            scored = score(self.model, batch.crystals[part], self.distribution)
            now = torch.stack(scored[1:], dim=1)
            log_p = self._weighted(now)
            kl = log_p - self._tensor(reference[part])
            log_ratio[part] = kl.detach().double().cpu()
            returns = (self._tensor(baseline[part]) - config.tau * kl) / self.scale
            rewards = self._tensor(batch.rewards[part]) / self.scale
            gain = self.gain(log_p, self._tensor(old[part]), returns, rewards)
            likelihood = now[:, 2:].sum(1) * self._tensor(is_good[part])
            yield -(gain + config.likelihood_coef * likelihood).sum() / size
        returns = baseline - config.tau * log_ratio
        self._update_offsets(batch.crystals.G, returns)
        self.statistics = {
            "return_mean": returns.mean(), "return_std": returns.std(), "replayed_kl": log_ratio.mean(),
            "replayed_reward": batch.rewards.mean(), "imitated": is_good.mean(), "moved": np.isnan(old).mean(),
            "age": (self.buffer.data.iteration.max() - batch.iteration).mean(),
        }  # fmt: skip

    def gain(self, log_prob: Tensor, old: Tensor, returns: Tensor, rewards: Tensor) -> Tensor:
        """Return what is maximised (B,), by the loss of the settings.

        Args:
            log_prob: (B,) weighted ln p of the crystals, with gradient.
            old: (B,) the same at sampling, NaN where it is not known.
            returns: (B,) R minus its baseline, with gradient, in standard deviations.
            rewards: (B,) r in the same unit.
        """
        if self.config.loss == "balance":
            return -self.scale * balance_loss(returns, self.config.tau)
        advantages = returns.detach().clamp(-_MAX_ADVANTAGE, _MAX_ADVANTAGE)
        old = torch.where(old.isnan(), log_prob.detach(), old)
        return tapered_surrogate(log_prob, old, advantages, self.config.clip_range, self.config.negatives)

    def _in_equivalent_settings(self, batch: Transitions, rows: NDArray[np.int64]) -> Transitions:
        """Return a batch in which some crystals (n,) are replaced by equivalent settings of themselves.

        One that the constraints of the environment do not allow stays as it is. Nobody has sampled the others: their
        log-likelihoods at sampling are NaN.
        """
        moved = equivalents(batch.crystals[rows], self.rng)
        with torch.inference_mode():
            parts = log_prob(self.reference, moved, self.distribution)[1:]
        reference = torch.stack(parts, dim=1).double().cpu().numpy()
        is_allowed = np.isfinite(reference).all(1)
        rows, source = rows[is_allowed], np.arange(len(batch))
        source[rows] = len(batch) + np.flatnonzero(is_allowed)
        crystals = type(moved).concatenate([batch.crystals, moved])[source]
        reference = np.concatenate([batch.reference_log_prob, reference])[source]
        sampled = np.concatenate([batch.log_prob, np.full((len(moved), len(PARTS)), np.nan)])[source]
        return replace(batch, crystals=crystals, log_prob=sampled, reference_log_prob=reference)

    def _weighted(self, parts: Any) -> Any:
        """Return the weighted sums (B,) of log-likelihoods by part (B, 4)."""
        return sum(weight * parts[:, column] for column, weight in self.weights.items())

    def _update_offsets(self, groups: NDArray[np.int64], returns: NDArray[np.float64]) -> None:
        """Move the offsets of the groups (B,) of a minibatch towards the means of its returns (B,)."""
        size = len(self.offsets)
        count = np.bincount(groups, minlength=size)
        self.offsets += np.bincount(groups, returns, minlength=size) / (_PRIOR + count)

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float64)).to(self.model.device, self.model.real_dtype)
