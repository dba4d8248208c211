"""Each library learns, keeps to the masks, and leaves the process as it found it; the pages on them run."""

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
from benchmarks.harness.rollout import draw
from benchmarks.harness.seeding import global_generators
from benchmarks.harness.session import Session
from benchmarks.libraries.cleanrl_ppo import Rollout, advantages
from benchmarks.libraries.common import MaskedPolicy, Settings, masked, mean_return, run
from benchmarks.tasks import Task
from rewards.remote.ray_session import start_ray

PAGES = Path(__file__).resolve().parents[2] / "docs" / "libraries"
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
    judge=False,
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
        warnings.simplefilter("ignore", ResourceWarning)  # processes that Ray has told to end, and forgets
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


def actions_of(player):
    drawn = draw(player, TWO_SITES.resized(size=20), seed=5)
    assert not any(drawn.failures)
    return [str(crystal) for crystal in drawn.crystals]


def test_learns_what_random_play_does_not_know(script):
    session = Session(DENSE_METAL, seed=1)
    assert mean_return(UniformPolicy(48, 1), session) < 0.2
    player = script.agent(session, steps=4096, num_steps=8, minibatches=2, learning_rate=4e-3)
    assert mean_return(player, session) > 0.6
    assert session.oracle.asked == 100 + 4096 // 4 + 100  # that of the session was asked, not a copy


def test_takes_allowed_actions_only_and_repeats_with_a_seed(script):
    before = global_states()
    players = [script.agent(Session(TWO_SITES, seed), **TINY) for seed in (3, 3, 4)]
    assert global_states() == before
    drawn = [actions_of(player) for player in players]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_the_oracle_refuses_is_no_lesson(script):
    """With a budget that the first iteration spends, the agent is what it was before it."""
    short = Session(TWO_SITES.resized(budget=1), seed=3)
    one = Session(TWO_SITES.resized(budget=1), seed=3)
    players = [
        script.agent(short, **TINY | {"steps": 10**9, "num_steps": 32}),
        script.agent(one, **TINY | {"steps": 1, "num_steps": 32, "learning_rate": 0.0}),
    ]
    assert short.oracle.spent
    assert actions_of(players[0]) == actions_of(players[1])


def test_a_masked_action_has_probability_zero_and_the_others_keep_their_ratios():
    logits = torch.tensor([[1.0, 2.0, 50.0, 3.0]])
    masks = torch.tensor([[True, True, False, True]])
    probabilities = masked(logits, masks).softmax(-1)
    expected = torch.tensor([1.0, 2.0, 3.0]).softmax(-1)
    assert probabilities[0, 2] == 0
    torch.testing.assert_close(probabilities[0, [0, 1, 3]], expected)


def test_player_draws_with_the_masked_probabilities():
    logits = torch.tensor([0.3, -1.0, 9.0, 0.8])
    masks = np.tile([True, True, False, True], (20_000, 1))
    player = MaskedPolicy(lambda observations: logits.expand(len(observations), 4), bins=48, seed=0)
    counts = np.bincount(player.act(np.zeros((20_000, 5), np.int32), masks), minlength=4) / 20_000
    np.testing.assert_allclose(counts, masked(logits, torch.as_tensor(masks[0])).softmax(-1), atol=0.01)


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


def test_a_seed_repeats_and_puts_generators_back():
    before, draws = global_states(), []
    for _ in range(2):
        with global_generators(7):
            draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1]
    assert global_states() == before


def test_an_action_that_is_not_allowed_is_an_error():
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
    assert out[0] == f"random play: mean return {before:.3f} of 100 crystals"
    assert out[1] == "half of it"
    assert re.fullmatch(rf"after 10 steps in \d+ s: mean return {after:.3f} of 100 crystals", out[2])


def test_python_of_the_page_runs(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = script.__name__.rsplit(".", 1)[1].removesuffix("_ppo")
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / f"{name}.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, object] = {"TINY": TINY, "TWO_SITES": TWO_SITES}
    for block in blocks:
        block = block.replace("steps=200_000", "**TINY").replace('find_task("validity")', "TWO_SITES")
        exec(block, namespace)
    assert len(namespace["drawn"].crystals) == len(namespace["drawn"].requested)
