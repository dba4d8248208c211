import json
import re
from html import unescape

from scipy.stats import binomtest

from benchmarks.report import report


def test_metrics_checks_and_flags_are_on_the_page(page):
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))
    interval = binomtest(12 + 13 + 14, 3 * 49).proportion_ci(method="wilson")
    assert f"{100 * 39 / 147:.1f} % {100 * interval.low:.1f} to {100 * interval.high:.1f}" in text
    assert (
        "1 check has failed: this score is doubtful. below-hull outliers: seed 1: 1 crystals. Allowed: at most 1%."
        in text
    )
    assert "seed 0 passed seed 1 failed seed 2 passed" in text
    assert "0.2100 range of 3 seeds: 0.2000 to 0.2200" in text
    assert "an invalid action 3" in text


def test_cases_have_a_table(tmp_path, write_results):
    folder = write_results(tmp_path / "cases", cases=[{"formula": "NaCl"}, {"formula": "KBr"}])
    results = json.loads((folder / "results.json").read_text())
    for entry in results["seeds"]:
        entry["details"] = [{"match_rank": 3, "formula": "NaCl"}, {"match_rank": None, "formula": "KBr"}]
    (folder / "results.json").write_text(json.dumps(results))
    text = report(folder).read_text(encoding="utf-8")
    assert "<tr><td>NaCl</td>" + 3 * "<td>match rank: 3</td>" + "</tr>" in text
    assert "<tr><td>KBr</td>" + 3 * "<td>match rank: –</td>" + "</tr>" in text
