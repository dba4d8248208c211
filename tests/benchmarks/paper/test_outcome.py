"""Our numbers beside the paper's."""

import json

import numpy as np
import pytest

from benchmarks.paper import published
from benchmarks.paper.dataset import fig_s1
from benchmarks.paper.outcome import Outcome, comparison, percent, write


def test_an_outcome_is_compared_with_the_paper_and_written(work, capsys):
    outcome = fig_s1(work)
    path = write("fig_s1", outcome, work.settings, work.used, 1.0)
    content = json.loads(path.read_text())
    assert [row["quantity"] for row in content["comparison"]][: len(published.NUMBERS["fig_s1"])] == [
        number.quantity for number in published.NUMBERS["fig_s1"]
    ]
    assert set(content["provenance"]) == {"settings", "hashes", "versions", "hardware", "date", "command", "seconds"}
    assert "mp20_train.csv.gz" in content["provenance"]["hashes"]
    assert (path.parent / "fig_s1.png").read_bytes()[1:4] == b"PNG"
    assert "<svg" in (path.parent / "fig_s1.svg").read_text()
    with pytest.raises(ValueError, match="fig3 must give 'crystals of each model'"):
        comparison("fig3", Outcome("", {}, outcome.figure))
    assert percent(np.array([True, False, False, False])).value == 25
