"""Micro-batches of MaskablePPO's update."""

import numpy as np
import torch

from agents import CrystalFormerPolicy, CrystalVecEnv
from benchmarks.baselines.maskable_ppo_crystalformer import MicroBatchedPolicy
from benchmarks.harness.session import Session
from benchmarks.tasks import find_task
from crystal_env import sample_masked


def test_a_micro_batched_update_has_the_numbers_of_a_whole_one():
    env = CrystalVecEnv(Session(find_task("validity")).make_vec(24, bins=48))
    policies = [
        cls(env.observation_space, env.action_space, lambda _: 1e-4)
        for cls in (CrystalFormerPolicy, MicroBatchedPolicy)
    ]
    policies[1].load_state_dict(policies[0].state_dict())
    rng, rows = np.random.default_rng(0), []
    env.seed(0)
    observations = env.reset()
    for _ in range(12):
        masks = np.array(env.env_method("action_masks"))
        actions = sample_masked(masks, rng)
        rows.append((observations, actions, masks))
        observations = env.step(actions)[0]
    at = rng.permutation(288)[:60]
    batch = [torch.as_tensor(np.concatenate(column)[at]) for column in zip(*rows, strict=True)]
    for whole, parts in zip(*(policy.evaluate_actions(*batch) for policy in policies), strict=True):
        assert torch.allclose(whole, parts, atol=1e-4)
