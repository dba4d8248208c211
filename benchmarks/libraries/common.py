"""What the scripts share, whatever the library: settings, a network, a policy, a command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
import tyro
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from agents import TokenFeatures
from benchmarks.baselines.random_policy import UniformPolicy
from benchmarks.harness.rollout import sample_agent
from benchmarks.harness.session import Session
from benchmarks.tasks import find_task
from crystal_env.errors import InputError

HIDDEN = 128
"""Width of the layers."""

_EMBED = 8  # numbers of the embedding of a token
_MASKED = -1e9  # as a logit: the probability is exactly 0, and what is summed with it stays finite


@dataclass(frozen=True)
class Settings:
    """Settings of PPO, the same in all libraries.

    Attributes:
        steps: Decisions to train on; training ends earlier when the session's budget is spent.
        bins: Numeric bins of the environment.
        num_envs: Episodes in parallel.
        num_steps: Decisions of each environment between updates.
        epochs: Passes over the decisions of an update.
        minibatches: Optimiser steps in a pass.
        learning_rate: Adam learning rate.
        gamma: Discount factor.
        gae_lambda: Lambda of generalised advantage estimation.
        clip: Clipping range of the probability ratio.
        entropy: Entropy coefficient.
        value: Value loss coefficient.
        max_grad_norm: Norm that longer gradients are clipped to.
    """

    steps: int = 200_000
    bins: int = 48
    num_envs: int = 64
    num_steps: int = 64
    epochs: int = 4
    minibatches: int = 8
    learning_rate: float = 1e-3
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    value: float = 0.5
    max_grad_norm: float = 0.5


class TokenNetwork(nn.Module):
    """The `token_body` followed by a linear layer.

    Args:
        observation_space: the box of tokens of the discrete environment.
        outputs: numbers returned for an observation.
    """

    def __init__(self, observation_space: spaces.Box, outputs: int) -> None:
        super().__init__()
        self.body = token_body(observation_space)
        self.head = nn.Linear(HIDDEN, outputs)
        nn.init.normal_(self.head.weight, std=0.01)  # all allowed actions are about equally probable at first
        nn.init.zeros_(self.head.bias)

    def forward(self, observations: Tensor) -> Tensor:
        """Return (..., outputs) for observations (..., T)."""
        outputs: Tensor = self.head(self.body(observations.flatten(0, -2)))
        return outputs.unflatten(0, observations.shape[:-1])


def token_body(observation_space: spaces.Box) -> nn.Sequential:
    """Return a network from observations (B, T), whose numbers are embedded, to features (B, `HIDDEN`).

    The numbers are names (of a space group, a phase, an element, a bin), not quantities: to a network that takes them
    as quantities, silicon is the mean of hydrogen and cobalt.
    """
    tokens = TokenFeatures(observation_space, _EMBED)
    widths = nn.Linear(tokens.features_dim, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
    return nn.Sequential(tokens, widths[0], nn.Tanh(), widths[1], nn.Tanh())


class MaskedPolicy:
    """Samples actions from masked logits, with a random generator of its own.

    Args:
        logits: function from observations (N, T) to logits (N, V).
        bins: numeric bins of the environment that it acts in.
        seed: of the actions.

    Attributes:
        env_kwargs: arguments of the environment that it acts in.
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], bins: int, seed: int) -> None:
        self.logits, self.env_kwargs = logits, {"bins": bins}
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Reset the random numbers."""
        self._generator = torch.Generator().manual_seed(seed)

    def act(self, observations: NDArray[Any], masks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return actions (N,) for observations (N, T) and masks (N, V)."""
        with torch.no_grad():
            logits = masked(self.logits(torch.as_tensor(observations)), torch.as_tensor(masks))
            actions = torch.multinomial(logits.softmax(-1), 1, generator=self._generator)
        result: NDArray[np.int64] = actions[:, 0].numpy()
        return result


def masked(logits: Tensor, masks: Tensor) -> Tensor:
    """Return logits (..., V) whose forbidden actions by masks (..., V) have probability 0."""
    return logits.masked_fill(~masks.bool(), _MASKED)


def report_progress(session: Session, done: int, steps: int, returns: Sequence[float]) -> None:
    """Show the progress of training, and the mean return of the crystals finished since the last call."""
    mean = f"mean return {np.mean(returns):.3f} of {len(returns)} crystals" if len(returns) else "no crystal finished"
    session.progress(f"{done:,} of {steps:,} steps: {mean}")


def mean_return(policy: Any, session: Session) -> float:
    """Return the mean return of as many crystals of a policy as the task's size.

    Raises:
        ValueError: if an action was not allowed.
    """
    samples = sample_agent(policy, session.task, session.seed)
    if failed := list(samples.failures.values()):
        raise InputError(f"policy must take allowed actions only, {len(failed)} episodes failed: {failed[0]}")
    return float(session.score(samples.crystals).total.mean())


class _PrintingSession(Session):
    def progress(self, text: str | None) -> None:
        print(text or "", flush=True)


def run(
    train: Callable[[Session, Settings], MaskedPolicy], settings: Settings, seed: int = 0, task: str = "validity"
) -> tuple[float, float]:
    """Train on a task with as many oracle calls as it takes, and print the returns before and after.

    Args:
        train: the function of a script.
        settings: settings of PPO.
        seed: of all random numbers.
        task: name of the task that gives environment and reward.

    Returns:
        Mean returns of the random policy and of the trained one.
    """
    chosen = find_task(task).case(0)
    session = _PrintingSession(chosen.resized(budget=2 * (settings.steps + chosen.size)), seed)
    before = mean_return(UniformPolicy(settings.bins, seed), session)
    print(f"random policy: mean return {before:.3f} of {chosen.size} crystals")
    start = perf_counter()
    policy = train(session, settings)
    seconds = perf_counter() - start
    after = mean_return(policy, session)
    print(f"after {settings.steps:,} steps in {seconds:.0f} s: mean return {after:.3f} of {chosen.size} crystals")
    return before, after


def command(train: Callable[[Session, Settings], MaskedPolicy]) -> None:
    """Read settings, seed and task from the command line, and `run`."""

    def main(settings: Settings, seed: int = 0, task: str = "validity") -> None:
        """Train on a task, and print the mean return before and after.

        Args:
            settings: Settings of PPO.
            seed: Seed of all random numbers.
            task: Name of the task that gives environment and reward.
        """
        run(train, settings, seed, task)

    tyro.cli(main, config=(OmitArgPrefixes,))
