"""Crystals that are relaxed before they are scored."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_agent import agent, learn, sampled
from tiny_grammar import reward

from agents import KLPPO, CrystalFormerConfig
from agents.klppo.config import KLPPOConfig, TrainConfig
from agents.klppo.selection import some_with_free_coordinates
from agents.training.transitions import PARTS
from crystal_env import Crystal, CrystalBatch
from crystal_env.wyckoff import tables

SIZES = CrystalFormerConfig(n_layers=1, n_heads=2, key_size=8, model_size=16, embed_size=8, first_letter_size=16)
OPTIONS = {"space_group": [2, 12, 225], "max_sites": 3, "max_atoms": 24}


def continuous(**options):
    """Return an environment in whose groups 2 and 12 sites have free coordinates."""
    options = {"action_mode": "continuous", "reward": reward, **OPTIONS, **options}
    return gym.make_vec("CrystalGen-v0", **options)


def learner(relax, fraction=1.0, **options):
    torch.manual_seed(0)
    return agent(
        continuous(**options), loss="topr", batch_size=40, relax_fraction=fraction, relax=relax,
        policy_kwargs={"model": SIZES},
    )  # fmt: skip


class Shift:
    """Makes all cells three times as large; fails on every second crystal if asked to. Keeps what it was given."""

    def __init__(self, fails=False):
        self.fails, self.given = fails, []

    def __call__(self, crystals):
        self.given.append(crystals)
        reasons = np.full(len(crystals), None, object)
        if self.fails:
            reasons[::2] = "no convergence"
        larger = crystals.L * np.array([3.0, 3, 3, 1, 1, 1])
        return CrystalBatch(crystals.G, crystals.W, crystals.A, crystals.XYZ, larger), reasons


def is_free(crystals):
    return np.array([tables().free_coordinates[c.G, c.W].any() for c in crystals])


def test_a_random_fraction_of_those_with_free_coordinates_is_taken():
    fixed, free = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5-5-5-90-90-90", "225-a-Na-0-0-0-e-F-0.2-0-0-X-9-9-9-90-90-90"
    crystals = CrystalBatch.from_crystals(Crystal.from_string(text) for text in [fixed, free, free, fixed, free, free])
    rng = np.random.default_rng(0)
    assert some_with_free_coordinates(crystals, 1.0, rng).tolist() == [1, 2, 4, 5]
    assert some_with_free_coordinates(crystals, 0.1, rng).tolist() == []
    assert some_with_free_coordinates(CrystalBatch.empty(), 1.0, rng).tolist() == []
    halves = [some_with_free_coordinates(crystals, 0.5, rng) for _ in range(200)]
    assert {len(rows) for rows in halves} == {2}
    np.testing.assert_allclose(np.bincount(np.concatenate(halves), minlength=6)[[1, 2, 4, 5]], 100, atol=30)


def test_relaxed_crystals_are_scored_and_learned_from_as_they_are_then():
    relax, scored = Shift(), []

    def counting(crystals):
        scored.append(crystals)
        return reward(crystals)

    one = learner(relax, reward=counting)
    rollout = sampled(one)
    free = is_free(rollout.crystals)
    assert 0 < free.sum() < len(free)
    assert [len(batch) for batch in scored] == [40]
    before = iter(relax.given[0])
    for crystal, is_one in zip(scored[0], free, strict=True):
        if is_one:
            np.testing.assert_allclose(crystal.L[:3], 3 * next(before).L[:3])
    assert next(before, None) is None
    assert rollout.is_relaxed.tolist() == free.tolist()
    expected = one.model.log_prob(rollout.crystals, **{k: v for k, v in OPTIONS.items() if k != "space_group"})
    for name in PARTS:
        np.testing.assert_allclose(rollout.log_prob[name], getattr(expected, name).detach(), atol=1e-4)
    learn(one, 1, log_interval=0)
    assert one.buffer.data.is_sampled[:40].tolist() == (~free).tolist()


def test_a_crystal_that_fails_stays_as_it_was():
    relax = Shift(fails=True)
    rollout = sampled(learner(relax, 0.5))
    n = len(relax.given[0])
    assert n == round(0.5 * is_free(rollout.crystals).sum())
    assert rollout.is_relaxed.sum() == n // 2
    lengths = {tuple(crystal.L) for crystal in rollout.crystals}
    for row, crystal in enumerate(relax.given[0]):
        assert (tuple(crystal.L) in lengths) == (row % 2 == 0)


def test_a_relaxed_crystal_that_the_policy_cannot_sample_stays_as_it_was():
    def leave_the_constraints(crystals):
        W, A = crystals.W.copy(), crystals.A.copy()
        A[W > 0] = 92  # uranium, which is not allowed
        return CrystalBatch(crystals.G, W, A, crystals.XYZ, crystals.L), np.full(len(crystals), None, object)

    rollout = sampled(learner(leave_the_constraints, elements=[8, 14]))
    assert not rollout.is_relaxed.any()
    assert set(np.unique(rollout.crystals.A)) <= {0, 8, 14}


def test_another_number_of_crystals_is_refused():
    with pytest.raises(ValueError, match=r"relax must return \d+ crystals and reasons, got 1, 1"):
        sampled(learner(lambda crystals: (crystals[:1], np.full(1, None, object))))


def test_without_it_nothing_changes():
    def never(crystals):
        raise AssertionError

    one, other = agent(loss="topr", relax=never), agent(loss="topr")
    for each in (one, other):
        learn(each, 2, log_interval=0)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))
    assert "rollout/relaxed" not in one.logger.name_to_value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"relax_fraction": 0.5}, "relax_fraction need a replay buffer"),
        ({"loss": "topr", "relax_fraction": 1.5}, "relax_fraction must"),
        ({"loss": "topr", "relax": 3}, "relax must be"),
        ({"loss": "topr", "relax_fraction": 0.5, "relax": "rewards.relaxation.relax:Nothing"}, "Nothing"),
        ({"loss": "topr", "relax_fraction": 0.5, "relax_kwargs": {"stepz": 3}}, "stepz"),
    ],
)
def test_what_is_wrong_is_said_at_once(options, words):
    with pytest.raises(ValueError, match=words):
        KLPPOConfig(**options)


def test_a_run_keeps_its_relaxation():
    config = TrainConfig(run=Path("run"), loss="topr", relax_fraction=0.25, relax_kwargs={"steps": 5})
    assert json.loads(json.dumps(config.plain()))["relax_kwargs"] == {"steps": 5}
    assert config.agent_options()["relax"] == "rewards.relaxation.relax:Relaxation"


def test_a_real_relaxation_lowers_the_energy(tmp_path):
    from rewards.relaxation.relax import Relaxation

    options = {"space_group": 225, "elements": [11, 17], "required_elements": [11, 17], "max_sites": 2, "max_atoms": 8}
    env = gym.make_vec("CrystalGen-v0", action_mode="continuous", reward="rewards:EnergyAboveHull", **options)
    one = KLPPO(
        "CrystalFormerPolicy", env, preset="best", batch_size=4, learning_starts=0, relax_fraction=1.0, seed=0,
        relax_kwargs={"steps": 2}, policy_kwargs={"model": "mp20"},
    )  # fmt: skip
    one.learn(n_iterations=1)
    assert isinstance(one.config.relaxation(), Relaxation)
    one.save(tmp_path / "agent.zip")
    assert KLPPO.load(tmp_path / "agent.zip").relax_fraction == 1.0
