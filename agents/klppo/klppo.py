"""KLPPO: proximal policy optimisation of whole crystals, held close to a reference policy by their KL divergence."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import update_learning_rate
from torch import Tensor

from agents.crystalformer.likelihood import N_DECISIONS, DecisionLogProb, Likelihood, log_prob, score, score_decisions
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import sample_crystals
from agents.klppo.base_algorithm import CrystalAlgorithm
from agents.klppo.config import KLPPOConfig, Preset
from agents.klppo.env_adapter import n_decisions
from agents.klppo.losses import baselines, k3, published_surrogate, surrogate
from agents.klppo.rollout import Rollout
from agents.training.micro_batches import micro_batches
from agents.training.optimiser import optimiser_step
from crystal_env.crystal import CrystalBatch
from crystal_env.wyckoff import N_SLOTS

_TOKENS, _TOKENS_CUDA = 2_000, 200_000  # of a micro-batch, by default


class KLPPO(CrystalAlgorithm):
    """Reinforcement fine-tuning of a base model: the paper's algorithm (arXiv:2504.02367, Eq. 1, S1 to S3).

    It maximises E[r(x)] - tau KL(p || p_ref) over crystals x of the policy p, where the reference policy p_ref is the
    base model. The best p is p_ref exp(r / tau) / Z. An iteration samples ``batch_size`` whole crystals from the
    policy, without stepping the environment, scores all of them at once with the environment's reward, and takes
    ``n_epochs`` steps of gradient ascent on the clipped surrogate. The policy follows the action mode of the
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
        config, adapter = self.config, self.adapter
        assert adapter is not None
        callback.on_rollout_start()
        clock = [time.perf_counter()]
        streams, parallel = RandomStreams(self.rng), config.sample_batch_size or self.model.default_batch_size()
        groups = adapter.grammar.sample_groups(config.batch_size, streams.for_space_groups())
        samples = sample_crystals(self.model, groups, adapter.distribution, streams, parallel, scored=True)
        crystals, by_policy = samples.crystals, samples.log_prob
        clock.append(time.perf_counter())
        result = adapter.score(crystals)
        clock.append(time.perf_counter())
        likelihood = _likelihood(config)
        with torch.inference_mode():
            if likelihood == "paper":
                by_policy = log_prob(self.model, crystals, adapter.distribution, likelihood)
            by_reference = log_prob(self.reference, crystals, adapter.distribution, likelihood).total
            decisions = self._decisions(config, crystals) if config.ratio == "token" else None
        clock.append(time.perf_counter())
        assert by_policy is not None
        episodes = adapter.record(crystals, result.total, (time.time_ns() - self.start_time) / 1e9)
        self._pending = Rollout(
            crystals,
            result,
            result.total if config.reward_range is None else np.clip(result.total, *config.reward_range),
            {name: value.double().cpu().numpy() for name, value in by_policy._asdict().items()},
            by_reference.double().cpu().numpy(),
            decisions,
            [{**result.info(row), "crystal": c, "episode": episodes[row]} for row, c in enumerate(crystals)],
            dict(zip(("sampling", "reward", "scoring"), np.diff(clock).tolist(), strict=True)),
            config.of_rollouts(),
        )
        self.num_timesteps += int(n_decisions(crystals).sum())
        self._episode_num += len(crystals)
        self._update_info_buffer(self._pending.infos, np.ones(len(crystals), bool))
        callback.update_locals({**locals(), "rollout": self._pending})
        if not callback.on_step():
            return False
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Update the policy with the crystals of the iteration."""
        config, rollout, started = self.config, self._pending, time.perf_counter()
        assert rollout is not None
        rate = config.learning_rate_at(self.iteration, self._current_progress_remaining)
        update_learning_rate(self.policy.optimizer, rate)
        self.logger.record("train/learning_rate", rate)
        batch = rollout.take(rollout.usable())
        if len(batch):
            kl = batch.kl_divergence()
            returns = batch.rewards if config.paper_update else batch.rewards - config.tau * kl  # Eq. S2
            baseline, self.average = baselines(
                config.baseline, returns, batch.crystals.G, self.average, config.ema_decay
            )
            advantages = self._tensor(returns - baseline)
            old = self._tensor(_old_log_prob(config, batch))
            if config.replay_coef:
                self.top_k.size = config.replay_size
                self.top_k.add(batch.crystals, batch.rewards)
            skipped = 0
            for epoch in range(config.n_epochs):
                log_ratio = torch.zeros_like(old)  # before the step; the losses fill it in
                losses = self._losses(config, batch, advantages, old, log_ratio)
                norm = optimiser_step(self.model, self.policy.optimizer, losses, config.max_grad_norm)
                self._n_updates += math.isfinite(norm)
                skipped += not math.isfinite(norm)
                if epoch == 0:
                    self.logger.record("train/first_ratio_error", float(log_ratio.abs().max()))
            self._record_update(config, advantages, log_ratio)
            numbers = {"grad_norm": norm, "skipped_steps": skipped, "n_updates": self._n_updates}
            numbers |= {"baseline": baseline.mean(), "objective": (batch.rewards - config.tau * kl).mean()}
            for name, value in numbers.items():
                self.logger.record(f"train/{name}", float(value))
        self.iteration += 1
        self._pending = None
        self._record_rollout(rollout, time.perf_counter() - started)

    def _losses(
        self, config: KLPPOConfig, batch: Rollout, advantages: Tensor, old: Tensor, log_ratio: Tensor
    ) -> Iterator[Tensor]:
        """Yield the losses of micro-batches, minus the mean surrogate of Eq. S1 and the replayed log-likelihood.

        Args:
            config: the settings.
            batch: B crystals, all numbers finite.
            advantages: (B,) of the crystals.
            old: (B,) ln p_old of the crystals, or (B, 108) of their decisions.
            log_ratio: of the same shape, filled with ln p / p_old.
        """
        assert self.adapter is not None
        distribution, reference = self.adapter.distribution, self._tensor(batch.reference_log_prob)
        for part in micro_batches(batch.crystals.n_sites(), self._max_tokens(config)):
            at = torch.from_numpy(part).to(self.device)
            if config.ratio == "token":
                decisions = score_decisions(self.model, batch.crystals[part], distribution).flattened()
                now = decisions * torch.from_numpy(_decision_weights(config)).to(decisions)
            else:
                parts = score(self.model, batch.crystals[part], distribution, _likelihood(config))
                now = _weighted(config, parts._asdict())
            log_ratio[at] = now.detach() - old[at]
            if config.paper_update:
                gain = published_surrogate(now, old[at], reference[at], advantages[at], config.clip_range, config.tau)
            else:
                gain = surrogate(now - old[at], advantages[at], config.clip_range)
            yield -gain.sum() / len(batch)
        if config.replay_coef:
            best = self.top_k.sample(max(1, config.batch_size // 10), self.rng)
            for part in micro_batches(best.n_sites(), self._max_tokens(config)):
                total = score(self.model, best[part], distribution, _likelihood(config)).total
                yield -config.replay_coef * total.sum() / len(best)

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
            decisions = score_decisions(self.model, crystals[part], self.adapter.distribution)
            rows[part] = decisions.flattened().double().cpu()
        return rows


def _likelihood(config: KLPPOConfig) -> Likelihood:
    """Return how crystals are scored: exactly as they are sampled, or as the paper's code does."""
    return "paper" if config.paper_update else "exact"


def _weighted(config: KLPPOConfig, parts: Mapping[str, Any]) -> Any:
    """Return the weighted sum (B,) of the parts of log-likelihoods."""
    return sum(weight * parts[name] for name, weight in config.weights().items() if weight)


def _old_log_prob(config: KLPPOConfig, batch: Rollout) -> NDArray[np.float64]:
    """Return the weighted ln p_old of Eq. S1: (B,) of crystals, or (B, 108) of their decisions."""
    if batch.decisions is not None:
        return batch.decisions * _decision_weights(config)
    old: NDArray[np.float64] = _weighted(config, batch.log_prob)
    return old


def _decision_weights(config: KLPPOConfig) -> NDArray[np.float64]:
    """Return the weight of every decision (108,)."""
    ones = DecisionLogProb(*(torch.ones(1, *shape) for shape in ((N_SLOTS + 1,), (N_SLOTS + 1,), (N_SLOTS, 3), ())))
    weights = config.weights()
    weighted = DecisionLogProb(*(part * weights[name] for name, part in ones._asdict().items()))
    return weighted.flattened()[0].double().numpy()
