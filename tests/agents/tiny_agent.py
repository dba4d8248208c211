"""A small `KLPPO` on the tiny grammar, and how tests let it learn."""

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from tiny_grammar import base_model, environment

from agents import KLPPO

SEVERAL = 2**31  # decisions that no test reaches


class Stop(BaseCallback):
    """Ends learning after some iterations; keeps what was sampled."""

    def __init__(self, iterations):
        super().__init__()
        self.iterations, self.rollouts = iterations, []

    def _on_step(self):
        self.rollouts.append(self.locals["rollout"])
        return len(self.rollouts) <= self.iterations


def agent(env=None, **options):
    options = {"batch_size": 64, "learning_rate": 3e-3, "seed": 0, "policy_kwargs": {"model": base_model()}, **options}
    one = KLPPO("CrystalFormerPolicy", environment() if env is None else env, **options)
    one.set_logger(Logger(None, []))
    return one


def learn(one, iterations, **options):
    stop = Stop(iterations)
    one.learn(SEVERAL, callback=stop, **options)
    return stop.rollouts


def sampled(one):
    """Let an agent sample a batch; return it."""
    return learn(one, 0)[0]


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
