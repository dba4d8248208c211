"""Results name everything that they depend on, and no folder of a machine."""

import json
import re
from pathlib import Path

import pytest

import benchmarks
from benchmarks.harness.provenance import dependencies
from benchmarks.provenance import file_digest
from benchmarks.tasks import find_task

RESULTS = sorted((Path(benchmarks.__file__).parent / "results").rglob("*.json"))


def test_weights_that_an_agent_starts_from_are_named(tmp_path):
    task = find_task("validity")
    weights = Path(benchmarks.__file__).parents[1] / "agents" / "models" / "mp20" / "model.safetensors"
    assert dependencies(task, "mp20") == {"model mp20": file_digest(weights)}
    (tmp_path / "other.pkl").write_bytes(b"weights")
    assert list(dependencies(task, str(tmp_path / "other.pkl"))) == ["model other.pkl"]
    assert dependencies(task, {"layers": 2}) == dependencies(task, "mlp") == {}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_published_results_name_no_folder_of_a_machine(path):
    text = json.dumps(json.loads(path.read_text()))
    assert not re.findall(r"""(?:^|[\s"'=:])/\w+/[^\s"]*""", text)
