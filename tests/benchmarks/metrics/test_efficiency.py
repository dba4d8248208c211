import numpy as np
import pytest

from benchmarks.metrics.efficiency import curve, efficiency, top_means

TOTALS = np.random.default_rng(0).normal(size=300)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_the_best_so_far_are_averaged_over_calls(k):
    budget = 400
    scaled = np.clip((TOTALS + 1) / 3, 0, 1)
    best = [np.sort(scaled[: i + 1])[::-1][:k].mean() for i in range(len(scaled))]
    best += [best[-1]] * (budget - len(best))
    assert efficiency(TOTALS, budget, 1.0, low=-1, high=2)[f"mean_top_{k}"] == pytest.approx(np.mean(best))
    assert top_means(TOTALS, k)[-1] == pytest.approx(np.sort(TOTALS)[::-1][:k].mean())


@pytest.mark.parametrize("k", [1, 10, 100])
def test_it_is_near_the_area_of_pmo_and_not_equal_to_it(k):
    rng = np.random.default_rng(1)
    totals, budget, every = np.sort(rng.random(3000)) * rng.random(3000), 4000, 100
    area, before = 0.0, 0.0  # top_auc of github.com/wenhao-gao/mol_opt, main/optimizer.py
    for calls in range(every, len(totals), every):
        best = np.sort(totals[:calls])[-k:].mean()
        area, before = area + every * (best + before) / 2, best
    best = np.sort(totals)[-k:].mean()
    area += every * (best + before) / 2 + (budget - len(totals)) * best
    ours = efficiency(totals, budget, 1.0)[f"mean_top_{k}"]
    assert ours == pytest.approx(area / budget, abs=0.01)
    assert ours != pytest.approx(area / budget, rel=1e-6)


def test_calls_to_and_calls_per_success_count_successes():
    totals = np.array([0, 1, 0, 0, *[1] * 9])
    numbers = efficiency(totals, 20, 1.0)
    assert (numbers["calls_to_1"], numbers["calls_to_10"], numbers["calls_to_100"]) == (2, 13, None)
    assert numbers["calls_per_success"] == pytest.approx(13 / 10)
    assert numbers["best"] == 1


def test_no_query_finds_nothing():
    numbers = efficiency(np.zeros(0), 10, 1.0)
    assert numbers["mean_top_10"] == 0
    assert numbers["best"] is numbers["calls_per_success"] is numbers["calls_to_1"] is None
    assert curve(np.zeros(0), 10)["calls"] == []


def test_curve_stays_after_the_last_call():
    found = curve(TOTALS, 600, points=60)
    assert len(found["calls"]) == 60
    assert found["calls"][-1] == 600
    for calls, best, ten in zip(found["calls"], found["top_1"], found["top_10"], strict=True):
        assert best == TOTALS[:calls].max()
        assert ten == pytest.approx(np.sort(TOTALS[:calls])[-10:].mean())
    assert found["mean"][4] == pytest.approx(TOTALS[40:50].mean())
    assert found["mean"][-1] == found["mean"][29]


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="budget"):
        efficiency(np.zeros(0), 0, 1.0)


@pytest.mark.parametrize(("arguments", "message"), [((10, 0.0, 0.0, 1.0), "budget"), ((300, 0.0, 1.0, 1.0), "low")])
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        efficiency(TOTALS, *arguments)
