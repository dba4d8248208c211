import numpy as np
import torch

from agents.crystalformer.tokens import Tokens
from crystal_env import CrystalGenVectorEnv, sample_masked
from crystal_env.vocabulary import Phase


def test_states_are_read_up_to_their_last_site_and_not_beyond_it():
    """A crystal of 20 sites whose lengths are decided has no slot left: what follows in memory is the lattice."""
    env = CrystalGenVectorEnv(4, space_group=1, reward=None, bins=24)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    while not (env.states.phase == Phase.GAMMA).all():
        masks = env.action_masks().copy()
        going_on = masks.copy()
        going_on[:, 0] = False  # no STOP as long as there is a choice
        masks = np.where(going_on.any(1, keepdims=True), going_on, masks)
        masks[:, 146:] &= ~(masks[:, 146:] & (np.cumsum(masks[:, 146:][:, ::-1], 1)[:, ::-1] > 1))  # the highest number
        env.step(sample_masked(masks, rng))
    tokens = Tokens.from_states(env.states, torch.float32, torch.device("cpu"))
    assert tokens.W.shape == (4, 21)
    assert (tokens.W[:, :20] == 1).all()
    assert (tokens.W[:, 20] == 0).all()
    assert (tokens.A[:, 20] == 0).all()
