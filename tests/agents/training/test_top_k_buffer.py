"""Which crystals are the best so far."""

import numpy as np

from agents.training.top_k_buffer import TopKBuffer
from crystal_env import Crystal, CrystalBatch

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
CSCL = "221-a-Cs-0-0-0-b-Cl-1/2-1/2-1/2-X-4.1-4.1-4.1-90-90-90"
CRYSTALS = CrystalBatch.from_crystals(
    Crystal.from_string(string)
    for string in (
        SALT.format("Na", "Cl", 5.6), SALT.format("Cl", "Na", 5.7), SALT.format("K", "Br", 6.6), CSCL,
        SALT.format("H", "H", 0.8),
    )
)  # fmt: skip


def test_the_best_crystals_stay_one_of_each_key():
    buffer = TopKBuffer(size=2)
    buffer.add(CRYSTALS, np.array([0.0, 0.5, -1.0, -2.0, -3.0]))
    assert buffer.rewards.tolist() == [0.5, -1.0]
    buffer.add(CRYSTALS[3:4], np.array([0.1]))
    assert buffer.rewards.tolist() == [0.5, 0.1]
    buffer.add(CRYSTALS[2:3], np.array([0.05]))
    assert buffer.rewards.tolist() == [0.5, 0.1]
    assert {crystal.formula for crystal in buffer.sample(9, np.random.default_rng(0))} == {"NaCl", "CsCl"}
    assert len(buffer.sample(1, np.random.default_rng(0))) == 1


def test_a_smaller_buffer_keeps_its_best():
    buffer = TopKBuffer(size=3)
    buffer.add(CRYSTALS, np.array([0.0, 0.5, -1.0, -2.0, -3.0]))
    buffer.size = 1
    buffer.add(CRYSTALS[3:4], np.array([0.1]))
    assert buffer.rewards.tolist() == [0.5]
