"""Training sb3-contrib's MaskablePPO in a session, with the global random generators restored afterwards."""

from collections.abc import Callable

from sb3_contrib import MaskablePPO

from agents import CrystalVecEnv
from benchmarks.harness.seeding import global_generators
from benchmarks.harness.session import Session

_ENDLESS = 10**12  # time steps: the session's callback ends training


def learn(session: Session, bins: int, num_envs: int, make: Callable[[CrystalVecEnv], MaskablePPO]) -> MaskablePPO:
    """Make an agent for the session's environment, train it until the budget is spent, and return it."""
    with global_generators():  # stable-baselines3 seeds them
        env = CrystalVecEnv(session.make_vec(num_envs, bins=bins, mask_in_info=False))
        agent = make(env)
        return agent.learn(_ENDLESS, callback=session.callback())
