"""Masks, policies and returns that the scripts share."""

import re

import numpy as np
import pytest
import torch

from benchmarks.baselines.random_policy import UniformPolicy
from benchmarks.harness.session import Session
from benchmarks.libraries.common import MaskedPolicy, Settings, masked, mean_return, run
from benchmarks.tasks import Task

DENSE_METAL = Task(
    "CrystalGen-DenseMetal-v0",
    tier=0,
    summary="face-centred cubic elements of 12 g/cm^3",
    reward="benchmarks.tasks.targets:DensityTarget",
    reward_kwargs={"target": 12.0, "width": 12.0},
    score="successes",
    floor=0.0,
    constraints={"space_group": 225, "wyckoff_letters": "a"},
    budget=10**5,
    size=100,
    stability=False,
)


def test_masked_actions_get_zero_probability_others_keep_ratios():
    logits = torch.tensor([[1.0, 2.0, 50.0, 3.0]])
    masks = torch.tensor([[True, True, False, True]])
    probabilities = masked(logits, masks).softmax(-1)
    expected = torch.tensor([1.0, 2.0, 3.0]).softmax(-1)
    assert probabilities[0, 2] == 0
    torch.testing.assert_close(probabilities[0, [0, 1, 3]], expected)


def test_actions_have_the_masked_probabilities():
    logits = torch.tensor([0.3, -1.0, 9.0, 0.8])
    masks = np.tile([True, True, False, True], (20_000, 1))
    policy = MaskedPolicy(lambda observations: logits.expand(len(observations), 4), bins=48, seed=0)
    counts = np.bincount(policy.act(np.zeros((20_000, 5), np.int32), masks), minlength=4) / 20_000
    np.testing.assert_allclose(counts, masked(logits, torch.as_tensor(masks[0])).softmax(-1), atol=0.01)


def test_a_forbidden_action_is_an_error():
    class Forbidden:
        env_kwargs = {"bins": 48}  # noqa: RUF012

        def act(self, observations, masks):
            return masks.argmin(1)

    with pytest.raises(ValueError, match="allowed actions only, 100 episodes failed: action 0"):
        mean_return(Forbidden(), Session(DENSE_METAL))


def test_run_prints_progress_and_returns_what_it_prints(capsys, monkeypatch):
    def train(session, settings):
        session.progress("half of it")
        return UniformPolicy(settings.bins, session.seed)

    monkeypatch.setattr("benchmarks.libraries.common.find_task", lambda name: {"metal": DENSE_METAL}[name])
    before, after = run(train, Settings(steps=10), seed=2, task="metal")
    out = capsys.readouterr().out.splitlines()
    assert before == after
    assert out[0] == f"random policy: mean return {before:.3f} of 100 crystals"
    assert out[1] == "half of it"
    assert re.fullmatch(rf"after 10 steps in \d+ s: mean return {after:.3f} of 100 crystals", out[2])
