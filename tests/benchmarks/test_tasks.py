import json
from dataclasses import asdict, replace

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.tasks import TASKS, Oracle, Task, find_task
from benchmarks.tasks.oracle import load_trace, task_reward
from benchmarks.tasks.perovskites import METALS, read_table
from benchmarks.tasks.targets import BulkModulusTarget, DensityTarget, StiffAndStable
from crystal_env import Crystal, CrystalBatch, sample_masked
from rewards import BulkModulus, EnergyAboveHull
from rewards.density import densities

ROCK_SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
SHIFTED = "225-a-Cl-0-0-0-b-Na-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
OSMIUM = "194-c-Os-1/3-2/3-1/4-X-2.73-2.73-4.31-90-90-120"
SQUEEZED = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-2.5-2.5-2.5-90-90-90"


def crystals(*texts):
    return CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_each_task_is_an_environment_whose_definition_is_plain_and_whose_names_find_it(task):
    assert find_task(task.id) is find_task(task.name) is task
    assert json.loads(json.dumps(asdict(task))) == json.loads(json.dumps(asdict(replace(task))))
    spec = gym.spec(task.id)
    assert json.loads(spec.to_json())["id"] == task.id
    env = gym.make(task.id)
    observation, info = env.reset(seed=0)
    assert info["action_mask"].any()
    assert observation in env.observation_space


def test_tasks_are_told_apart_by_what_defines_them_and_not_by_their_words():
    task = find_task("validity")
    assert task.digest == replace(task, summary="other words").digest
    assert len({task.digest, task.resized(budget=7).digest, task.resized(size=7).digest}) == 3


def test_case_takes_over_its_constraints():
    task = find_task("structure-prediction")
    assert len({case["formula"] for case in task.cases}) == len(task.cases) == 8
    assert task.case(1).constraints == {"formula": task.cases[1]["formula"]}
    with pytest.raises(ValueError, match="case must be 0 to 7"):
        task.case(8)


def test_unknown_task_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"stability.*got 'stabilty'"):
        find_task("stabilty")


def test_task_names_the_variable_of_the_weights_that_the_user_has_to_supply(monkeypatch):
    monkeypatch.delenv("CRYSTALGEN_ALEXANDRIA_HULL", raising=False)
    with pytest.raises(ValueError, match=r"CRYSTALGEN_ALEXANDRIA_HULL.*hull"):
        task_reward(find_task("orb-stability"))


def test_oracle_counts_a_crystal_once_in_whatever_setting_and_stops_at_the_budget():
    oracle = Oracle(find_task("validity").resized(budget=2))
    first = oracle(crystals(ROCK_SALT, SHIFTED, ROCK_SALT))
    assert (oracle.calls, oracle.left, oracle.asked) == (1, 1, 3)
    assert first.total.tolist() == [1, 1, 1]
    second = oracle(crystals(OSMIUM, SQUEEZED, SHIFTED))
    assert oracle.spent
    assert second.failures.tolist() == [None, "the budget of 2 calls is spent", None]
    assert second.total[1] == oracle.task.floor
    assert [crystal.formula for crystal in oracle.crystals] == ["NaCl", "Os2"] or len(oracle.crystals) == 2
    assert oracle.result().total.tolist() == [first.total[0], second.total[0]]


def test_oracle_in_the_environment_counts_what_is_played():
    env = gym.make_vec("CrystalGen-Validity-v1", num_envs=4, autoreset_mode="SameStep")
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=0)
    finished = 0
    while finished < 12:
        _, _, terminated, _, info = env.step(sample_masked(info["action_mask"], rng))
        finished += int(terminated.sum())
    oracle = env.unwrapped._episodes.scorer.reward
    assert isinstance(oracle, Oracle)
    assert 0 < oracle.calls <= oracle.asked == finished


def test_oracle_answers_from_its_file_what_was_asked_before_the_end(tmp_path):
    task, asked = find_task("validity"), []

    def counting(crystals):
        asked.append(len(crystals))
        return np.ones(len(crystals))

    for _ in range(2):
        oracle = Oracle(task, path=tmp_path / "answers.sqlite")
        oracle.scorer.reward = counting
        assert oracle(crystals(ROCK_SALT, OSMIUM)).total.tolist() == [1, 1]
        assert oracle.calls == 2
        oracle.close()
    assert asked == [2]


def test_trace_is_what_was_asked(tmp_path):
    oracle = Oracle("validity")
    oracle(crystals(ROCK_SALT, SQUEEZED, SHIFTED))
    oracle.save(tmp_path / "trace.npz")
    asked, result = load_trace(tmp_path / "trace.npz")
    assert [str(crystal) for crystal in asked] == [str(crystal) for crystal in crystals(ROCK_SALT, SQUEEZED)]
    assert result.total.tolist() == oracle.result().total.tolist()
    assert result.terms.keys() == oracle.result().terms.keys()


def test_perovskites_know_the_best_and_both_places_of_a_metal(data_folder):
    oracle = Oracle("perovskites")
    table = oracle.scorer.reward
    assert table.best == pytest.approx(0.64)  # KTaO3
    cubic = "221-a-{}-0-0-0-b-{}-1/2-1/2-1/2-c-O-0-1/2-1/2-X-4-4-4-90-90-90"
    found = oracle(crystals(cubic.format("K", "Ta"), cubic.format("Ta", "K"), cubic.format("Sr", "Ti")))
    assert found.total.tolist() == pytest.approx([0.64, 0.64, 0.24])
    assert oracle.calls == 2
    failed = oracle(crystals(cubic.format("K", "U")))
    assert (failed.total[0], failed.failures[0]) == (-5, "not in the table")


def test_every_crystal_of_the_perovskite_environment_is_in_the_table(data_folder):
    heats = read_table(data_folder / "perovskite_castelli_18928.csv.gz")
    assert len(heats) == len(METALS) * (len(METALS) + 1)
    env = gym.make_vec("CrystalGen-Perovskites-v1", num_envs=64, autoreset_mode="SameStep")
    rng, rewards = np.random.default_rng(0), []
    _, info = env.reset(seed=0)
    while len(rewards) < 128:
        _, reward, terminated, _, info = env.step(sample_masked(info["action_mask"], rng))
        rewards += reward[terminated].tolist()
    assert min(rewards) > -5


def test_other_tables_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(ValueError, match="crystalgen benchmark data"):
        read_table(path)
    path.write_text("formula,target\nK1O3Ta1,-0.64\n")
    with pytest.raises(ValueError, match="must hold 2756 compositions"):
        read_table(path)
    path.write_text("a,b\n")
    with pytest.raises(ValueError, match="columns formula and target"):
        read_table(tmp_path / "." / "table.csv")


def test_density_counts_only_for_what_is_valid():
    batch = crystals(OSMIUM, ROCK_SALT, SQUEEZED)
    result = DensityTarget()(batch)
    expected = 1 - np.minimum(np.abs(densities(batch) - 18) / 10, 1)
    assert result.total[:2] == pytest.approx(expected[:2])
    assert densities(batch)[2] > 18
    assert result.total[2] == result.terms["success"][2] == 0
    assert result.failures[2] is not None


def test_bulk_modulus_and_two_aims_are_made_of_their_parts():
    batch = crystals(ROCK_SALT, OSMIUM)
    modulus = BulkModulus(floor=0.0)(batch).terms["bulk_modulus"]
    energy = EnergyAboveHull()(batch).terms["e_above_hull"]
    assert BulkModulusTarget()(batch).total == pytest.approx(1 - np.minimum(np.abs(modulus - 300) / 250, 1))
    both = StiffAndStable()(batch)
    expected = np.minimum(modulus, 400) / 800 + (0.5 - np.clip(energy, 0, 0.5))
    assert both.total == pytest.approx(expected)
    assert both.terms["success"].tolist() == [0, 1]


def test_resized_task_needs_positive_numbers():
    with pytest.raises(ValueError, match="budget must be positive, got 0"):
        Task("CrystalGen-X-v1", 0, "", "rewards:Validity", "S.U.N.").resized(budget=0)
