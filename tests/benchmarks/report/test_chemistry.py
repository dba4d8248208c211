import numpy as np
import pytest

from benchmarks.report.chemistry import elements, sunburst
from benchmarks.report.folder import read


def test_elements_and_groups_are_counted(folder, rows_of):
    results = read(folder)
    texts = [row["crystal"] for seed in range(3) for row in rows_of(seed, True) if "crystal" in row]
    empty, full = elements(results).data
    places = np.argwhere(np.array(full["text"]) == "Na")
    assert places.tolist() == [[2, 0]]
    assert full["z"][2][0] == pytest.approx(100 * np.mean(["-Na-" in text for text in texts]), abs=1e-3)
    assert sum(text != "" for row in empty["text"] + full["text"] for text in row) == 118
    burst = dict(zip(sunburst(results).data[0]["ids"], sunburst(results).data[0]["values"], strict=True))
    assert burst == {"cubic": 144, "221": 72, "225": 72}
