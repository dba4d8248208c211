"""A subprocess answers in JSON lines, and its failures quote its last lines."""

import os
import sys
import time

import pytest

from rewards.remote.json_subprocess import JSONSubprocess, JSONSubprocessError


@pytest.fixture
def start():
    """A function that starts Python code; what it has started ends with the test."""
    programs = []

    def started(code):
        programs.append(JSONSubprocess([sys.executable, "-I", "-S", "-u", "-c", code]))
        return programs[-1]

    yield started
    for program in programs:
        program.close()


def test_objects_come_in_order_and_other_lines_are_skipped(start):
    program = start("import sys\nprint('hello', [1], 5)\nfor line in sys.stdin: print(line, end='')")
    program.write('{"a": 1}\nnothing\n[2]\n{"b": 2}\n')
    assert [program.read(10), program.read(10)] == [{"a": 1}, {"b": 2}]


def test_silence_is_a_timeout_that_quotes_both_outputs(start):
    code = "import sys, time; print('hm', file=sys.stderr); print('busy'); print('{}'); time.sleep(60)"
    program = start(code)
    assert program.read(10) == {}
    with pytest.raises(JSONSubprocessError, match="error: hm; last line not understood: busy") as caught:
        program.read(0.5)
    assert caught.value.timed_out
    program.note({"id": 7})
    with pytest.raises(JSONSubprocessError, match=r'no reply in time; .*; last line not understood: {"id": 7}'):
        program.read(0)


def test_an_end_gives_the_exit_code_and_is_no_timeout(start):
    with pytest.raises(JSONSubprocessError, match="ended with exit code 3; last line on standard error: bye") as caught:
        start("import sys; print('bye', file=sys.stderr); sys.exit(3)").read(10)
    assert not caught.value.timed_out


def test_a_program_that_reads_nothing_does_not_block(start):
    program, begun = start("import time; time.sleep(60)"), time.monotonic()
    program.write("x" * 10_000_000)
    program.close()
    assert time.monotonic() - begun < 5
    with pytest.raises(ProcessLookupError):
        os.kill(program.pid, 0)


def test_a_program_may_finish_within_its_grace(start, tmp_path):
    mark = tmp_path / "mark"
    start(f"import sys; sys.stdin.read(); open({str(mark)!r}, 'w').write('done')").close(grace=10.0)
    assert mark.read_text() == "done"


def test_a_missing_program_is_an_error_of_the_system():
    with pytest.raises(FileNotFoundError):
        JSONSubprocess(["no-such-program-anywhere"])
