import numpy as np
import pytest

from benchmarks.report.curves import curve_over_seeds, learning, scatter
from benchmarks.report.folder import read


def test_curves_are_means_with_bands_and_answers_that_did_not_fail(folder):
    traces = {trace.get("name"): trace for trace in learning(read(folder)).data}
    assert traces["best 1"]["y"] == pytest.approx([-0.3, -0.11, 0.05])
    assert len(traces["answers"]["x"]) == 45
    assert set(traces["answers"]["x"]) == set(range(1, 31, 2))


def test_intervals_of_curves():
    two = np.array([[0.0, 1.0], [2.0, 1.0]])
    np.testing.assert_array_equal(curve_over_seeds(two), [[1, 1], [0, 1], [2, 1]])
    values = np.random.default_rng(0).normal(size=(8, 400))
    middle, low, high = curve_over_seeds(values)
    np.testing.assert_allclose(middle, values.mean(0))
    assert (low <= middle).all()
    assert (middle <= high).all()
    covered = ((low < 0) & (high > 0)).mean()
    assert covered == pytest.approx(0.95, abs=0.03)


def test_rewards_of_two_terms_have_lines_of_equal_reward(folder):
    results = read(folder)
    n = len(results.table)
    table = results.table.assign(**{"term:band_gap": np.linspace(0, 8, n), "term:dielectric_constant": 12.0})
    task = {**results.task, "threshold": 30.0}
    figure = scatter(type(results)(folder, results.values | {"task": task}, table, results.trace))
    lines = [trace for trace in figure.data if trace["mode"] == "lines+text"]
    assert [trace["text"][-1] for trace in lines] == ["7.5 eV", "15 eV", "30 eV", "60 eV"]
    for trace in lines:
        merit = float(trace["text"][-1].removesuffix(" eV"))
        np.testing.assert_allclose(np.multiply(trace["x"], trace["y"]), merit, rtol=1e-3)
    table = results.table.assign(**{"term:bulk_modulus": np.linspace(0, 300, n), "term:e_above_hull": 0.2})
    front = scatter(type(results)(folder, results.values, table, results.trace)).data[-1]
    valid = results.column("compositionally_valid") > 0
    assert front["x"] == pytest.approx([table["term:bulk_modulus"][valid].max()], abs=1e-3)
