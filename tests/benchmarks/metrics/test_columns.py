import numpy as np

from benchmarks.metrics.columns import COLUMNS, METRIC_COLUMNS, attempt_rows
from benchmarks.metrics.sample import SampleMetrics
from benchmarks.samples.samples import Failure, Outside, Samples
from crystal_env import Crystal

SALT = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.6-5.6-5.6-90-90-90")


def test_every_attempt_has_a_row_with_what_is_known_of_it():
    items = [Failure("nothing"), Outside(SALT.to_structure(), "too many sites"), SALT]
    yes, no = np.array([True, True]), np.array([False, False])
    samples = Samples.from_items(items, requested=np.array([1, 0, 225]))
    metrics = SampleMetrics(samples, yes, no, np.array([224, 225]), np.array([np.nan, 0.25]), np.array([1, 1]), yes)
    failed, outside, crystal = attempt_rows(metrics)
    assert set(crystal) <= {*COLUMNS, *METRIC_COLUMNS}
    assert (failed["failure"], failed["requested_space_group"], "formula" in failed) == ("nothing", 1, False)
    assert (outside["outside"], outside["formula"], outside["crystal"]) == ("too many sites", "NaCl", "")
    assert (outside["e_above_hull"], outside["label"], outside["space_group"]) == ("", 2, 224)
    assert (crystal["crystal"], crystal["e_above_hull"], crystal["label"]) == (str(SALT), "0.25", 2)
    assert (crystal["structurally_valid"], crystal["compositionally_valid"], crystal["novel"]) == (1, 0, 1)
