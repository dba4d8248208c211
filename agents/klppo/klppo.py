"""KLPPO: proximal policy optimisation of whole crystals, held close to a reference policy by their KL divergence."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import update_learning_rate
from torch import Tensor

from agents.crystalformer.likelihood import (
    N_DECISIONS,
    Likelihood,
    LogProb,
    log_prob,
    score,
    score_decisions,
)
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import sample_crystals
from agents.klppo.base_algorithm import CrystalAlgorithm
from agents.klppo.config import KLPPOConfig, Preset
from agents.klppo.env_adapter import n_decisions
from agents.klppo.losses import baselines, k3, published_surrogate, surrogate
from agents.klppo.replay import ReplayLosses
from agents.klppo.rollout import Rollout
from agents.klppo.selection import select, some_with_free_coordinates
from agents.klppo.weights import decision_weights, old_log_prob, weighted
from agents.training.micro_batches import micro_batches
from agents.training.optimiser import optimiser_step
from agents.training.replay_buffer import ReplayBuffer
from agents.training.scored_samples import relaxed_by
from agents.training.transitions import Transitions
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult

_TOKENS, _TOKENS_CUDA = 2_000, 200_000  # of a micro-batch, by default


class KLPPO(CrystalAlgorithm):
    """Reinforcement fine-tuning of a base model: the paper's algorithm (arXiv:2504.02367, Eq. 1, S1 to S3).

    It maximises E[r(x)] - tau KL(p || p_ref) over crystals x of the policy p, where the reference policy p_ref is the
    base model. The best p is p_ref exp(r / tau) / Z. An iteration samples ``batch_size`` whole crystals from the
    policy, without stepping the environment, and scores all of them at once with the environment's reward. With the
    loss "ppo" it takes ``n_epochs`` steps of gradient ascent on the clipped surrogate of these crystals; with "topr"
    and "balance" it adds them to a replay buffer of every crystal scored so far and takes steps on minibatches of
    that, in which crystals from elsewhere can be, too: see `add_to_buffer`. The policy follows the action mode of the
    environment: densities on the continuous one, as in the paper, and a categorical distribution over the bins on the
    discrete one. The space group is given, never scored.

    The surface is that of every stable-baselines3 algorithm. A time step is a decision of the environment; callbacks
    are called once an iteration. With ``predict`` the agent acts step by step.

    Args:
        policy: ``"CrystalFormerPolicy"``; ``policy_kwargs`` name the base model.
        env: ``CrystalGen-v0`` with any reward: a Gymnasium environment, its vector form, or `CrystalVecEnv`.
        preset: defaults of the settings, ``"paper"`` or ``"best"``: see `agents.klppo.config.PRESETS`.
        policy_kwargs: ``{"model": ...}``, the base model: a name or a path (``"mp20"``), or a model.
        stats_window_size: crystals that ``rollout/ep_rew_mean`` averages over.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints a table an iteration.
        seed: of everything random here; no global generator is touched.
        device: such as ``"cuda"``; by default a GPU where there is one.
        settings: the settings of the algorithm, such as ``tau``: see `agents.klppo.config.KLPPOConfig`. Each is an
            attribute of the agent, too.

    Attributes:
        reference: the frozen reference policy. It is saved and loaded with the agent; resuming never replaces it.
        iteration: iterations so far.

    Raises:
        ValueError: naming an argument that is out of range, or what is wrong with the environment.

    Example:
        >>> import gymnasium as gym, crystal_env
        >>> from agents import KLPPO, CrystalFormerConfig
        >>> env = gym.make_vec("CrystalGen-v0", action_mode="continuous")
        >>> sizes = CrystalFormerConfig(n_layers=1, n_heads=1, key_size=8, model_size=8, embed_size=8)
        >>> agent = KLPPO("CrystalFormerPolicy", env, batch_size=8, seed=0, policy_kwargs={"model": sizes})
        >>> agent.learn(n_iterations=2).policy.model.sample("mp20", 3, seed=0)
        <CrystalBatch of 3 crystals>
    """

    replay_losses: ClassVar[type[ReplayLosses]] = ReplayLosses

    def __init__(
        self,
        policy: str | type[BasePolicy] = "CrystalFormerPolicy",
        env: GymEnv | VectorEnv[Any, Any, Any] | str | None = None,
        preset: Preset = "paper",
        *,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 1000,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(
            KLPPOConfig.from_preset(preset, **settings),
            _init_setup_model,
            policy=policy,
            env=env,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
        )

    def collect_rollouts(self, callback: BaseCallback) -> bool:
        """Sample and score the crystals of an iteration; return False if a callback wants to stop."""
        callback.on_rollout_start()
        config, adapter = self.config, self.adapter
        assert adapter is not None
        clock, distribution = [time.perf_counter()], adapter.distribution(config.temperature)
        size = config.batch_size if self.iteration else max(config.batch_size, config.learning_starts)
        streams, parallel = RandomStreams(self.rng), config.sample_batch_size or self.model.default_batch_size()
        groups = adapter.grammar.sample_groups(math.ceil(config.oversampling * size), streams.for_space_groups())
        sampled, by_policy = sample_crystals(self.model, groups, distribution, streams, parallel, scored=True)
        assert by_policy is not None
        rows, rejected = select(sampled, size, config.filters, self.buffer.keys())
        crystals, is_relaxed = self._relaxed(config, sampled[rows])
        clock.append(time.perf_counter())
        result = adapter.score(crystals)
        clock.append(time.perf_counter())
        rollout = self._rollout(config, crystals, by_policy, rows, result, is_relaxed)
        without_call = {
            name: self._rollout(config, sampled[others], by_policy, others, adapter.rejected(len(others), name))
            for name, others in rejected.items()
        }
        clock.append(time.perf_counter())
        episodes = adapter.record(crystals, result.total, (time.time_ns() - self.start_time) / 1e9)
        self._pending = replace(
            rollout,
            infos=[{**result.info(row), "crystal": c, "episode": episodes[row]} for row, c in enumerate(crystals)],
            seconds=dict(zip(("sampling", "reward", "scoring"), np.diff(clock).tolist(), strict=True)),
            settings=config.of_rollouts(),
            rejected=without_call,
        )
        self.num_timesteps += int(n_decisions(sampled).sum())
        self._episode_num += len(crystals)
        self._update_info_buffer(self._pending.infos, np.ones(len(crystals), bool))
        callback.update_locals({**locals(), "rollout": self._pending})
        if not callback.on_step():
            return False
        callback.on_rollout_end()
        return True

    def _rollout(
        self,
        config: KLPPOConfig,
        crystals: CrystalBatch,
        by_policy: LogProb,
        rows: NDArray[np.int64],
        result: RewardResult,
        is_relaxed: NDArray[np.bool_] | None = None,
    ) -> Rollout:
        """Return scored crystals for an update.

        Args:
            config: the settings.
            crystals: B crystals.
            by_policy: log-likelihoods of all that were sampled.
            rows: (B,) which of these the crystals are.
            result: their scores.
            is_relaxed: (B,) whether a crystal was changed since; by default none was.
        """
        assert self.adapter is not None
        likelihood, distribution = _likelihood(config), self.adapter.distribution(config.temperature)
        now = LogProb(*(part[torch.from_numpy(rows).to(part.device)] for part in by_policy))
        with torch.inference_mode():
            if likelihood == "paper":
                now = log_prob(self.model, crystals, distribution, likelihood)
            elif is_relaxed is not None and is_relaxed.any():
                at = torch.from_numpy(np.flatnonzero(is_relaxed)).to(now.total.device)
                changed = log_prob(self.model, crystals[is_relaxed], distribution)
                now = LogProb(*(old.index_copy(0, at, new) for old, new in zip(now, changed, strict=True)))
            by_reference = log_prob(self.reference, crystals, distribution, likelihood)
            decisions = self._decisions(config, crystals) if config.ratio == "token" else None
        rewards = _clipped(config, result.total)
        return Rollout(crystals, result, rewards, _arrays(now), _arrays(by_reference), decisions, is_relaxed=is_relaxed)

    def _relaxed(self, config: KLPPOConfig, crystals: CrystalBatch) -> tuple[CrystalBatch, NDArray[np.bool_] | None]:
        """Relax some of B crystals; return all, and whether each (B,) was: not if the policy could not sample it."""
        assert self.adapter is not None
        if not config.relax_fraction:
            return crystals, None
        is_relaxed = np.zeros(len(crystals), bool)
        rows = some_with_free_coordinates(crystals, config.relax_fraction, self.rng)
        if not len(rows):
            return crystals, is_relaxed
        relaxed, reasons = relaxed_by(config.relaxation(), crystals[rows])
        with torch.inference_mode():
            likely = log_prob(self.model, relaxed, self.adapter.distribution(config.temperature)).total.cpu().numpy()
        is_relaxed[rows] = np.isfinite(likely) & np.array([reason is None for reason in reasons], bool)
        source = np.arange(len(crystals))
        source[rows] = len(crystals) + np.arange(len(rows))
        source[~is_relaxed] = np.flatnonzero(~is_relaxed)
        return CrystalBatch.concatenate([crystals, relaxed])[source], is_relaxed

    def add_to_buffer(self, crystals: CrystalBatch, result: RewardResult | None = None) -> int:
        """Add crystals that the policy has not sampled to the replay buffer; return how many were added.

        Their log-likelihoods "at sampling" are those by the policy now. A crystal that the policy cannot sample, or
        whose reward is not finite, is left out.

        Args:
            crystals: B crystals, such as those of a search or of a file (`ReplayBuffer.load`).
            result: their rewards, by default those of the environment's reward, which is then called.

        Raises:
            ValueError: if there is no environment, the loss does not learn from the buffer, or the numbers of crystals
                and rewards differ.
        """
        config, adapter = self.config, self.adapter
        if adapter is None or config.loss == "ppo":
            raise InputError(
                f"add_to_buffer needs an environment and loss 'topr' or 'balance', loss is {config.loss!r}"
            )
        result = adapter.score(crystals) if result is None else result
        if len(result.total) != len(crystals):
            raise InputError(f"result must be of {len(crystals)} crystals, got {len(result.total)}")
        self._prepare_buffer(config)
        return self.buffer.add(self._foreign(config, crystals, result, np.full(len(crystals), self.iteration)))

    def _foreign(
        self, config: KLPPOConfig, crystals: CrystalBatch, result: RewardResult, iteration: NDArray[np.int64]
    ) -> Transitions:
        """Return crystals (B,) for the replay buffer, scored by the policy now."""
        assert self.adapter is not None
        by_model = []
        with torch.inference_mode():
            for model in (self.model, self.reference):
                scored = log_prob(model, crystals, self.adapter.distribution(config.temperature))
                by_model.append(torch.stack(scored[1:], dim=1).double().cpu().numpy())
        rewards, are_sampled = _clipped(config, result.total), np.zeros(len(crystals), bool)
        return Transitions(crystals, rewards, result, by_model[0], by_model[1], iteration, are_sampled)

    def _prepare_buffer(self, config: KLPPOConfig) -> None:
        """Set the size of the buffer; score its crystals again if settings that its numbers depend on have changed."""
        self.buffer.size, old, settings = config.buffer_size, self.buffer.data, config.of_rollouts()
        if len(old) and self.buffer.settings != settings:
            self.buffer = ReplayBuffer(config.buffer_size)
            self.buffer.add(self._foreign(config, old.crystals, old.result, old.iteration))
        self.buffer.settings = settings

    def train(self) -> None:
        """Update the policy with the crystals of the iteration."""
        config, rollout, started = self.config, self._pending, time.perf_counter()
        assert rollout is not None
        batch = rollout.take(rollout.usable())
        if config.loss != "ppo":
            self._learn_from_buffer(config, rollout)
        elif len(batch):
            self._learn_from_batch(config, batch)
        self.iteration += 1
        self._pending = None
        self._record_rollout(rollout, time.perf_counter() - started)

    def _learn_from_batch(self, config: KLPPOConfig, batch: Rollout) -> None:
        """Take the steps of the loss "ppo" on a fresh batch."""
        kl = batch.kl_divergence()
        returns = batch.rewards if config.paper_update else batch.rewards - config.tau * kl  # Eq. S2
        baseline, self.average = baselines(config.baseline, returns, batch.crystals.G, self.average, config.ema_decay)
        advantages = self._tensor(returns - baseline)
        old = self._tensor(old_log_prob(config, batch))
        skipped = 0
        for epoch in range(config.n_epochs):
            log_ratio = torch.zeros_like(old)  # before the step; the losses fill it in
            skipped += not self._step(config, self._losses(config, batch, advantages, old, log_ratio))
            if epoch == 0:
                self.logger.record("train/first_ratio_error", float(log_ratio.abs().max()))
        self._record_update(config, advantages, log_ratio)
        self.logger.record("train/skipped_steps", skipped)
        self.logger.record("train/baseline", float(baseline.mean()))
        self.logger.record("train/objective", float((batch.rewards - config.tau * kl).mean()))

    def _learn_from_buffer(self, config: KLPPOConfig, batch: Rollout) -> None:
        """Add a batch to the replay buffer and take the steps of an off-policy loss on minibatches of it."""
        assert self.adapter is not None
        self._prepare_buffer(config)
        for part in (*batch.rejected.values(), batch):
            self.buffer.add(part.transitions(self.iteration))
        self.logger.record("replay/size", len(self.buffer))
        if not len(self.buffer):
            return
        losses = self.replay_losses(
            self.model, self.reference, self.adapter.distribution(config.temperature), config, self.buffer,
            self.offsets, self.rng, self._max_tokens(config),
        )  # fmt: skip
        steps = round(config.replay_ratio * len(batch) / config.minibatch_size)
        self.logger.record("train/skipped_steps", sum(not self._step(config, losses()) for _ in range(steps)))
        for name, value in losses.statistics.items():
            self.logger.record(f"replay/{name}", float(value))

    def _step(self, config: KLPPOConfig, losses: Iterable[Tensor]) -> bool:
        """Take an optimiser step down the sum of losses; return whether its gradient was finite."""
        rate = config.learning_rate_at(self._n_updates, self._current_progress_remaining)
        update_learning_rate(self.policy.optimizer, rate)
        norm = optimiser_step(self.model, self.policy.optimizer, losses, config.max_grad_norm)
        self._n_updates += math.isfinite(norm)
        numbers = {"learning_rate": rate, "grad_norm": norm, "n_updates": self._n_updates}
        for name, value in numbers.items():
            self.logger.record(f"train/{name}", float(value))
        return math.isfinite(norm)

    def _losses(
        self, config: KLPPOConfig, batch: Rollout, advantages: Tensor, old: Tensor, log_ratio: Tensor
    ) -> Iterator[Tensor]:
        """Yield the losses of micro-batches, minus the mean surrogate of Eq. S1.

        Args:
            config: the settings.
            batch: B crystals, all numbers finite.
            advantages: (B,) of the crystals.
            old: (B,) ln p_old of the crystals, or (B, 108) of their decisions.
            log_ratio: of the same shape, filled with ln p / p_old.
        """
        assert self.adapter is not None
        distribution = self.adapter.distribution(config.temperature)
        reference = self._tensor(batch.reference_log_prob["total"])
        for part in micro_batches(batch.crystals.n_sites(), self._max_tokens(config)):
            at = torch.from_numpy(part).to(self.device)
            if config.ratio == "token":
                decisions = score_decisions(self.model, batch.crystals[part], distribution).flattened()
                now = decisions * torch.from_numpy(decision_weights(config)).to(decisions)
            else:
                parts = score(self.model, batch.crystals[part], distribution, _likelihood(config))
                now = weighted(config, parts._asdict())
            log_ratio[at] = now.detach() - old[at]
            if config.paper_update:
                gain = published_surrogate(now, old[at], reference[at], advantages[at], config.clip_range, config.tau)
            else:
                gain = surrogate(now - old[at], advantages[at], config.clip_range)
            yield -gain.sum() / len(batch)

    def _record_update(self, config: KLPPOConfig, advantages: Tensor, log_ratio: Tensor) -> None:
        """Log numbers of the last step, all before it."""
        ratio = log_ratio.exp()
        self.logger.record("train/loss", -float(surrogate(log_ratio, advantages, config.clip_range).mean()))
        self.logger.record("train/clip_fraction", float(((ratio - 1).abs() > config.clip_range).double().mean()))
        self.logger.record("train/approx_kl", float(k3(-log_ratio.double().cpu().numpy()).mean()))
        self.logger.record("train/advantage_std", float(advantages.std(correction=0)))

    def _record_rollout(self, rollout: Rollout, update_seconds: float) -> None:
        for name, value in rollout.statistics().items():
            self.logger.record(name, value)
        for reason, count in list(rollout.failures().items())[:8]:
            self.logger.record(f"failures/{reason[:60]}", count)
        seconds = {**rollout.seconds, "update": update_seconds}
        for name, value in seconds.items():
            self.logger.record(f"time/{name}_seconds", value)
        self.logger.record("time/crystals_per_second", len(rollout) / sum(seconds.values()))

    def _max_tokens(self, config: KLPPOConfig) -> int:
        return config.max_tokens or (_TOKENS if self.device.type == "cpu" else _TOKENS_CUDA)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device, self.model.real_dtype)

    def _decisions(self, config: KLPPOConfig, crystals: CrystalBatch) -> NDArray[np.float64]:
        """Return the log-likelihoods of all decisions (B, 108) of crystals."""
        assert self.adapter is not None
        rows = np.zeros((len(crystals), N_DECISIONS))
        for part in micro_batches(crystals.n_sites(), self._max_tokens(config)):
            decisions = score_decisions(self.model, crystals[part], self.adapter.distribution(config.temperature))
            rows[part] = decisions.flattened().double().cpu()
        return rows


def _clipped(config: KLPPOConfig, rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    return rewards if config.reward_range is None else np.clip(rewards, *config.reward_range)


def _arrays(log_prob: LogProb) -> dict[str, NDArray[np.float64]]:
    return {name: value.double().cpu().numpy() for name, value in log_prob._asdict().items()}


def _likelihood(config: KLPPOConfig) -> Likelihood:
    """Return how crystals are scored: exactly as they are sampled, or as the paper's code does."""
    return "paper" if config.paper_update else "exact"
