"""Learning with sb3-contrib's MaskablePPO from a session, without a trace in the generators that it seeds."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sb3_contrib import MaskablePPO

from agents import CrystalVecEnv
from benchmarks.session import Session

_ENDLESS = 10**12  # time steps: the session's callback ends learning


def learn(session: Session, bins: int, num_envs: int, make: Callable[[CrystalVecEnv], MaskablePPO]) -> MaskablePPO:
    """Make an agent for the session's environment, let it learn until the budget is spent, and return it."""
    with _generators_kept():
        env = CrystalVecEnv(session.make_vec(num_envs, bins=bins, mask_in_info=False))
        agent = make(env)
        return agent.learn(_ENDLESS, callback=session.callback())


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Put the global generators back to where they were; stable-baselines3 seeds all of them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  what the library uses
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
