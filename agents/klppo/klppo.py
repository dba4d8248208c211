"""KLPPO: proximal policy optimisation of whole crystals, held close to a base model by a Kullback-Leibler term."""

import copy
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ProgressBarCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.crystalformer.distribution import Distribution
from agents.crystalformer.likelihood import (
    N_DECISIONS,
    DecisionLogProb,
    Likelihood,
    LogProb,
    log_prob,
    score,
    score_decisions,
)
from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import sample_crystals
from agents.klppo.env_adapter import CrystalTask, n_decisions
from agents.klppo.losses import Baseline, adapted_tau, baselines, k3, published_surrogate, surrogate
from agents.klppo.rollout import Rollout
from agents.sb3.continuous_policy import ContinuousCrystalFormerPolicy
from agents.sb3.discrete_policy import CrystalFormerPolicy
from agents.sb3.vec_env import CrystalVecEnv
from agents.training.micro_batches import micro_batches
from agents.training.top_k_buffer import TopKBuffer
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError

Self = TypeVar("Self", bound="KLPPO")

_TOKENS, _TOKENS_CUDA = 2_000, 200_000  # in memory at once, by default

_CHOICES = {
    "ratio": ("sequence", "token"),
    "baseline": ("ema", "batch", "leave_one_out", "group"),
    "kl": ("reward", "loss"),
}


class KLPPO(BaseAlgorithm):
    """Reinforcement fine-tuning of a base model: the paper's algorithm (arXiv:2504.02367, Eq. 1, S1 to S3).

    It maximises E[r(x)] - tau KL(p || p_base) over crystals x of the policy p. The best p is p_base exp(r / tau) / Z.
    An iteration draws ``batch_size`` whole crystals from the policy, without playing the environment, scores all of
    them at once with the environment's reward, and takes ``n_epochs`` steps of gradient ascent on the clipped
    surrogate. The policy follows the action mode of the environment: densities on the continuous one, as in the paper,
    and a categorical distribution over the bins on the discrete one. The space group is given, never scored.

    The surface is that of every stable-baselines3 algorithm. A time step is a decision of the environment; callbacks
    are called once an iteration. With ``predict`` the agent plays step by step.

    Args:
        policy: ``"CrystalFormerPolicy"``; which model is fine-tuned is said in ``policy_kwargs``.
        env: ``CrystalGen-v0`` with any reward: a Gymnasium environment, its vector form, or `CrystalVecEnv`.
        tau: coefficient of the divergence from the base model, in units of the reward; the paper's is 0.1.
        learning_rate: of Adam, a number or a schedule by remaining progress.
        batch_size: crystals of an iteration.
        n_epochs: steps between drawing, each on the whole batch.
        clip_range: epsilon of the clipped ratio.
        max_grad_norm: norm to which longer gradients are cut.
        ratio: ``"sequence"``, of whole crystals (Eq. S1), or ``"token"``, of each decision (PPO).
        weights: name -> weight in the log ratio of ``letters``, ``elements``, ``coordinates`` and ``lattice``, by
            default 1 each. The score of the lattice, whose Gaussians are narrow, is mostly noise: ``{"lattice": 0}``
            leaves it out. The divergence always counts all parts.
        baseline: ``"ema"`` (Eq. S3), ``"batch"``, ``"leave_one_out"`` (RLOO) or ``"group"``, the mean of the space
            group (GRPO): see `agents.klppo.losses.baselines`.
        ema: share of the moving average that an iteration keeps.
        kl: ``"reward"``: the divergence is part of the reward and carries no gradient (Eq. S2); ``"loss"``: its
            estimate k3 is part of the loss (GRPO, Eq. 4).
        target_kl: divergence in nats that tau is adapted to, iteration by iteration (Ziegler et al., Eq. 3).
        ent_coef: weight of the entropy of letters and elements, in units of the reward.
        reward_range: bounds that rewards are cut to.
        replay: weight of the log-likelihood of the best crystals so far, of which ``replay_size`` are kept and a tenth
            of a batch is drawn for every step.
        replay_size: crystals kept for replay.
        paper_update: do as the paper's published code does: the divergence inside the differentiated surrogate and out
            of the baseline, and crystals scored by its likelihood. Only on the continuous environment.
        max_tokens: most tokens in memory at once: a batch is cut into parts whose gradients add up.
        sample_batch_size: crystals drawn side by side, by default what is best for the device.
        policy_kwargs: ``{"model": ...}``, the base model: a name or a path (``"mp20"``), or a model.
        stats_window_size: crystals that ``rollout/ep_rew_mean`` averages over.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints a table an iteration.
        seed: of everything random here; no global generator is touched.
        device: such as ``"cuda"``; by default a GPU where there is one.

    Attributes:
        reference: the frozen base model. It is saved and loaded with the agent; going on never replaces it.
        iteration: iterations so far.

    Raises:
        ValueError: naming an argument that is out of range, or what is wrong with the environment.

    Example:
        >>> import gymnasium as gym, crystal_env
        >>> from gymnasium.vector import AutoresetMode
        >>> from agents import KLPPO, CrystalFormerConfig
        >>> env = gym.make_vec("CrystalGen-v0", action_mode="continuous", autoreset_mode=AutoresetMode.SAME_STEP)
        >>> sizes = CrystalFormerConfig(n_layers=1, n_heads=1, key_size=8, model_size=8, embed_size=8)
        >>> agent = KLPPO("CrystalFormerPolicy", env, batch_size=8, seed=0, policy_kwargs={"model": sizes})
        >>> agent.learn(100).policy.model.sample("mp20", 3, seed=0)
        <CrystalBatch of 3 crystals>
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CrystalFormerPolicy": CrystalFormerPolicy}
    policy: CrystalFormerPolicy | ContinuousCrystalFormerPolicy

    def __init__(
        self,
        policy: str | type[BasePolicy] = "CrystalFormerPolicy",
        env: GymEnv | VectorEnv[Any, Any, Any] | str | None = None,
        tau: float = 0.1,
        learning_rate: float | Schedule = 1e-4,
        batch_size: int = 1000,
        n_epochs: int = 3,
        clip_range: float = 0.2,
        max_grad_norm: float = 1.0,
        ratio: Literal["sequence", "token"] = "sequence",
        weights: Mapping[str, float] | None = None,
        baseline: Baseline = "ema",
        ema: float = 0.95,
        kl: Literal["reward", "loss"] = "reward",
        target_kl: float | None = None,
        ent_coef: float = 0.0,
        reward_range: tuple[float, float] | None = None,
        replay: float = 0.0,
        replay_size: int = 1000,
        paper_update: bool = False,
        max_tokens: int | None = None,
        sample_batch_size: int | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 1000,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            supported_action_spaces=(spaces.Discrete, spaces.Box),
        )
        self.tau, self.batch_size, self.n_epochs, self.clip_range = tau, batch_size, n_epochs, clip_range
        self.max_grad_norm, self.ratio, self.baseline, self.ema = max_grad_norm, ratio, baseline, ema
        self.weights = dict.fromkeys(LogProb._fields[1:], 1.0) | dict(weights or {})
        self.kl, self.target_kl, self.ent_coef, self.reward_range = kl, target_kl, ent_coef, reward_range
        self.replay, self.paper_update = replay, paper_update
        self.max_tokens, self.sample_batch_size = max_tokens, sample_batch_size
        self.top_k = TopKBuffer(replay_size)
        self.rng = np.random.default_rng(seed)
        self.average: float | None = None
        self.iteration = 0
        self._pending: Rollout | None = None
        self._check_arguments()
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        for name, least in (("batch_size", 1), ("n_epochs", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")
        for name in ("tau", "ent_coef", "replay"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(f"{name} must be a finite number of at least 0, got {getattr(self, name)!r}")
        for name in ("clip_range", "max_grad_norm", "target_kl"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)!r}")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema must be in [0, 1), got {self.ema!r}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be in {allowed}, got {getattr(self, name)!r}")
        unknown = set(self.weights) - set(LogProb._fields[1:])
        values = self.weights.values()
        if unknown or not all(0 <= weight < np.inf for weight in values) or not any(values):
            raise InputError(
                f"weights must be finite, at least 0 and not all 0, for {LogProb._fields[1:]}, got {self.weights!r}"
            )
        if self.reward_range is not None and not self.reward_range[0] < self.reward_range[1]:
            raise InputError(f"reward_range must be (low, high) with low < high, got {self.reward_range!r}")
        if self.paper_update and ((self.ratio, self.kl) != ("sequence", "reward") or set(self.weights.values()) != {1}):
            raise InputError(
                "paper_update takes ratio 'sequence', kl 'reward' and no weights, got "
                f"{self.ratio!r}, {self.kl!r}, {self.weights!r}"
            )

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, VectorEnv):
            return CrystalVecEnv(env)
        return BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        policy_class: Any = self.policy_class
        if policy_class is CrystalFormerPolicy and isinstance(self.action_space, spaces.Box):
            policy_class = ContinuousCrystalFormerPolicy
        with torch.random.fork_rng(devices=()):  # new layers draw weights, which are replaced
            self.policy = policy_class(
                self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
            )
        self.policy = self.policy.to(self.device).train(False)
        config = self.policy.model.config
        self.policy_kwargs = {**self.policy_kwargs, "model": config}  # an agent that is loaded brings its own weights
        self.reference = copy.deepcopy(self.policy.model).requires_grad_(False)
        self._read_task()

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the environment and what ``predict`` draws; drawing crystals goes on with ``rng``."""
        if seed is not None:
            self.action_space.seed(seed)
            if self.env is not None:
                self.env.seed(seed)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Go on with another environment of the same spaces; see stable-baselines3."""
        super().set_env(env, force_reset)
        self._read_task()
        self._pending = None  # its rewards were another environment's

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the agent and what its reward remembers; see stable-baselines3."""
        self._reward_state = {} if self.task is None else self.task.reward_state()
        super().save(*args, **kwargs)
        del self._reward_state

    def _read_task(self) -> None:
        self.task = None if self.env is None else CrystalTask(self.env)
        if self.task is not None:
            self.task.load_reward_state(self.__dict__.pop("_reward_state", {}))  # of an agent that was loaded
        if self.task is not None and self.paper_update and self.task.bins:
            raise InputError("paper_update needs an environment with action_mode='continuous'")

    @property
    def model(self) -> CrystalFormer:
        """The network that is fine-tuned: sample from it, or save it with ``save_pretrained``."""
        return self.policy.model

    @property
    def likelihood(self) -> Likelihood:
        """How crystals are scored: exactly as they are drawn, or as the paper's code does."""
        return "paper" if self.paper_update else "exact"

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "KLPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Fine-tune for at least that many decisions; see stable-baselines3."""
        if self.task is None:
            raise InputError("env must be set before learning: see set_env")
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps or self._pending is not None:
            if self._pending is None and not self.collect_rollouts(callback):
                break
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train()
            if log_interval and self.iteration % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        chain = super()._init_callback(callback, False)
        if progress_bar:
            chain = CallbackList([chain, _ProgressBar()])
            chain.init_callback(self)
        return chain

    def collect_rollouts(self, callback: BaseCallback) -> bool:
        """Draw and score the crystals of an iteration; return False if a callback wants to stop."""
        assert self.task is not None
        callback.on_rollout_start()
        started = time.perf_counter()
        streams = RandomStreams(self.rng)
        groups = self.task.grammar.sample_groups(self.batch_size, streams.for_space_groups())
        sample_batch_size = self.sample_batch_size or self.model.default_batch_size()
        samples = sample_crystals(self.model, groups, self.task.distribution, streams, sample_batch_size, scored=True)
        crystals, sampled_at = samples.crystals, time.perf_counter()
        result = self.task.score(crystals)
        rewarded_at = time.perf_counter()
        with torch.inference_mode():
            by_policy = samples.log_prob if self.likelihood == "exact" else self._log_prob(self.model, crystals)
            by_base = self._log_prob(self.reference, crystals).total
            decisions = self._decisions(crystals) if self.ratio == "token" else None
        assert by_policy is not None
        seconds = {
            "sampling": sampled_at - started,
            "reward": rewarded_at - sampled_at,
            "scoring": time.perf_counter() - rewarded_at,
        }
        episodes = self.task.record(crystals, result.total, (time.time_ns() - self.start_time) / 1e9)
        infos = [
            {**result.info(row), "crystal": crystal, "episode": episodes[row]} for row, crystal in enumerate(crystals)
        ]
        log_probs = {name: value.double().cpu().numpy() for name, value in by_policy._asdict().items()}
        rewards = result.total if self.reward_range is None else np.clip(result.total, *self.reward_range)
        self._pending = Rollout(
            crystals, result, rewards, log_probs, by_base.double().cpu().numpy(), decisions, infos, seconds
        )
        dones = np.ones(len(crystals), bool)
        self.num_timesteps += int(n_decisions(crystals).sum())
        self._episode_num += len(crystals)
        self._update_info_buffer(infos, dones)
        callback.update_locals({**locals(), "rollout": self._pending})
        if not callback.on_step():
            return False
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Update the policy with the crystals at hand."""
        rollout, started = self._pending, time.perf_counter()
        assert rollout is not None
        self._update_learning_rate(self.policy.optimizer)
        for name, value in rollout.statistics().items():
            self.logger.record(name, value)
        for reason, count in list(rollout.failures().items())[:8]:
            self.logger.record(f"failures/{reason[:60]}", count)
        rows = rollout.usable()
        if len(rows):
            self._update(rollout, rows)
        self.iteration += 1
        self._pending = None
        seconds = {**rollout.seconds, "update": time.perf_counter() - started}
        for name, value in seconds.items():
            self.logger.record(f"time/{name}_seconds", value)
        self.logger.record("time/crystals_per_second", len(rollout.rewards) / sum(seconds.values()))

    def _update(self, rollout: Rollout, rows: NDArray[np.int64]) -> None:
        crystals, rewards, divergence = rollout.crystals[rows], rollout.rewards[rows], rollout.divergence()[rows]
        returns = rewards - self.ent_coef * (rollout.log_prob["letters"] + rollout.log_prob["elements"])[rows]
        if self.kl == "reward" and not self.paper_update:
            returns = returns - self.tau * divergence
        base_line, self.average = baselines(self.baseline, returns, crystals.G, self.average, self.ema)
        advantages = self._tensor(returns - base_line)
        old, base = self._tensor(self._weighted(rollout.log_prob)[rows]), self._tensor(rollout.base[rows])
        if rollout.decisions is not None:
            old = self._tensor(rollout.decisions[rows])
        if self.replay:
            self.top_k.add(crystals, rewards)
        skipped = 0
        for epoch in range(self.n_epochs):
            log_ratios, norm = self._step(crystals, advantages, old, base)
            skipped += not np.isfinite(norm)
            if epoch == 0:
                self.logger.record("train/first_ratio_error", float(log_ratios.abs().max()))
        ratios = log_ratios.exp()
        record = self.logger.record
        record("train/ratio_mean", float(ratios.mean()))
        record("train/ratio_max", float(ratios.max()))
        record("train/clip_share", float(((ratios - 1).abs() > self.clip_range).double().mean()))
        record("train/gradient_norm", norm)
        record("train/skipped_steps", skipped)
        record("train/advantage_std", float(advantages.std(correction=0)))
        record("train/baseline", float(base_line.mean()))
        record("train/tau", self.tau)
        record("train/objective", float((rewards - self.tau * divergence).mean()))
        if self.target_kl is not None:
            self.tau = adapted_tau(self.tau, float(divergence.mean()), self.target_kl)

    def _step(self, crystals: CrystalBatch, advantages: Tensor, old: Tensor, base: Tensor) -> tuple[Tensor, float]:
        """Take a step on the whole batch; return the log ratios before it, and the norm of the whole gradient."""
        model, optimizer = self.model, self.policy.optimizer
        optimizer.zero_grad()
        log_ratios = torch.zeros_like(old)
        for part in micro_batches(crystals.n_sites(), self._tokens_at_once):
            at = torch.from_numpy(part).to(self.device)
            if self.ratio == "token":
                decisions = score_decisions(model, crystals[part], self._distribution)
                total, log_ratio = decisions.by_part().total, self._in_a_row(decisions) - old[at]
            else:
                parts = score(model, crystals[part], self._distribution, self.likelihood)
                total, log_ratio = parts.total, self._weighted(parts._asdict()) - old[at]
            if self.paper_update:
                gain = published_surrogate(total, old[at], base[at], advantages[at], self.clip_range, self.tau)
            else:
                gain = surrogate(log_ratio, advantages[at], self.clip_range)
            if self.kl == "loss":
                gain = gain - self.tau * k3(total - base[at])
            (-gain.sum() / len(crystals)).backward()
            log_ratios[at] = log_ratio.detach()
        if self.replay:
            self._replay()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), self.max_grad_norm))
        if np.isfinite(norm):  # else one bad batch would spoil the weights for good
            optimizer.step()
            self._n_updates += 1
        return log_ratios, norm

    def _replay(self) -> None:
        """Add the gradient of the log-likelihood of some of the best crystals so far."""
        best = self.top_k.sample(max(1, self.batch_size // 10), self.rng)
        for part in micro_batches(best.n_sites(), self._tokens_at_once):
            log_prob = score(self.model, best[part], self._distribution, self.likelihood).total
            (-self.replay * log_prob.sum() / len(best)).backward()

    @property
    def _distribution(self) -> Distribution:
        assert self.task is not None
        return self.task.distribution

    @property
    def _tokens_at_once(self) -> int:
        return self.max_tokens or (_TOKENS if self.device.type == "cpu" else _TOKENS_CUDA)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device, self.model.real_dtype)

    def _log_prob(self, model: CrystalFormer, crystals: CrystalBatch) -> LogProb:
        return log_prob(model, crystals, self._distribution, self.likelihood)

    def _decisions(self, crystals: CrystalBatch) -> NDArray[np.float64]:
        rows = np.zeros((len(crystals), N_DECISIONS))
        for part in micro_batches(crystals.n_sites(), self._tokens_at_once):
            rows[part] = self._in_a_row(score_decisions(self.model, crystals[part], self._distribution)).double().cpu()
        return rows

    def _weighted(self, parts: Mapping[str, Any]) -> Any:
        """Return the weighted sum (B,) of the parts of log-likelihoods."""
        return sum(weight * parts[name] for name, weight in self.weights.items() if weight)

    def _in_a_row(self, decisions: DecisionLogProb) -> Tensor:
        """Return all weighted decisions (B, 108)."""
        return type(decisions)(*(part * self.weights[name] for name, part in decisions._asdict().items())).in_a_row()

    def predict(  # type: ignore[override]
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Return the next actions for observations (N, T) or (T,); see stable-baselines3.

        Args:
            observation: of the environment.
            state: not used.
            episode_start: not used.
            deterministic: take what is most likely.
            action_masks: (N, V) ids that are allowed; by default those that the constraints of the agent's environment
                allow.
        """
        if action_masks is None and self.task is not None:
            action_masks = self.task.masks(np.atleast_2d(np.asarray(observation)))
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks=action_masks)

    def dump_logs(self, iteration: int = 0) -> None:
        """Write what was logged; see stable-baselines3."""
        if self.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", safe_mean([entry["r"] for entry in self.ep_info_buffer]))
            self.logger.record("rollout/ep_len_mean", safe_mean([entry["l"] for entry in self.ep_info_buffer]))
        self.logger.record("time/iterations", self.iteration)
        self.logger.record("time/crystals", self._episode_num)
        self.logger.record("time/total_timesteps", self.num_timesteps)
        self.logger.record("time/time_elapsed", (time.time_ns() - self.start_time) / 1e9)
        self.logger.dump(step=self.num_timesteps)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "task", "reference"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer", "reference"], []


class _ProgressBar(ProgressBarCallback):
    """Counts decisions: an iteration has a different number of them each time."""

    def _on_step(self) -> bool:
        self.pbar.update(self.model.num_timesteps - self.model._num_timesteps_at_start - self.pbar.n)
        return True
