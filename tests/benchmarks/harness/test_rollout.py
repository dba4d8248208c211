import numpy as np
import pandas as pd
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from agents import KLPPO, CrystalVecEnv
from benchmarks.evaluation.evaluate import evaluate
from benchmarks.harness.rollout import keeps, sample_agent
from benchmarks.harness.session import Session
from benchmarks.tasks import Task, find_task
from crystal_env import Crystal, CrystalBatch, sample_masked

SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.6-5.6-5.6-90-90-90"
TASK = find_task("validity").resized(budget=50, size=40)


class Random:
    def __init__(self, **env_kwargs):
        self.env_kwargs, self.rng, self.seen = env_kwargs, np.random.default_rng(0), []

    def seed(self, seed):
        self.rng = np.random.default_rng(seed)

    def act(self, observations, masks):
        self.seen.append((len(observations), masks.shape))
        return sample_masked(masks, self.rng)


class Stopper(Random):
    """Takes an invalid action in every second row."""

    def act(self, observations, masks):
        actions = super().act(observations, masks)
        return np.where(observations[:, 0] % 2, actions, 0)


def test_each_attempt_is_an_episode_in_the_requested_group():
    policy = Random(bins=48)
    samples = sample_agent(policy, TASK, seed=3)
    assert len(samples.crystals) == len(samples.rows) == len(samples.requested) == 40
    assert samples.crystals.G.tolist() == samples.requested[samples.rows].tolist()
    assert policy.seen[0] == (40, (40, 146 + 48))
    assert policy.seen[-1][0] < 40
    again = sample_agent(Random(bins=48), TASK, seed=3)
    assert [str(a) for a in samples.crystals] == [str(b) for b in again.crystals]
    other = sample_agent(Random(bins=48), TASK, seed=4)
    assert other.requested.tolist() != samples.requested.tolist()


def test_requested_groups_do_not_depend_on_the_agent():
    class Sampler:
        def sample(self, space_groups, seed):
            return sample_agent(Random(), TASK, seed=3).crystals

    assert (
        sample_agent(Sampler(), TASK, seed=3).requested.tolist()
        == sample_agent(Random(), TASK, seed=3).requested.tolist()
    )


def test_invalid_actions_fail_and_harm_no_other_attempt():
    samples = sample_agent(Stopper(), TASK, seed=0)
    odd = samples.requested % 2 == 1
    assert set(samples.rows.tolist()) == set(np.flatnonzero(odd).tolist())
    assert list(samples.failures) == np.flatnonzero(~odd).tolist()
    assert set(samples.failures.values()) == {"action 0 is invalid"}


def test_crystals_of_other_groups_or_against_constraints_fail():
    task = Task("CrystalGen-X-v1", 0, "", "rewards:Validity", "sun", constraints={"elements": ["Na", "Cl"]}, size=3)
    texts = ["225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5-5-5-90-90-90", "225-a-Mg-0-0-0-b-O-1/2-1/2-1/2-X-4-4-4-90-90-90"]
    batch = CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])
    assert keeps(batch, task).tolist() == [True, False]
    samples = sample_agent(batch, task, seed=0)
    assert samples.rows.tolist() == [0]
    assert samples.failures == {1: "the crystal does not meet the task's constraints", 2: "missing"}

    class Wrong:
        def sample(self, space_groups, seed):
            return CrystalBatch.concatenate([batch[:1]] * len(space_groups))

    wrong = sample_agent(Wrong(), task, seed=0)
    assert set(wrong.rows) == set(np.flatnonzero(wrong.requested == 225))
    assert all("requested was" in failure for failure in wrong.failures.values())


def test_failed_rows_of_a_file_are_named(tmp_path):
    path = tmp_path / "made.csv"
    good = Crystal.from_string(SALT).to_structure().to(fmt="cif")
    pd.DataFrame({"cif": [good, "nonsense", good]}).to_csv(path, index=False)
    samples = sample_agent(path, TASK.resized(size=4), seed=0)
    assert samples.rows.tolist() == [0, 2]
    assert list(samples.failures) == [1, 3]
    assert samples.failures[3] == "missing"


def test_a_file_counts_the_same_in_evaluation_and_benchmark(tmp_path):
    """Structures outside the representation included: they are no failures where the task has no constraints."""
    salt = Crystal.from_string(SALT).to_structure()
    many = salt.copy()
    many.make_supercell([2, 2, 1])
    many.perturb(0.02)
    path = tmp_path / "made.csv"
    pd.DataFrame({"cif": [one.to(fmt="cif") for one in (many, salt)] + ["nonsense"]}).to_csv(path, index=False)
    samples = sample_agent(path, TASK.resized(size=3), seed=0)
    metrics = evaluate(path, reference=CrystalBatch.empty(), n_jobs=1).metrics
    assert samples.rows.tolist() == metrics.samples.rows.tolist() == [0, 1]
    assert samples.represented.tolist() == metrics.samples.represented.tolist() == [False, True]
    assert samples.failures == metrics.samples.failures
    constrained = Task("CrystalGen-X-v1", 0, "", "rewards:Validity", "sun", constraints={"max_sites": 9}, size=3)
    assert "task's constraints are defined" in sample_agent(path, constrained, seed=0).failures[0]


def test_stock_agents_use_masks_if_they_can_and_fail_without(recwarn):
    session = Session(TASK)
    make = lambda: CrystalVecEnv(session.make_vec(8, bins=24))  # noqa: E731
    kwargs = {"n_steps": 32, "batch_size": 256, "n_epochs": 1, "device": "cpu", "seed": 0}
    masked = MaskablePPO("MlpPolicy", make(), **kwargs).learn(10_000, callback=session.callback())
    assert session.oracle.spent
    samples = sample_agent(masked, TASK, seed=0)
    assert len(samples.rows) == 40
    again = sample_agent(masked, TASK, seed=0)
    assert [str(a) for a in samples.crystals] == [str(b) for b in again.crystals]
    blind = sample_agent(PPO("MlpPolicy", make(), **kwargs), TASK, seed=0)
    assert len(blind.rows) < 40


@pytest.mark.parametrize("temperature", [1.0, {"lattice": 0.1}], ids=str)
def test_klppo_samples_requested_groups_with_likelihoods(temperature):
    env, kwargs = Session(TASK).make_vec(1), {"model": "mp20"}
    agent = KLPPO("CrystalFormerPolicy", env, batch_size=8, policy_kwargs=kwargs, temperature=temperature, seed=0)
    samples = sample_agent(agent, TASK.resized(size=6), seed=0)
    assert samples.crystals.G.tolist() == samples.requested.tolist()
    with torch.no_grad():  # at the temperature of its training, whatever the base model recommends
        options = {"bins": agent.adapter.bins, "temperature": temperature, **TASK.options}
        expected = agent.model.log_prob(samples.crystals, **options).total
    np.testing.assert_allclose(samples.log_prob, expected, rtol=1e-4, atol=1e-4)


def test_anything_else_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match=r"act\(observations, masks\).*got 7"):
        sample_agent(7, TASK, seed=0)
