"""Only equal tasks are compared, in the order of the scores, and equal results give equal bytes."""

import json
import re
from dataclasses import asdict, replace

import pytest
from scipy.stats import binomtest

from benchmarks.metrics.intervals import over_seeds
from benchmarks.report.leaderboard import leaderboard, leaderboard_page, main
from benchmarks.tasks import TASKS, find_task

TASK = find_task("stability")


def write(folder, name, scores, *, task=TASK, flags=(), scored=50, area=0.5, fields=None, **changes):
    """Write a ``results.json`` as ``crystalgen benchmark run`` does, with what the leaderboard reads."""
    seeds = [
        {
            "seed": seed,
            "calls": 19_000 + 500 * seed,
            "efficiency": {"mean_top_10": area},
            "summary": {
                "rates": {
                    "valid": {"count": 80 + seed, "total": 100},
                    "scored": {"count": scored, "total": 100},
                    "sun_0.1": {"count": 20 + seed, "total": 100},
                }
            },
            "checks": [{"name": "previously_queried", "value": None if area is None else 0.1 * seed}],
        }
        for seed in range(len(scores))
    ]
    results = {
        "schema": "crystalgen-results/2",
        "task": {**asdict(task), "name": task.name, "digest": task.digest} | (fields or {}),
        "agent": {"name": name, "source": "module:Agent", "settings": {}},
        "score": {
            "name": task.score,
            **over_seeds(scores),
        },
        "reference": {"files": {"known.csv": "abc"}, "crystals": 1234},
        "seeds": seeds,
        "flags": list(flags),
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results | changes))


@pytest.fixture
def results(tmp_path):
    write(tmp_path / "a", "Low", [0.1, 0.2])
    write(tmp_path / "b" / "deep", "High", [0.4, 0.5, 0.6], flags=["below_hull_outliers", "one_formula"])
    write(tmp_path / "c", "Also low", [0.2, 0.1], area=None, scored=0)
    write(tmp_path / "d", "Other | task", [0.9], task=find_task("validity"))
    write(tmp_path / "e", "Cheap", [0.99], task=TASK.resized(budget=100))
    write(tmp_path / "g", "Blind", [0.99], task=replace(TASK, stability=False))
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "results.json").write_text('{"base": {}}')  # of another kind
    return tmp_path


def cells(text, agent):
    (line,) = [line for line in text.splitlines() if f"| {agent} |" in line]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_agents_stand_in_the_order_of_their_scores(results):
    text = leaderboard([results])
    _, validity, stability, _, apart = re.split(r"\n## ", text)
    assert re.findall(r"^\| (\d) \| ([\w ]+) \|", stability, re.MULTILINE) == [
        ("1", "High"),
        ("2", "Also low"),
        ("2", "Low"),
    ]
    assert "Other \\| task" in validity
    assert TASK.digest[:12] in stability
    assert "Novel against known.csv (1,234 crystals)." in stability
    assert apart.startswith("Not comparable")


def test_a_line_says_what_is_known(results):
    low, high = binomtest(20 + 21 + 22, 300).proportion_ci(method="wilson")
    sun = f"{100 * 63 / 300:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    text = leaderboard([results])
    row = cells(text, "High")
    assert row[2:5] == ["0.5000 (0.4000 to 0.6000)", "⚠ below-hull outliers, one formula", sun]
    assert row[6:] == ["0.5000", "19,500", "10.0 %", "0.4000, 0.5000, 0.6000 (range of 3 seeds)"]
    assert cells(text, "Also low")[3:5] == ["none", "–"]
    assert cells(text, "Also low")[6] == cells(text, "Also low")[8] == "–"
    assert cells(text, "Other \\| task")[2] == "0.9000"


def test_another_definition_is_listed_apart_with_the_reason(results):
    assert cells(leaderboard([results]), "Blind") == [
        "Blind",
        TASK.id,
        "another task: stability is false instead of true",
    ]


def test_another_budget_is_ranked_apart(results):
    text = leaderboard([results])
    shortened = text.split(f"## {TASK.id} with another budget")[1]
    assert "Budget 100 oracle calls" in shortened
    assert cells(shortened, "Cheap")[0] == "1"
    assert "High" not in shortened


def test_other_reasons(tmp_path):
    write(tmp_path / "a", "Forged", [0.5], fields={"digest": "0" * 64})
    write(tmp_path / "b", "Newer", [0.5], schema="crystalgen-results/3")
    write(tmp_path / "d", "Older", [0.5], schema="crystalgen-results/1")
    write(tmp_path / "c", "Unknown", [0.5], fields={"id": "CrystalGen-Dreams-v1"})
    text = leaderboard([tmp_path])
    assert cells(text, "Forged")[2] == "another task: the digest is not that of the definition"
    assert cells(text, "Newer")[2] == "the schema is crystalgen-results/3, not crystalgen-results/2"
    assert f"`crystalgen benchmark migrate {tmp_path / 'd'}`" in cells(text, "Older")[2]
    assert cells(text, "Unknown")[1:] == ["CrystalGen-Dreams-v1", "there is no such task"]
    assert not any(f"## {one.id}" in text for one in TASKS)


def test_equal_results_give_equal_bytes(results, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved")
    for i, path in enumerate(sorted(results.rglob("results.json"), reverse=True)):
        (moved / str(i)).mkdir()
        (moved / str(i) / "results.json").write_text(path.read_text())
    for pages in (leaderboard, leaderboard_page):
        assert pages([results]) == pages([moved])
        assert pages([results, results / "b"]) == pages([results])  # found twice, counted once


def test_the_page_has_the_same_and_needs_nothing_else(results):
    page = leaderboard_page([results])
    assert [name for name in re.findall(r"<td>(\w[\w ]*)</td>", page) if "ow" in name or name == "High"] == [
        "High",
        "Also low",
        "Low",
    ]
    assert "Other | task" in page
    assert "stability is false instead of" in page
    assert "with another budget" in page
    assert not re.search(r"http|<script|<link|\bsrc=|url\(", page)
    bars = [float(width) for width in re.findall(r'<rect y="2" width="([\d.]+)"', page)]
    assert bars == pytest.approx([100, 100 * 0.5 / 0.6, 100 * 0.15 / 0.6, 100 * 0.15 / 0.6, 100], abs=0.1)


def test_names_are_text(tmp_path):
    write(tmp_path / "a", "<script>alert(1)</script>", [0.5])
    assert "<script>" not in leaderboard_page([tmp_path])


def test_no_results(tmp_path):
    assert leaderboard([tmp_path]).endswith("There are no results yet.\n")
    assert leaderboard_page([tmp_path]).endswith("</html>\n")


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*nowhere"):
        leaderboard([tmp_path / "nowhere"])
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json must be JSON"):
        leaderboard([tmp_path])


def test_results_beside_the_leaderboard_are_linked(tmp_path, capsys):
    write(tmp_path / "published" / "stability" / "high", "High", [0.5])
    write(tmp_path / "mine", "Mine", [0.4])
    out = tmp_path / "published" / "leaderboard"
    main((tmp_path,), out)
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "| 1 | [High](../stability/high/results.json) |" in text
    assert "| 2 | Mine |" in text
    assert (out / "leaderboard.html").is_file()
    assert str(out / "README.md") in capsys.readouterr().out
    with pytest.raises(SystemExit, match="leaderboard: folders"):
        main((tmp_path / "nowhere",), out)
