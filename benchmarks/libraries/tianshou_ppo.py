"""PPO of Tianshou on its vector environments.

    python -m benchmarks.libraries.tianshou_ppo --steps 200000 --seed 0

An observation that is a dictionary reaches the networks as a ``Batch``. Tianshou's DQN looks for ``mask`` in it, its
policy-gradient methods do not: here the actor masks its logits.
"""

from typing import Any

from gymnasium import spaces
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor, as_tensor, nn

from benchmarks.harness.seeding import global_generators
from benchmarks.harness.session import Session
from benchmarks.libraries.common import MaskedPolicy, Settings, TokenNetwork, command, masked, report_progress
from crystal_env.wrappers import MaskInObservation


class Actor(nn.Module):
    """Logits of the actions that the mask allows."""

    def __init__(self, space: spaces.Box, actions: int) -> None:
        super().__init__()
        self.network = TokenNetwork(space, actions)

    def forward(self, obs: Batch, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """Return logits (B, V) and the unused state."""
        return masked(self.network(as_tensor(obs.obs)), as_tensor(obs.mask)), state


class Critic(nn.Module):
    """Values of the states."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.network = TokenNetwork(space, 1)

    def forward(self, obs: Batch, **kwargs: Any) -> Tensor:
        """Return values (B, 1)."""
        values: Tensor = self.network(as_tensor(obs.obs))
        return values


def agent(session: Session, **settings: Any) -> MaskedPolicy:
    """Train in a session of the benchmark; settings are the fields of `common.Settings`."""
    return train(session, Settings(**settings))


def train(session: Session, settings: Settings) -> MaskedPolicy:
    """Return the trained policy."""
    with global_generators(session.seed):
        env = DummyVectorEnv([lambda: make_env(session, settings) for _ in range(settings.num_envs)])
        env.seed(session.seed)
        algorithm, actor = make_algorithm(env, settings)
        size = settings.num_envs * settings.num_steps
        collector = Collector(algorithm, env, VectorReplayBuffer(size, settings.num_envs))
        collector.reset()
        for done in range(size, settings.steps + size, size):
            with policy_within_training_step(algorithm.policy):
                collected = collector.collect(n_step=size)
                report_progress(session, done, settings.steps, collected.returns)
                if session.oracle.spent:  # the last rewards are the floor of a spent budget
                    break
                algorithm.update(collector.buffer, batch_size=size // settings.minibatches, repeat=settings.epochs)
            collector.reset_buffer(keep_statistics=True)
    return MaskedPolicy(actor.network, settings.bins, session.seed)


def make_env(session: Session, settings: Settings) -> MaskInObservation:
    """Return one environment, with observations named as Tianshou does."""
    env = session.make(bins=settings.bins, invalid_action="raise")
    return MaskInObservation(env, obs_key="obs", mask_key="mask", dtype=bool)


def make_algorithm(env: DummyVectorEnv, settings: Settings) -> tuple[PPO, Actor]:
    """Return the algorithm, and the actor in it."""
    space, actions = env.observation_space[0], env.action_space[0]  # those without wrappers: the box of tokens
    actor, critic = Actor(space, int(actions.n)), Critic(space)
    algorithm = PPO(
        policy=DiscreteActorPolicy(actor=actor, action_space=actions),
        critic=critic,
        optim=AdamOptimizerFactory(lr=settings.learning_rate, eps=1e-5),
        eps_clip=settings.clip,
        vf_coef=settings.value,
        ent_coef=settings.entropy,
        max_grad_norm=settings.max_grad_norm,
        gae_lambda=settings.gae_lambda,
        gamma=settings.gamma,
        max_batchsize=4096,
    )
    return algorithm, actor


if __name__ == "__main__":
    command(train)
