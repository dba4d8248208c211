"""PPO of RLlib (the new API stack) with its action-masking module.

    python -m benchmarks.libraries.rllib_ppo --steps 200000 --seed 0

``ActionMaskingTorchRLModule`` expects ``observations`` and ``action_mask`` in the observation, and masks the logits.
This file adds the encoder of the observations: embedded tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from gymnasium import spaces
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ACTOR, ENCODER_OUT, Encoder
from ray.rllib.core.models.configs import ModelConfig
from ray.rllib.core.models.torch.base import TorchModel
from ray.rllib.core.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
from torch import Tensor

from benchmarks.harness.seeding import global_generators
from benchmarks.harness.session import Session
from benchmarks.libraries.common import HIDDEN, MaskedPolicy, Settings, command, report_progress, token_body
from crystal_env.wrappers import MaskInObservation
from rewards.remote.ray_session import start_ray


class TokenEncoder(TorchModel, Encoder):
    """Embedded tokens and two layers, as an encoder of RLlib."""

    def __init__(self, config: "TokenEncoderConfig") -> None:
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        self.body = token_body(config.observation_space)

    def _forward(self, input_dict: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {ENCODER_OUT: self.body(input_dict[Columns.OBS])}


@dataclass(kw_only=True)
class TokenEncoderConfig(ModelConfig):
    """Configuration of a `TokenEncoder`.

    Attributes:
        observation_space: the box of tokens.
    """

    observation_space: spaces.Box

    @property
    def output_dims(self) -> tuple[int]:
        """The size of the encoder's output."""
        return (HIDDEN,)

    def build(self, framework: str = "torch") -> TokenEncoder:
        """Return the encoder."""
        return TokenEncoder(self)


class TokenCatalog(PPOCatalog):
    """PPO's networks with a `TokenEncoder`."""

    @classmethod
    def _get_encoder_config(cls, observation_space: Any, *args: Any, **kwargs: Any) -> TokenEncoderConfig:
        return TokenEncoderConfig(observation_space=observation_space)


def agent(session: Session, **settings: Any) -> MaskedPolicy:
    """Train in a session of the benchmark; settings are the fields of `common.Settings`."""
    return train(session, Settings(**settings))


def train(session: Session, settings: Settings) -> MaskedPolicy:
    """Return the trained policy."""
    returns: list[float] = []
    with global_generators(session.seed), running_ray():
        algorithm = make_config(session, settings, returns).build_algo()
        module: Any = algorithm.get_module()
        size = settings.num_envs * settings.num_steps
        for done in range(size, settings.steps + size, size):
            before = deepcopy(module)
            algorithm.train()
            report_progress(session, done, settings.steps, returns)
            returns.clear()
            if session.oracle.spent:  # the last rewards are the floor of a spent budget
                module = before
                break
        algorithm.stop()
    return MaskedPolicy(lambda observations: logits(module, observations), settings.bins, session.seed)


@contextmanager
def running_ray() -> Iterator[None]:
    """Start Ray, which RLlib needs even for one process, and stop it at the end; a running one is used."""
    running = ray.is_initialized()
    if not running:
        start_ray(ray, cores=None)
    try:
        yield
    finally:
        if not running:
            ray.shutdown()


def make_config(session: Session, settings: Settings, returns: list[float]) -> PPOConfig:
    """Return the configuration of PPO in this process; returns of finished crystals are added to the list."""

    class TaskEnv(MaskInObservation):
        """A class, not an ``env_config`` or a registered function: those are copied, and with them the oracle."""

        def __init__(self, config: Any) -> None:
            env = session.make(bins=settings.bins, invalid_action="raise", mask_in_info=False)
            super().__init__(env, obs_key="observations", dtype=np.float32)

    module = RLModuleSpec(
        module_class=ActionMaskingTorchRLModule,
        catalog_class=TokenCatalog,
        model_config=DefaultModelConfig(vf_share_layers=False),
    )
    size = settings.num_envs * settings.num_steps
    return (
        PPOConfig()
        .environment(TaskEnv)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=settings.num_envs)
        .learners(num_learners=0)
        .rl_module(rl_module_spec=module)
        .callbacks(on_episode_end=lambda *, episode, **_: returns.append(episode.get_return()))
        .training(
            train_batch_size_per_learner=size,
            minibatch_size=size // settings.minibatches,
            num_epochs=settings.epochs,
            lr=settings.learning_rate,
            gamma=settings.gamma,
            lambda_=settings.gae_lambda,
            clip_param=settings.clip,
            entropy_coeff=settings.entropy,
            vf_loss_coeff=settings.value,
            grad_clip=settings.max_grad_norm,
            use_kl_loss=False,
        )
        .debugging(seed=session.seed, log_level="ERROR")
    )


def logits(module: ActionMaskingTorchRLModule, observations: Tensor) -> Tensor:
    """Return logits (B, V) of observations (B, T), before the mask."""
    features = module.encoder({Columns.OBS: observations})[ENCODER_OUT][ACTOR]
    result: Tensor = module.pi(features)
    return result


if __name__ == "__main__":
    command(train)
