"""PPO of TorchRL on the natively batched environment.

    python -m benchmarks.libraries.torchrl_ppo --steps 200000 --seed 0

`GymWrapper` takes the vector environment as it is if nothing is reset automatically: TorchRL resets finished episodes
itself. `MaskedCategorical` reads the mask from the observation.
"""

from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import ActionMask, Compose, EnvBase, GymWrapper, RewardSum, TransformedEnv
from torchrl.modules import MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from benchmarks.harness.seeding import global_generators
from benchmarks.harness.session import Session
from benchmarks.libraries.common import MaskedPolicy, Settings, TokenNetwork, command, report_progress
from crystal_env.wrappers import VectorMaskInObservation


def agent(session: Session, **settings: Any) -> MaskedPolicy:
    """Train in a session of the benchmark; settings are the fields of `common.Settings`."""
    return train(session, Settings(**settings))


def train(session: Session, settings: Settings) -> MaskedPolicy:
    """Return the trained policy."""
    with global_generators(session.seed):
        env = make_env(session, settings)
        actor_network, actor, critic = make_networks(env)
        size = settings.num_envs * settings.num_steps
        total = -(-settings.steps // size) * size
        collector = Collector(
            env, actor, frames_per_batch=size, total_frames=total, auto_register_policy_transforms=False
        )
        advantage = GAE(gamma=settings.gamma, lmbda=settings.gae_lambda, value_network=critic)
        loss = ClipPPOLoss(
            actor,
            critic,
            clip_epsilon=settings.clip,
            entropy_coeff=settings.entropy,
            critic_coeff=settings.value,
            loss_critic_type="l2",
            normalize_advantage=True,
        )
        optimiser = torch.optim.Adam(loss.parameters(), lr=settings.learning_rate, eps=1e-5)
        for number, rollout in enumerate(collector, 1):  # (num_envs, num_steps)
            following = rollout["next"]
            report_progress(
                session, number * size, settings.steps, following["episode_reward"][following["done"]].tolist()
            )
            if session.oracle.spent:  # the last rewards are the floor of a spent budget
                break
            with torch.no_grad():
                advantage(rollout)
            update(loss, optimiser, rollout.reshape(-1), settings)
        collector.shutdown()
    return MaskedPolicy(actor_network, settings.bins, session.seed)


def make_env(session: Session, settings: Settings) -> EnvBase:
    """Return the environment in TorchRL's form: a boolean mask beside the observation, ids as actions."""
    mode = AutoresetMode.DISABLED
    env = session.make_vec(settings.num_envs, bins=settings.bins, invalid_action="raise", autoreset_mode=mode)
    observed = VectorMaskInObservation(env, dtype=bool)
    observed.autoreset_mode = mode  # type: ignore[attr-defined]  # TorchRL asks for it, Gymnasium's wrappers hide it
    wrapped = GymWrapper(observed, categorical_action_encoding=True)
    wrapped.set_seed(session.seed)
    return TransformedEnv(wrapped, Compose(ActionMask(), RewardSum()))


def make_networks(env: EnvBase) -> tuple[TokenNetwork, ProbabilisticActor, ValueOperator]:
    """Return the network of the policy, the policy around it, and the value."""
    space = env.base_env.single_observation_space["observation"]
    network = TokenNetwork(space, env.action_spec.n)
    actor = ProbabilisticActor(
        TensorDictModule(network, in_keys=["observation"], out_keys=["logits"]),
        in_keys={"logits": "logits", "mask": "action_mask"},
        distribution_class=MaskedCategorical,
        return_log_prob=True,
    )
    return network, actor, ValueOperator(TokenNetwork(space, 1), in_keys=["observation"])


def update(loss: ClipPPOLoss, optimiser: torch.optim.Optimizer, rollout: TensorDict, settings: Settings) -> None:
    """Update the agent with a rollout."""
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(rollout)).chunk(settings.minibatches):
            losses = loss(rollout[rows])
            total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
            optimiser.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), settings.max_grad_norm)
            optimiser.step()


if __name__ == "__main__":
    command(train)
