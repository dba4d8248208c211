"""Each library learns, keeps to the masks, leaves the process unchanged; the pages on them run."""

import gc
import importlib
import random
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.baselines.random_policy import UniformPolicy
from benchmarks.harness.rollout import sample_agent
from benchmarks.harness.session import Session
from benchmarks.libraries.common import mean_return
from benchmarks.tasks import Task
from rewards.remote.ray_session import start_ray

PAGES = Path(__file__).resolve().parents[3] / "docs" / "libraries"
LIBRARIES = {"cleanrl": "torch", "rllib": "ray.rllib", "tianshou": "tianshou", "torchrl": "torchrl"}
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
"""Two real choices, the element and the length of the cell, among four decisions."""

TWO_SITES = replace(
    DENSE_METAL,
    id="CrystalGen-TwoSites-v0",
    reward="rewards:Density",
    reward_kwargs={},
    constraints={"max_sites": 2},
)
TINY = {"bins": 24, "steps": 128, "num_envs": 4, "num_steps": 16, "minibatches": 2, "epochs": 1}


@pytest.fixture(scope="module")
def one_ray():
    """One instance of Ray for all tests: its start takes seconds."""
    ray = pytest.importorskip("ray")
    start_ray(ray, cores=None)
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # processes that Ray has asked to end, and forgets
        ray.shutdown()
        gc.collect()


@pytest.fixture(params=sorted(LIBRARIES))
def script(request):
    """The script of a library, where it is installed."""
    pytest.importorskip(LIBRARIES[request.param], exc_type=ImportError)
    if request.param == "rllib":
        request.getfixturevalue("one_ray")
    with warnings.catch_warnings():
        # RLlib registers the environments of all algorithms under one name
        warnings.filterwarnings("ignore", "(.*)Overriding environment rllib-single-agent-env-v0")
        yield importlib.import_module(f"benchmarks.libraries.{request.param}_ppo")


def global_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def actions_of(policy):
    sample = sample_agent(policy, TWO_SITES.resized(size=20), seed=5)
    assert not sample.failures
    return [str(crystal) for crystal in sample.crystals]


def test_learns_what_the_random_policy_does_not(script):
    session = Session(DENSE_METAL, seed=1)
    assert mean_return(UniformPolicy(48, 1), session) < 0.2
    policy = script.agent(session, steps=4096, num_steps=8, minibatches=2, learning_rate=4e-3)
    assert mean_return(policy, session) > 0.6
    assert session.oracle.queried == 100 + 4096 // 4 + 100  # that of the session was queried, not a copy


def test_takes_allowed_actions_only_and_repeats_with_a_seed(script):
    before = global_states()
    policys = [script.agent(Session(TWO_SITES, seed), **TINY) for seed in (3, 3, 4)]
    assert global_states() == before
    crystals = [actions_of(policy) for policy in policys]
    assert crystals[0] == crystals[1] != crystals[2]


def test_what_the_oracle_refuses_is_no_lesson(script):
    """With a budget that the first iteration spends, the agent is what it was before it."""
    short = Session(TWO_SITES.resized(budget=1), seed=3)
    one = Session(TWO_SITES.resized(budget=1), seed=3)
    policys = [
        script.agent(short, **TINY | {"steps": 10**9, "num_steps": 32}),
        script.agent(one, **TINY | {"steps": 1, "num_steps": 32, "learning_rate": 0.0}),
    ]
    assert short.oracle.spent
    assert actions_of(policys[0]) == actions_of(policys[1])


def test_python_of_the_page_runs(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = script.__name__.rsplit(".", 1)[1].removesuffix("_ppo")
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / f"{name}.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, object] = {"TINY": TINY, "TWO_SITES": TWO_SITES}
    for block in blocks:
        block = block.replace("steps=200_000", "**TINY").replace('find_task("validity")', "TWO_SITES")
        exec(block, namespace)
    assert len(namespace["sample"].crystals) == len(namespace["sample"].requested)
