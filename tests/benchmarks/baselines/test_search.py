"""The best crystals that an oracle was queried for."""

import numpy as np

from benchmarks.baselines.search import BestSeen, best_of_groups
from benchmarks.harness.session import Session
from benchmarks.tasks import find_task
from crystal_env import Crystal, CrystalBatch


def session_with(totals, texts):
    """Return a session whose oracle was queried for crystals with given totals."""
    session = Session(find_task("validity").resized(len(totals)))
    session.oracle.scorer.reward = lambda crystals: np.array([totals[str(crystal)] for crystal in crystals])
    session.score([Crystal.from_string(text) for text in texts])
    return session


class Nobody:
    def sample(self, space_groups, seed):
        return CrystalBatch.empty(len(space_groups))


def test_best_seen_come_first_one_of_each_key():
    def text(group, element, a):
        return f"{group}-a-{element}-0-0-0-X-{a}-{a}-{a}-90-90-90"

    rewards = {(225, "Cu", 3): 0.9, (225, "Cu", 4): 0.8, (225, "Ag", 3): 0.5, (221, "Cu", 3): 1.0, (225, "Au", 3): 0.1}
    totals = {str(Crystal.from_string(text(*place))): total for place, total in rewards.items()}
    session = session_with(totals, [text(*place) for place in rewards])
    crystals = BestSeen(session, Nobody()).sample(np.array([225, 225, 221, 225, 225, 225, 229]), 0)
    seen = [(crystal.G, crystal.formula, round(crystal.L[0])) for crystal in crystals[:6]]
    assert seen[:5] == [(225, "Cu", 3), (225, "Ag", 3), (221, "Cu", 3), (225, "Au", 3), (225, "Cu", 4)]
    assert crystals.n_sites()[5:].tolist() == [0, 0]  # left to others
    assert [crystal.formula for crystal in best_of_groups(session, 0.5)] == ["Cu", "Cu"]
    assert len(best_of_groups(session, 1.0)) == 5
