"""What a stable, unique and novel crystal costs."""

import numpy as np
import pytest

from benchmarks.paper.generation_cost import Args, Cost, found, main, table
from benchmarks.tasks import Oracle, find_task
from crystal_env import Crystal, CrystalBatch


def test_costs_count_what_training_finds():
    search = Cost(0, 0.0, 0, sampled=100, found=25, minutes=2.0)
    assert (search.calls(1000), search.total_minutes(1000)) == (4000, 80)
    model = Cost(500, 3.0, 200, sampled=100, found=50, minutes=1.0, confirmed=40)
    assert (model.calls(1000), model.total_minutes(1000)) == (500 + 1600, 3 + 16)
    assert (model.calls(100), model.total_minutes(100)) == (500, 3)
    lines = table({"search": search, "model": model}, 1000).splitlines()
    assert len(lines) == 4
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "model", "500", "3.0", "200", "50.0", "40.0", "500", "50", "2,100", "19",
    ]  # fmt: skip


def test_what_training_has_found_is_stable_novel_and_counted_once(tmp_path):
    oracle = Oracle(find_task("stability").resized(budget=10), path=tmp_path / "answers.sqlite")
    texts = [
        "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90",  # known
        "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3-3-3-90-90-90",  # unstable
    ]
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])
    e_above_hull = oracle(crystals).terms["e_above_hull"]
    assert e_above_hull[0] < 0.1 < e_above_hull[1]
    oracle.save(tmp_path / "trace.npz")
    assert found(tmp_path / "trace.npz") == 0


def test_a_row_needs_a_label_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match="models must be 'label=folder'"):
        main(Args(models=("nothing",), out=tmp_path, size=2))
    assert not np.any(list(tmp_path.iterdir()))
