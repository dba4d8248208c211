"""A run folder survives crashes, keeps a second process out and notices changed settings."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agents.training.run_folder import RunFolder

SETTINGS = {"run": "a", "tau": 0.1, "samples": [1, 2], "device": "cuda", "checkpoint_minutes": 5, "resume": False}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_settings(SETTINGS)
    for step in (1, 2, 3):
        folder.append_history({"step": step, "loss": 1 / step}, lambda history, path: None)
    return folder


def change(folder, **changes):
    path = folder.path / "run.json"
    content = json.loads(path.read_text())
    content["settings"] |= changes
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("cut", range(1, len('{"step": 3, "loss": 0.3333333333333333}\n')))
def test_a_half_written_last_line_is_dropped_and_the_rest_kept(folder, cut):
    path = folder.path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    left = [1, 2, 3] if cut == 1 else [1, 2]  # at 1, only the end of the line is missing
    assert [entry["step"] for entry in folder.history()] == left
    folder.forget_after(3)
    folder.append_history({"step": 4}, lambda history, path: None)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [*left, 4]


def test_another_damaged_line_is_an_error_with_its_number(folder):
    path = folder.path / "history.jsonl"
    path.write_text(path.read_text().replace('{"step": 2', "{step: 2"))
    with pytest.raises(ValueError, match=r"line 2 of .*history.jsonl is damaged"):
        folder.history()


def test_other_settings_are_refused_by_name(folder):
    message = "cannot be resumed with tau = 0.2 (it was 0.1), samples = [1] (it was [1, 2])"
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        folder.check_settings({**SETTINGS, "tau": 0.2, "samples": [1], "device": "cpu"}, SETTINGS)
    with pytest.raises(ValueError, match=r"more = 1 \(it was missing\)"):
        folder.check_settings({**SETTINGS, "more": 1}, SETTINGS)
    with pytest.raises(ValueError, match=r"tau = missing \(it was 0.1\)"):
        folder.check_settings({name: value for name, value in SETTINGS.items() if name != "tau"}, SETTINGS)


def test_device_folder_and_checkpoints_may_change(folder):
    folder.check_settings({**SETTINGS, "run": "b", "resume": True, "device": None, "checkpoint_minutes": 1}, SETTINGS)


def test_a_file_of_settings_changed_after_the_state_is_noticed(folder):
    folder.save_state({"step": 2, "weights": torch.ones(2)})
    change(folder, device="cpu")
    assert folder.load_state(torch.device("cpu"))["weights"].tolist() == [1, 1]
    assert [entry["step"] for entry in folder.history()] == [1, 2]
    change(folder, tau=0.5)
    with pytest.raises(ValueError, match=r"cannot be resumed with tau = 0.5 \(it was 0.1\)"):
        folder.load_state(torch.device("cpu"))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"settings": 3}', '{"settings": null}'])
def test_a_damaged_file_of_settings_is_named(folder, content):
    (folder.path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run.json is damaged"):
        RunFolder.settings_of(folder.path)


def test_a_folder_without_a_run_is_named_and_not_made(tmp_path):
    with pytest.raises(ValueError, match="holds no run to resume: there is no such folder"):
        RunFolder.settings_of(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match=r"holds no run to resume: run.json is missing"):
        RunFolder.settings_of(tmp_path)


def test_a_second_process_is_kept_out_and_the_first_is_named(folder):
    code = (
        "import sys; from pathlib import Path; from agents.training.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        who = f"process {other.pid}" if Path("/proc/locks").exists() else "another process"
        with pytest.raises(ValueError, match=rf"run {folder.path} is in use by {who}"), folder.lock():
            pass
        other.kill()  # a crash leaves no lock behind
        other.wait()
    with folder.lock():
        assert sorted(os.listdir(folder.path)) == ["history.jsonl", "run.json"]


def test_a_lock_holds_inside_one_process_and_ends_with_an_error(folder):
    def fail():
        with folder.lock():
            raise OSError("disk full")

    with folder.lock(), pytest.raises(ValueError, match="is in use by"), folder.lock():
        pass
    with pytest.raises(OSError, match="disk full"):
        fail()
    with folder.lock():
        pass
