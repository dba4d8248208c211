"""A subprocess that answers in JSON lines."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import IO, Any

_MAX_LINE = 1 << 24  # characters; a longer line is read in pieces
_MAX_QUOTE = 300  # characters of a line quoted in an error


class JSONSubprocessError(Exception):
    """The program did not answer in time, or has ended.

    Attributes:
        timed_out: whether it is still running without an answer.
    """

    def __init__(self, reason: str, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class JSONSubprocess:
    """A running program. Threads write to it and read from it, so that a full pipe never blocks the caller.

    Args:
        command: the program and its arguments.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = subprocess.Popen(
            command, text=True, encoding="utf-8", errors="replace", start_new_session=True, **pipes
        )
        self._written: SimpleQueue[str | None] = SimpleQueue()
        self._replies: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._ignored: deque[str] = deque(maxlen=1)
        self._stderr: deque[str] = deque(maxlen=1)
        self._threads = [
            threading.Thread(target=target, args=args, daemon=True)
            for target, args in (
                (_write, (self._process.stdin, self._written)),
                (_read, (self._process.stdout, self._replies, self._ignored)),
                (_read_errors, (self._process.stderr, self._stderr)),
            )
        ]
        for thread in self._threads:
            thread.start()
        self.pid = self._process.pid
        self._stop = weakref.finalize(self, _stop, self._process, self._written, self._threads, os.getpid())

    def write(self, text: str) -> None:
        """Queue text for the program's standard input and return at once."""
        self._written.put(text)

    def read(self, timeout: float) -> dict[str, Any]:
        """Return the next JSON object that the program writes; other lines are skipped.

        Raises:
            JSONSubprocessError: if there is none within ``timeout`` seconds, or the program has ended.
        """
        try:
            reply = self._replies.get(timeout=max(timeout, 0.0))
        except Empty:
            raise JSONSubprocessError(f"no reply in time{self._last_lines()}", timed_out=True) from None
        if reply is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            self._threads[2].join(1.0)
            code = self._process.poll()
            ended = "the program closed its output" if code is None else f"the program ended with exit code {code}"
            raise JSONSubprocessError(f"{ended}{self._last_lines()}", timed_out=False)
        return reply

    def close(self, grace: float = 0.0) -> None:
        """Close the program's standard input, and kill the program after ``grace`` seconds."""
        self._written.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self._stop()

    def note(self, reply: dict[str, Any]) -> None:
        """Keep a reply to no request, to be quoted in an error."""
        self._ignored.append(json.dumps(reply))

    def _last_lines(self) -> str:
        text = ""
        if self._stderr:
            text += f"; last line on standard error: {self._stderr[-1].strip()[:_MAX_QUOTE]}"
        if self._ignored:
            text += f"; last line not understood: {self._ignored[-1].strip()[:_MAX_QUOTE]}"
        return text


def _write(stream: IO[str], texts: "SimpleQueue[str | None]") -> None:
    with contextlib.suppress(OSError), stream:
        while (text := texts.get()) is not None:
            stream.write(text)
            stream.flush()


def _read(stream: IO[str], replies: "SimpleQueue[dict[str, Any] | None]", ignored: deque[str]) -> None:
    with stream:
        while line := stream.readline(_MAX_LINE):
            try:
                reply = json.loads(line)
            except (ValueError, RecursionError):
                reply = None
            if isinstance(reply, dict):
                replies.put(reply)
            elif line.strip():
                ignored.append(line)
    replies.put(None)


def _read_errors(stream: IO[str], lines: deque[str]) -> None:
    with stream:
        while line := stream.readline(_MAX_LINE):
            if line.strip():
                lines.append(line)


def _stop(
    process: "subprocess.Popen[str]", texts: "SimpleQueue[str | None]", threads: list[threading.Thread], owner: int
) -> None:
    """Kill a program and its process group, and wait for its end; does nothing in a forked copy of its parent."""
    if os.getpid() != owner:
        return
    texts.put(None)
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    end = time.monotonic() + 1.0
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
