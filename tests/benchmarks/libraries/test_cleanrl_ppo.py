"""Advantages against their sums."""

import numpy as np
import torch

from benchmarks.libraries.cleanrl_ppo import Rollout, advantages


def test_advantages_are_sums_of_discounted_differences():
    rng = np.random.default_rng(0)
    T, N, gamma, lam = 7, 3, 0.9, 0.8
    values, rewards, last = rng.normal(size=(T, N)), rng.normal(size=(T, N)), rng.normal(size=N)
    ended = rng.random((T, N)) < 0.3
    expected = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                following = 0.0 if ended[k, n] else (last[n] if k == T - 1 else values[k + 1, n])
                expected[t, n] += weight * (rewards[k, n] + gamma * following - values[k, n])
                if ended[k, n]:
                    break
                weight *= gamma * lam
    empty = torch.empty(0)
    rollout = Rollout(empty, empty, empty, empty, *(torch.as_tensor(array) for array in (values, rewards, ended)))
    result = advantages(rollout, torch.as_tensor(last), gamma, lam)
    np.testing.assert_allclose(result, expected, atol=1e-12)
