import gymnasium as gym
import numpy as np
import pytest

from benchmarks.tasks import Oracle
from benchmarks.tasks.perovskites import METALS, read_table
from crystal_env import Crystal, CrystalBatch, sample_masked

ROCK_SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
SHIFTED = "225-a-Cl-0-0-0-b-Na-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90"
OSMIUM = "194-c-Os-1/3-2/3-1/4-X-2.73-2.73-4.31-90-90-120"
SQUEEZED = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-2.5-2.5-2.5-90-90-90"


def crystals(*texts):
    return CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])


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


def test_all_crystals_of_the_environment_are_in_the_table(data_folder):
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
