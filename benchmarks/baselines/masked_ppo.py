"""Learning with sb3-contrib's MaskablePPO from a session, without a trace in the generators that it seeds."""

from collections.abc import Callable

from sb3_contrib import MaskablePPO

from agents import CrystalVecEnv
from benchmarks.harness.seeding import global_generators
from benchmarks.harness.session import Session

_ENDLESS = 10**12  # time steps: the session's callback ends learning


def learn(session: Session, bins: int, num_envs: int, make: Callable[[CrystalVecEnv], MaskablePPO]) -> MaskablePPO:
    """Make an agent for the session's environment, let it learn until the budget is spent, and return it."""
    with global_generators():  # stable-baselines3 seeds them
        env = CrystalVecEnv(session.make_vec(num_envs, bins=bins, mask_in_info=False))
        agent = make(env)
        return agent.learn(_ENDLESS, callback=session.callback())
