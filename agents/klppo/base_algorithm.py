"""What KLPPO shares with every algorithm of stable-baselines3: settings, environment, learning loop, files, actions."""

import copy
import time
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from agents.crystalformer.model import CrystalFormer
from agents.klppo.config import SETTINGS, KLPPOConfig
from agents.klppo.env_adapter import EnvAdapter
from agents.klppo.progress_bar import ProgressBar
from agents.klppo.rollout import Rollout
from agents.sb3.continuous_policy import ContinuousCrystalFormerPolicy
from agents.sb3.discrete_policy import CrystalFormerPolicy
from agents.sb3.vec_env import CrystalVecEnv
from agents.training.replay_buffer import ReplayBuffer
from crystal_env.errors import InputError
from crystal_env.wyckoff import N_GROUPS

Self = TypeVar("Self", bound="CrystalAlgorithm")

_MAY_LOAD = (*SETTINGS, "policy_kwargs", "tensorboard_log", "verbose")


class CrystalAlgorithm(BaseAlgorithm):
    """An algorithm that fine-tunes a model on whole crystals; what it does in an iteration, its heirs say.

    Args:
        config: the settings, each of which becomes an attribute.
        arguments: those of stable-baselines3's algorithms.

    Attributes:
        adapter: the task of the environment, None without one.
        reference: the frozen reference policy.
        iteration: iterations so far.
        average: moving average of the returns, None before the first.
        buffer: the replay buffer, of the crystals scored so far where the loss learns from them.
        offsets (231,): by space group, what the mean return differs by from the mean reward in the buffer.
        rng: generator of everything random.
        run_settings: settings of the run that the agent is trained in, if it is.
    """

    buffer: ReplayBuffer
    offsets: NDArray[np.float64]
    buffer_size: int
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CrystalFormerPolicy": CrystalFormerPolicy}
    policy: CrystalFormerPolicy | ContinuousCrystalFormerPolicy

    def __init__(self, config: KLPPOConfig, _init_setup_model: bool, **arguments: Any) -> None:
        super().__init__(
            learning_rate=config.learning_rate,
            support_multi_env=True,
            supported_action_spaces=(spaces.Discrete, spaces.Box),
            **arguments,
        )
        vars(self).update({name: getattr(config, name) for name in SETTINGS})
        self.rng, self._is_other_task = np.random.default_rng(self.seed), False
        self._drop_buffer()
        self.average: float | None = None
        self.iteration = 0
        self.adapter: EnvAdapter | None = None
        self._pending: Rollout | None = None  # sampled and not yet learned from
        self._task_digest: str | None = None
        self._reward_state: dict[str, Any] = {}
        self.run_settings: dict[str, Any] = {}
        if _init_setup_model:
            self._setup_model()

    def collect_rollouts(self, callback: BaseCallback) -> bool:
        """Sample and score the crystals of an iteration; return False if a callback wants to stop."""
        raise NotImplementedError

    def train(self) -> None:
        """Update the policy with the crystals of the iteration."""
        raise NotImplementedError

    @property
    def config(self) -> KLPPOConfig:
        """The settings, as the attributes of the agent have them now.

        Raises:
            ValueError: naming an attribute that was set to what is out of range.
        """
        config = KLPPOConfig(**{name: getattr(self, name) for name in SETTINGS})
        if config.paper_update and self.adapter is not None and self.adapter.bins:
            raise InputError("paper_update needs an environment with action_mode='continuous'")
        return config

    @property
    def model(self) -> CrystalFormer:
        """The network that is fine-tuned: sample from it, or save it with ``save_pretrained``."""
        return self.policy.model

    @property
    def is_pending(self) -> bool:
        """Whether crystals were scored that `train` has not learned from, since a callback ended learning."""
        return self._pending is not None

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
        self._read_env()

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the environment and what ``predict`` samples; sampling crystals continues with ``rng``."""
        if seed is not None:
            self.action_space.seed(seed)
            if self.env is not None:
                self.env.seed(seed)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Continue with another environment of the same spaces; see stable-baselines3.

        If its reward, constraints or bins are not the same, what belongs to the old ones is dropped: crystals not yet
        learned from, the moving average, the replay buffer and what the reward remembers.
        """
        super().set_env(env, force_reset)
        self._read_env()

    def _read_env(self) -> None:
        """Read the task of the environment, and drop what belongs to another one."""
        if self.env is None:
            return
        before, self.adapter = self.adapter, EnvAdapter(self.env)
        _ = self.config  # checks the settings, those given to `load` too
        self._is_other_task = not self.adapter.has_task_of(before, self._task_digest)
        if not self._is_other_task:
            self.adapter.load_reward_state(self._reward_state if before is None else before.reward_state())
        else:
            self._pending, self.average = None, None
            self._drop_buffer()
            self.ep_info_buffer, self.ep_success_buffer = None, None
        self._task_digest, self._reward_state = self.adapter.digest, {}

    def _drop_buffer(self) -> None:
        self.buffer, self.offsets = ReplayBuffer(self.buffer_size), np.zeros(N_GROUPS + 1)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the agent and what its reward remembers; see stable-baselines3."""
        if self.adapter is not None:
            self._reward_state = self.adapter.reward_state()
        self.policy_kwargs = {**self.policy_kwargs, "recommended_temperature": self.model.temperature}
        super().save(*args, **kwargs)
        self._reward_state = {} if self.adapter is not None else self._reward_state

    @classmethod
    def load(  # type: ignore[override]  # the others are among the keyword arguments
        cls: type[Self], path: Any, env: Any = None, device: torch.device | str = "auto", **kwargs: Any
    ) -> Self:
        """Load an agent; see stable-baselines3, and `set_env` for an environment other than the one it had.

        Args:
            path: what `save` has written. Loading unpickles: load agents that you trust.
            env: environment to continue with.
            device: such as ``"cuda"``.
            kwargs: settings that replace those saved; also ``policy_kwargs``, ``tensorboard_log``, ``verbose`` and
                what else ``load`` of stable-baselines3 takes.

        Raises:
            ValueError: naming a setting that does not exist or is out of range, or what is wrong with the environment.
        """
        arguments = ("custom_objects", "print_system_info", "force_reset")
        if unknown := sorted(set(kwargs) - {*_MAY_LOAD, *arguments}):
            raise InputError(f"unknown settings {unknown}: load takes {sorted({*_MAY_LOAD, *arguments})}")
        KLPPOConfig(**{name: value for name, value in kwargs.items() if name in SETTINGS})
        agent = super().load(path, env, device, **kwargs)
        _ = agent.config
        if agent.adapter is not None and agent._is_other_task:  # the buffer is read last
            agent._drop_buffer()
        return agent

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "adapter", "reference", "buffer"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer", "reference", "buffer"], []

    def learn(
        self: Self,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "KLPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        *,
        n_iterations: int | None = None,
        progress: Callable[[], float] | None = None,
    ) -> Self:
        """Fine-tune for a number of decisions or iterations; see stable-baselines3.

        Args:
            total_timesteps: decisions after which no further iteration begins.
            callback: called once an iteration.
            log_interval: iterations between two dumps of the log; 0 leaves it to the caller.
            tb_log_name: name of the run for TensorBoard.
            reset_num_timesteps: restart the counts of decisions and iterations, which schedules follow.
            progress_bar: show the progress.
            n_iterations: iterations, in place of ``total_timesteps``. Those before count where
                ``reset_num_timesteps`` is False, so that a resumed agent has the schedule of one that never stopped.
            progress: fraction of the training that is done, for schedules, called before every iteration; by default
                that of iterations or decisions.

        Raises:
            ValueError: if not exactly one length is given, or there is no environment.
        """
        if self.adapter is None:
            raise InputError("env must be set before learning: see set_env")
        if (total_timesteps is None) == (n_iterations is None):
            raise InputError(f"learn takes total_timesteps or n_iterations, got {total_timesteps} and {n_iterations}")
        total_timesteps, callback = self._setup_learn(
            total_timesteps or 0, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if reset_num_timesteps:
            self.buffer.data.iteration[:] -= self.iteration
            self.iteration = 0
        if self._pending is not None and self._pending.settings != self.config.of_rollouts():
            self._pending = None
        done, length = (self.num_timesteps, total_timesteps) if n_iterations is None else (self.iteration, n_iterations)
        callback.on_training_start(locals(), globals())
        while self._pending is not None or done < length:
            if self._pending is None:
                self._current_progress_remaining = 1 - (done / length if progress is None else progress())
                if not self.collect_rollouts(callback):
                    break
            self.train()
            if log_interval and self.iteration % log_interval == 0:
                self.dump_logs()
            done = self.num_timesteps if n_iterations is None else self.iteration
        callback.on_training_end()
        return self

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        chain = super()._init_callback(callback, False)
        if progress_bar:
            chain = CallbackList([chain, ProgressBar()])
            chain.init_callback(self)
        return chain

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
        self.policy.temperature = self.config.temperature
        if action_masks is None and self.adapter is not None:
            action_masks = self.adapter.masks(np.atleast_2d(np.asarray(observation)))
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
