"""Results say what they depend on, and nothing about whose machine it was."""

import json
import re
from pathlib import Path

import pytest

import benchmarks
from benchmarks.harness.provenance import command, file_digest, provenance
from benchmarks.tasks import find_task

RESULTS = sorted((Path(benchmarks.__file__).parent / "results").rglob("*.json"))


def test_commands_name_no_folder_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSTALGEN_MODELS", "/mnt/models/")
    monkeypatch.setenv("CRYSTALGEN_DATA", "/mnt/data")
    monkeypatch.setenv("HOME", "/home/someone")
    words = ["--judge", "matgl:/mnt/models/M3GNet", "--reference", "/mnt/data/a.csv", "/mnt/data-2/b.csv"]
    words += ["--out", f"{tmp_path}/runs/x", "--hull", "/home/someone/hull.npz", "--agent-kwargs", '{"model": "./m"}']
    assert command("crystalgen", *words) == (
        "crystalgen --judge matgl:$CRYSTALGEN_MODELS/M3GNet --reference $CRYSTALGEN_DATA/a.csv /mnt/data-2/b.csv "
        '--out runs/x --hull ~/hull.npz --agent-kwargs \'{"model": "./m"}\''
    )


@pytest.mark.parametrize("value", [None, "", "/", "."])
def test_a_variable_that_names_no_folder_is_left_out(value, monkeypatch):
    monkeypatch.delenv("CRYSTALGEN_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("CRYSTALGEN_DATA", value)
    assert command("crystalgen", "evaluate", "/a/b.csv") == "crystalgen evaluate /a/b.csv"


def test_weights_that_an_agent_starts_from_are_named(tmp_path):
    task = find_task("validity")
    weights = Path(benchmarks.__file__).parents[1] / "agents" / "models" / "mp20" / "model.safetensors"
    assert provenance([], task, 1.0, "mp20")["hashes"] == {"model mp20": file_digest(weights)}
    (tmp_path / "other.pkl").write_bytes(b"weights")
    assert list(provenance([], task, 1.0, str(tmp_path / "other.pkl"))["hashes"]) == ["model other.pkl"]
    assert provenance([], task, 1.0, {"layers": 2})["hashes"] == provenance([], task, 1.0, "mlp")["hashes"] == {}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_published_results_name_no_folder_of_a_machine(path):
    text = json.dumps(json.loads(path.read_text()))
    assert not re.findall(r"""(?:^|[\s"'=:])/\w+/[^\s"]*""", text)
