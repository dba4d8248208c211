"""KLPPO in units of the task."""

import pytest

import benchmarks.baselines as baselines
from benchmarks.baselines.search import iteration_size
from benchmarks.harness.session import Session
from benchmarks.tasks import find_task


def test_settings_come_in_units_of_the_task():
    session = Session(find_task("stability"))
    paper = baselines.KLPPOPaper().config(session)
    assert paper.tau == pytest.approx(0.1)  # arXiv:2504.02367, Table S1
    assert (paper.batch_size, paper.n_epochs, paper.learning_rate) == (1000, 3, 1e-4)
    assert (paper.clip_range, paper.ratio, paper.baseline, paper.reward_range) == (0.2, "sequence", "ema", None)
    best = baselines.KLPPOBest().config(session)
    assert best.reward_range == pytest.approx((-2.0, 1.2))
    assert (best.batch_size, best.n_epochs, best.learning_rate, best.warmup) == (500, 1, 4e-4, 5)
    assert (best.schedule, best.baseline, best.log_ratio_weights) == ("linear", "group", {"lattice": 0.0})
    assert iteration_size(session.task, 1000, 40) == 500


def test_variants_change_one_setting():
    session = Session(find_task("stability"))
    pairs = {"LeaveOneOutREINFORCE": "KLPPOBest", "TokenPPO": "KLPPOPaper"}
    for name, base in pairs.items():
        ours, theirs = (vars(getattr(baselines, which)().config(session)) for which in (name, base))
        assert [key for key in ours if ours[key] != theirs[key]] == [{"TokenPPO": "ratio"}.get(name, "baseline")]
