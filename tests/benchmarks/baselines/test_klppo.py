"""KLPPO in units of the task."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import benchmarks.baselines as baselines
from agents import CrystalFormer
from agents.klppo.replay import ReplayLosses
from benchmarks.baselines.element_substitution import Substitution
from benchmarks.baselines.search import grammar_of, iteration_size
from benchmarks.baselines.shaped_reward import shaped_reward
from benchmarks.baselines.training_set import load_training_set
from benchmarks.harness.session import Session
from benchmarks.tasks import find_task


@pytest.fixture(scope="module")
def crystals():
    return CrystalFormer.from_pretrained("mp20").sample("mp20", 6, seed=3)


def test_settings_come_in_units_of_the_task():
    session = Session(find_task("stability"))
    paper = baselines.KLPPOPaper().config(session)
    assert paper.tau == pytest.approx(0.1)  # arXiv:2504.02367, Table S1
    assert (paper.batch_size, paper.n_epochs, paper.learning_rate) == (1000, 3, 1e-4)
    assert (paper.clip_range, paper.ratio, paper.baseline, paper.reward_range) == (0.2, "sequence", "ema", None)
    assert iteration_size(session.task, 1000, 40) == 500


def test_on_policy_settings_are_those_of_the_published_rows():
    config = baselines.KLPPOOnPolicy().config(Session(find_task("stability")))
    assert config.reward_range == pytest.approx((-2.0, 1.2))
    assert (config.loss, config.tau, config.batch_size, config.n_epochs) == ("ppo", pytest.approx(0.1), 500, 1)
    assert (config.learning_rate, config.warmup, config.schedule, config.baseline) == (4e-4, 5, "linear", "group")
    assert config.weights() == {"letters": 1, "elements": 1, "coordinates": 1, "lattice": 0}


def test_the_best_setting_follows_the_budget():
    best = baselines.KLPPOBest().config(Session(find_task("stability")))
    assert (best.loss, best.tau, best.batch_size, best.learning_starts) == ("topr", 0.01, 500, 2000)
    assert (best.temperature, best.draw) == ({"coordinates": 0.1, "lattice": 0.1}, "recent")
    short = baselines.KLPPOBest().config(Session(replace(find_task("stability"), budget=2000)))
    assert (short.batch_size, short.learning_starts) == (50, 200)


@pytest.mark.parametrize(
    ("name", "base", "changed"),
    [("TokenPPO", "KLPPOPaper", ["ratio"]), ("LeaveOneOutREINFORCE", "KLPPOOnPolicy", ["baseline"]),
      ("KLPPOBalance", "KLPPOBest", ["tau", "loss"]),
     ("KLPPOPositives", "KLPPOBest", ["negatives"]),
     ("KLPPOSeeded", "KLPPOBest", ["learning_starts"]), ("ExpertIteration", "KLPPOBest", ["tau"])],
)  # fmt: skip
def test_variants_change_no_other_setting(name, base, changed):
    session = Session(find_task("stability"))
    ours, theirs = (vars(getattr(baselines, which)().config(session)) for which in (name, base))
    assert [key for key in ours if ours[key] != theirs[key]] == changed


def test_what_is_learned_from_is_between_0_and_1_and_asks_the_oracle(crystals):
    for name in ("stability", "density"):
        session = Session(find_task(name))
        result = shaped_reward(session)(crystals)
        assert session.oracle.calls == len(crystals)
        assert ((result.total >= 0) & (result.total <= 1)).all()
        assert result.scored.all()
        again = shaped_reward(session)(crystals)  # a new reward has seen nothing yet
        assert again.total.tolist() == result.total.tolist()
        assert session.oracle.calls == len(crystals)


class Standstill:
    """A relaxation that takes some steps and changes nothing."""

    def __init__(self, steps):
        self.steps, self.sizes = steps, []

    def __call__(self, crystals):
        return self.with_paths(crystals)[0]

    def with_paths(self, crystals):
        self.sizes.append(len(crystals))
        steps = SimpleNamespace(steps=np.full(len(crystals), self.steps))
        return (crystals, np.full(len(crystals), None, object)), steps


def test_the_steps_of_a_relaxation_are_calls_of_the_oracle():
    session = Session(replace(find_task("density"), budget=60))
    relax = Standstill(3)
    settings = {
        "batch_size": 10, "learning_starts": 0, "relax_fraction": 0.5, "relax": relax, "relax_kwargs": {"steps": 3},
    }  # fmt: skip
    baselines.KLPPOBest(iterations=4, settings=settings).train(session)
    assert session.oracle.charged == 3 * sum(relax.sizes) > 0
    assert session.oracle.calls == 60
    assert not any("budget" in str(failure) for failure in session.oracle.result().failures)


def test_a_budget_is_spent_exactly_and_its_last_crystals_are_learned_from(monkeypatch):
    session = Session(replace(find_task("density"), budget=60))
    seen = []
    monkeypatch.setattr(ReplayLosses, "__init__", spied(ReplayLosses.__init__, seen))
    agent = baselines.KLPPOBest(iterations=4, settings={"batch_size": 25, "learning_starts": 0})
    sampler = agent.train(session)
    assert session.oracle.calls == session.oracle.queried == 60
    assert seen == [15, 30, 45, 60]
    assert len(sampler.sample(np.array([225, 1]), 0)) == 2


def spied(function, seen):
    """Note how full the buffer is with every update."""

    def call(self, *args):
        seen.append(len(args[4]))
        return function(self, *args)

    return call


def test_a_search_fills_the_buffer_first(training_set):
    session = Session(replace(find_task("density"), budget=40))
    baselines.KLPPOSeeded(iterations=3, search=0.25, training_set=training_set).train(session)
    known = load_training_set(training_set)
    first = session.oracle.crystals[:10]
    expected = Substitution(known, grammar_of(session.task))
    rng = np.random.default_rng([session.seed, 3])
    again = expected.sample(grammar_of(session.task).sample_groups(10, rng), rng)
    assert [str(c) for c in first] == [str(c) for c in again]
    assert session.oracle.calls == 40
