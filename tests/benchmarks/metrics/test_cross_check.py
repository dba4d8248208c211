import numpy as np
import pytest

from benchmarks.metrics.cross_check import cross_check_summary
from benchmarks.metrics.labels import label
from benchmarks.metrics.sample import SampleMetrics
from benchmarks.samples.samples import Failure, Samples
from crystal_env import Crystal

SALT = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.6-5.6-5.6-90-90-90")


def test_rates_count_what_each_potential_and_both_say():
    samples = Samples.from_items([*[SALT] * 6, Failure("nothing")])
    labels, novel = np.array([0, 0, 2, 3, 4, 5]), np.array([1, 1, 1, 0, 1, 1], bool)
    columns = [np.ones(6, bool), np.ones(6, bool), np.full(6, 225)]
    first, second = (
        SampleMetrics(samples, *columns, np.array(energies), labels, novel)
        for energies in ([0.0, 0.0, 0.05, 0.0, 0.2, np.nan], [0.3, 0.0, 0.02, 0.0, 0.1, 0.0])
    )
    found = cross_check_summary(first, second)
    counts = {name: (entry["count"], entry["total"]) for name, entry in found["rates"].items()}
    assert counts["stable_0.1"] == (5, 7)
    assert counts["scored"] == (6, 7)
    assert counts["sun_0.1"] == (4, 7)
    assert counts["confirmed_stable_0.1"] == (3, 4)
    assert counts["confirmed_sun_0.1"] == (1, 2)
    assert counts["agreement_0.1"] == (3, 5)
    assert counts["stable_by_both_0.1"] == (3, 7)
    assert counts["sun_by_both_0.1"] == (1, 7)
    assert found["e_above_hull_difference_median"] == pytest.approx(0.03)
    assert all(label(name) for name in (*found, *found["rates"]) if name != "rates")


def test_nothing_to_compare_is_no_error():
    samples = Samples.from_items([Failure("nothing")])
    nothing = [np.zeros(0, kind) for kind in (bool, bool, np.int64, np.float64, np.int64, bool)]
    metrics = SampleMetrics(samples, *nothing)
    found = cross_check_summary(metrics, metrics)
    assert found["rates"]["agreement_0.1"] == {"count": 0, "total": 0, "rate": 0.0, "interval": [0.0, 1.0]}
    assert found["e_above_hull_difference_median"] is None
