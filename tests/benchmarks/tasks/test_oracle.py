import gymnasium as gym
import numpy as np
import pytest

from benchmarks.tasks import Oracle, find_task
from benchmarks.tasks.oracle import load_trace, task_reward
from crystal_env import Crystal, CrystalBatch, sample_masked

ROCK_SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
SHIFTED = "225-a-Cl-0-0-0-b-Na-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
OSMIUM = "194-c-Os-1/3-2/3-1/4-X-2.73-2.73-4.31-90-90-120"
SQUEEZED = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-2.5-2.5-2.5-90-90-90"


def crystals(*texts):
    return CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])


def test_a_missing_variable_of_the_weights_is_named(monkeypatch):
    monkeypatch.delenv("CRYSTALGEN_ALEXANDRIA_HULL", raising=False)
    with pytest.raises(ValueError, match=r"CRYSTALGEN_ALEXANDRIA_HULL.*hull"):
        task_reward(find_task("orb-stability"))


def test_oracle_counts_crystals_once_and_stops_at_its_budget():
    oracle = Oracle(find_task("validity").resized(budget=2))
    first = oracle(crystals(ROCK_SALT, SHIFTED, ROCK_SALT))
    assert (oracle.calls, oracle.left, oracle.queried) == (1, 1, 3)
    assert first.total.tolist() == [1, 1, 1]
    second = oracle(crystals(OSMIUM, SQUEEZED, SHIFTED))
    assert oracle.spent
    assert second.failures.tolist() == [None, "the budget of 2 calls is spent", None]
    assert second.total[1] == oracle.task.floor
    assert [crystal.formula for crystal in oracle.crystals] == ["NaCl", "Os2"] or len(oracle.crystals) == 2
    assert oracle.result().total.tolist() == [first.total[0], second.total[0]]


def test_calls_that_are_charged_spend_the_budget():
    told = []
    oracle = Oracle(find_task("validity").resized(budget=3), on_query=told.append)
    oracle(crystals(ROCK_SALT))
    oracle.charge(2)
    assert (oracle.calls, oracle.left, oracle.charged, told) == (3, 0, 2, [1, 3])
    assert oracle(crystals(OSMIUM)).failures.tolist() == ["the budget of 3 calls is spent"]
    with pytest.raises(ValueError, match="calls must"):
        oracle.charge(-1)


def test_oracle_in_the_environment_counts_its_crystals():
    env = gym.make_vec("CrystalGen-Validity-v1", num_envs=4, autoreset_mode="SameStep")
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=0)
    finished = 0
    while finished < 12:
        _, _, terminated, _, info = env.step(sample_masked(info["action_mask"], rng))
        finished += int(terminated.sum())
    oracle = env.unwrapped._episodes.scorer.reward
    assert isinstance(oracle, Oracle)
    assert 0 < oracle.calls <= oracle.queried == finished


def test_oracle_answers_known_queries_from_its_file(tmp_path):
    task, queries = find_task("validity"), []

    def counting(crystals):
        queries.append(len(crystals))
        return np.ones(len(crystals))

    for _ in range(2):
        oracle = Oracle(task, path=tmp_path / "answers.sqlite")
        oracle.scorer.reward = counting
        assert oracle(crystals(ROCK_SALT, OSMIUM)).total.tolist() == [1, 1]
        assert oracle.calls == 2
        oracle.close()
    assert queries == [2]


def test_trace_holds_the_queries(tmp_path):
    oracle = Oracle("validity")
    oracle(crystals(ROCK_SALT, SQUEEZED, SHIFTED))
    oracle.save(tmp_path / "trace.npz")
    queried, result = load_trace(tmp_path / "trace.npz")
    assert [str(crystal) for crystal in queried] == [str(crystal) for crystal in crystals(ROCK_SALT, SQUEEZED)]
    assert result.total.tolist() == oracle.result().total.tolist()
    assert result.terms.keys() == oracle.result().terms.keys()
