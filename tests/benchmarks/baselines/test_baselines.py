"""The baselines: settings, budgets, constraints, seeds, and the page that describes them."""

import json
import random
import re
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks.baselines as baselines
from benchmarks.harness.agent_loading import load_agent
from benchmarks.harness.rollout import keeps, sample_agent
from benchmarks.harness.session import Session
from benchmarks.tasks import find_task

BUDGET, SIZE = 12, 6
SMALL = {
    "RandomPolicy": {"num_envs": 8},
    "MarginalSampler": {"batch_size": 8},
    "ElementSubstitution": {"batch_size": 8},
    "GeneticAlgorithm": {"generations": 3},
    "BaseModel": {"batch_size": 8},
    "BaseModelRelaxed": {"steps": 2},
    "BestOfN": {"batch_size": 8},
    "SupervisedFineTuning": {"rounds": 2, "epochs": 1, "sample_batch_size": 8},
    "MCMC": {"steps": 3},
    "MaskablePPOMLP": {"num_envs": 4, "n_steps": 16, "batch_size": 32},
    "MaskablePPOCrystalFormer": {"num_envs": 4, "n_steps": 16, "batch_size": 32},
    "KLPPOPaper": {"iterations": 3, "settings": {"n_epochs": 2}},
    **{
        name: {"iterations": 3}
        for name in ("KLPPOBest", "KLPPOBalance", "KLPPOPositives", "KLPPOSeeded", "ExpertIteration", "KLPPOOnPolicy")
    },
    "TokenPPO": {"iterations": 3, "settings": {"n_epochs": 2, "ratio": "token"}},
    "LeaveOneOutREINFORCE": {"iterations": 3},
}


@pytest.fixture
def perovskites(data_folder):
    return find_task("perovskites").resized(BUDGET, SIZE)


def agent(name, training_set):
    kwargs = SMALL[name]
    cls = getattr(baselines, name)
    if "training_set" in {field.name for field in fields(cls)}:
        kwargs = {**kwargs, "training_set": training_set}
    return cls(**kwargs)


def played(name, task, seed, training_set):
    session = Session(task, seed=seed)
    sampler = agent(name, training_set).train(session)
    return session, sample_agent(sampler, task, seed)


def equal(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("G", "W", "A", "XYZ", "L"))


def test_settings_of_every_baseline_round_trip_through_json():
    assert set(SMALL) == set(baselines.__all__)
    for name in baselines.__all__:
        made = getattr(baselines, name)()
        assert is_dataclass(made)
        assert made.__dataclass_params__.frozen
        settings = json.loads(json.dumps(asdict(made)))
        again = load_agent(f"benchmarks.baselines:{name}", settings)
        assert json.loads(json.dumps(asdict(again))) == settings
    with pytest.raises(AttributeError, match="Nothing"):
        _ = baselines.Nothing


@pytest.mark.parametrize("name", SMALL)
def test_a_baseline_keeps_budget_constraints_and_seed(name, perovskites, training_set):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    session, samples = played(name, perovskites, 0, training_set)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert session.oracle.calls == (BUDGET // 3 if name == "BaseModelRelaxed" else BUDGET)
    assert [failure for failure in samples.failures if failure is not None] == []
    assert len(samples.crystals) == SIZE
    assert keeps(session.oracle.crystals, perovskites).all()
    again, samples_again = played(name, perovskites, 0, training_set)
    assert equal(session.oracle.crystals, again.oracle.crystals)
    assert equal(samples.crystals, samples_again.crystals)


@pytest.mark.parametrize("name", ["RandomPolicy", "GeneticAlgorithm", "BestOfN"])
def test_another_seed_gives_something_else(name, perovskites, training_set):
    crystals = [played(name, perovskites, seed, training_set)[0].oracle.crystals for seed in (0, 1)]
    assert not equal(*crystals)


@pytest.mark.parametrize("name", ["GeneticAlgorithm", "MarginalSampler", "SupervisedFineTuning"])
def test_a_baseline_samples_any_requested_group(name, training_set):
    session, samples = played(name, find_task("validity").resized(BUDGET, SIZE), 0, training_set)
    assert session.oracle.calls == BUDGET
    assert [failure for failure in samples.failures if failure is not None] == []
    assert np.array_equal(samples.crystals.G, samples.requested)


def test_the_genetic_algorithm_beats_the_random_policy(data_folder, training_set):
    task = find_task("perovskites").resized(300, SIZE)
    best = {}
    for name, kwargs in {"RandomPolicy": {}, "GeneticAlgorithm": {"training_set": training_set}}.items():
        session = Session(task, seed=0)
        getattr(baselines, name)(**kwargs).train(session)
        best[name] = np.sort(session.oracle.result().total)[-10:].mean()
    assert best["GeneticAlgorithm"] > best["RandomPolicy"] + 0.1


def test_the_page_of_baselines_shows_code_that_runs():
    page = (Path(__file__).resolve().parents[3] / "docs" / "baselines.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found = {}
    exec(code, found)
    assert len(found["crystals"]) == found["task"].size == 50
    assert found["session"].oracle.calls == found["task"].budget == 200
