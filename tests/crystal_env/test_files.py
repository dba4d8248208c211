"""A file is replaced whole or not at all."""

import threading

import numpy as np
import pytest

from crystal_env.files import atomic_write


def test_bytes_text_and_writers_give_the_same_file(tmp_path):
    for name, content in (
        ("bytes", "Å\n".encode()),
        ("text", "Å\n"),
        ("writer", lambda file: file.write(b"\xc3\x85\n")),
    ):
        atomic_write(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == b"\xc3\x85\n"
    atomic_write(str(tmp_path / "text"), "new")
    assert (tmp_path / "text").read_text() == "new"


def test_names_and_suffixes_stay_as_given(tmp_path):
    atomic_write(tmp_path / "arrays", lambda file: np.savez(file, x=np.arange(3)))
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]
    with np.load(tmp_path / "arrays") as file:
        assert file["x"].tolist() == [0, 1, 2]


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "file").write_text("old")

    def breaks(file):
        file.write(b"half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "file", breaks)
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    contents = [str(i) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=atomic_write, args=(tmp_path / "file", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in contents
    assert len(list(tmp_path.iterdir())) == 1
