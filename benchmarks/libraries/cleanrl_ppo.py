"""PPO in one file, in the style of CleanRL: plain torch, and nothing between the reader and the algorithm.

    python -m benchmarks.libraries.cleanrl_ppo --steps 200000 --seed 0

The natively batched environment gives observations (N, T) and, in its infos, masks (N, V). What follows is
https://docs.cleanrl.dev/rl-algorithms/ppo, with masked logits.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from benchmarks.harness.seeding import global_generators
from benchmarks.harness.session import Session
from benchmarks.libraries.common import MaskedPolicy, Settings, TokenNetwork, command, masked, report_progress


class Rollout(NamedTuple):
    """Decisions of T steps in N environments, or of a minibatch of B; the first axes are (T, N) or (B,)."""

    observations: Tensor
    masks: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    ended: Tensor


class Agent(nn.Module):
    """Policy and value, each a network of its own."""

    def __init__(self, env: Any) -> None:
        super().__init__()
        self.actor = TokenNetwork(env.single_observation_space, int(env.single_action_space.n))
        self.critic = TokenNetwork(env.single_observation_space, 1)

    def policy(self, observations: Tensor, masks: Tensor) -> Categorical:
        """Return the distribution of actions, in which forbidden ones have probability 0."""
        return Categorical(logits=masked(self.actor(observations), masks), validate_args=False)

    def value(self, observations: Tensor) -> Tensor:
        """Return values (B,)."""
        value: Tensor = self.critic(observations)[:, 0]
        return value


def agent(session: Session, **settings: Any) -> MaskedPolicy:
    """Train in a session of the benchmark; settings are the fields of `common.Settings`."""
    return train(session, Settings(**settings))


def train(session: Session, settings: Settings) -> MaskedPolicy:
    """Return the trained policy."""
    with global_generators(session.seed):
        env = session.make_vec(settings.num_envs, bins=settings.bins, invalid_action="raise")
        learner = Agent(env)
        optimiser = torch.optim.Adam(learner.parameters(), lr=settings.learning_rate, eps=1e-5)
        observations, info = env.reset(seed=session.seed)
        state = torch.as_tensor(observations), torch.as_tensor(info["action_mask"]) > 0
        size = settings.num_envs * settings.num_steps
        for done in range(size, settings.steps + size, size):
            rollout, state = collect(env, learner, state, settings.num_steps)
            report_progress(session, done, settings.steps, rollout.rewards[rollout.ended].tolist())
            if session.oracle.spent:  # the last rewards are the floor of a spent budget
                break
            update(learner, optimiser, rollout, learner.value(state[0]).detach(), settings)
    return MaskedPolicy(learner.actor, settings.bins, session.seed)


def collect(
    env: Any, learner: Agent, state: tuple[Tensor, Tensor], steps: int
) -> tuple[Rollout, tuple[Tensor, Tensor]]:
    """Take so many steps in every environment; return them and the last observations and masks."""
    rows = []
    for _ in range(steps):
        observations, masks = state
        with torch.no_grad():
            policy = learner.policy(observations, masks)
            actions = policy.sample()
            values = learner.value(observations)
        following, rewards, terminated, _, info = env.step(actions.numpy())
        rewards, ended = torch.as_tensor(rewards, dtype=torch.float32), torch.as_tensor(terminated)
        rows.append(Rollout(observations, masks, actions, policy.log_prob(actions), values, rewards, ended))
        state = torch.as_tensor(following), torch.as_tensor(info["action_mask"]) > 0
    return Rollout(*(torch.stack(column) for column in zip(*rows, strict=True))), state


def advantages(rollout: Rollout, last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Return generalised advantage estimates (T, N) (Schulman et al., arXiv:1506.02438, Eq. 16).

    Args:
        rollout: of T steps in N environments.
        last: values (N,) of the states after it.
        gamma: discount.
        gae_lambda: weight of later temporal differences.
    """
    result, following = torch.zeros_like(rollout.values), torch.zeros_like(last)
    for step in reversed(range(len(result))):
        continues = 1 - rollout.ended[step].float()
        difference = rollout.rewards[step] + gamma * last * continues - rollout.values[step]
        following = difference + gamma * gae_lambda * following * continues
        result[step], last = following, rollout.values[step]
    return result


def update(
    learner: Agent, optimiser: torch.optim.Optimizer, rollout: Rollout, last: Tensor, settings: Settings
) -> None:
    """Update the agent with a rollout."""
    advantage = advantages(rollout, last, settings.gamma, settings.gae_lambda)
    returns = (advantage + rollout.values).flatten()
    flat, advantage = Rollout(*(column.flatten(0, 1) for column in rollout)), advantage.flatten()
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(returns)).chunk(settings.minibatches):
            part = Rollout(*(column[rows] for column in flat))
            loss = _loss(learner, part, advantage[rows], returns[rows], settings)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learner.parameters(), settings.max_grad_norm)
            optimiser.step()


def _loss(learner: Agent, part: Rollout, advantage: Tensor, returns: Tensor, settings: Settings) -> Tensor:
    """Return the loss of PPO (Schulman et al., arXiv:1707.06347, Eq. 9) on a minibatch."""
    policy = learner.policy(part.observations, part.masks)
    ratio = (policy.log_prob(part.actions) - part.log_probs).exp()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * (learner.value(part.observations) - returns).square().mean()
    return -surrogate + settings.value * value_loss - settings.entropy * policy.entropy().mean()


if __name__ == "__main__":
    command(train)
