"""A program that answers in JSON lines, and what it leaves when it fails."""

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

_LINE = 1 << 24  # characters of the longest line that is read as one
_QUOTED = 300  # characters of a line that is quoted


class ChildError(Exception):
    """The program did not answer in time, or has ended."""

    def __init__(self, reason: str, in_time: bool) -> None:
        super().__init__(reason)
        self.in_time = in_time


class Child:
    """A running program, with threads that write to it and read from it, so that it can never block its parent.

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
        self._strange: deque[str] = deque(maxlen=1)
        self._errors: deque[str] = deque(maxlen=1)
        self._threads = [
            threading.Thread(target=target, args=args, daemon=True)
            for target, args in (
                (_write, (self._process.stdin, self._written)),
                (_read, (self._process.stdout, self._replies, self._strange)),
                (_read_errors, (self._process.stderr, self._errors)),
            )
        ]
        for thread in self._threads:
            thread.start()
        self.pid = self._process.pid
        self._stop = weakref.finalize(self, _stop, self._process, self._written, self._threads, os.getpid())

    def write(self, text: str) -> None:
        """Write text, without waiting until it is read."""
        self._written.put(text)

    def read(self, timeout: float) -> dict[str, Any]:
        """Return the next JSON object that the program writes; other lines are skipped.

        Raises:
            ChildError: if there is none within ``timeout`` seconds, or the program has ended.
        """
        try:
            reply = self._replies.get(timeout=max(timeout, 0.0))
        except Empty:
            raise ChildError(f"no reply in time{self._last_words()}", in_time=False) from None
        if reply is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            self._threads[2].join(1.0)
            code = self._process.poll()
            ended = "the program closed its output" if code is None else f"the program ended with exit code {code}"
            raise ChildError(f"{ended}{self._last_words()}", in_time=True)
        return reply

    def close(self, grace: float = 0.0) -> None:
        """End the program: it has ``grace`` seconds after its input has ended, then it is killed."""
        self._written.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self._stop()

    def note(self, reply: dict[str, Any]) -> None:
        """Remember a reply that nobody has asked for."""
        self._strange.append(json.dumps(reply))

    def _last_words(self) -> str:
        words = ""
        if self._errors:
            words += f"; last line on standard error: {self._errors[-1].strip()[:_QUOTED]}"
        if self._strange:
            words += f"; last line not understood: {self._strange[-1].strip()[:_QUOTED]}"
        return words


def _write(stream: IO[str], texts: "SimpleQueue[str | None]") -> None:
    with contextlib.suppress(OSError), stream:
        while (text := texts.get()) is not None:
            stream.write(text)
            stream.flush()


def _read(stream: IO[str], replies: "SimpleQueue[dict[str, Any] | None]", strange: deque[str]) -> None:
    with stream:
        while line := stream.readline(_LINE):
            try:
                reply = json.loads(line)
            except (ValueError, RecursionError):
                reply = None
            if isinstance(reply, dict):
                replies.put(reply)
            elif line.strip():
                strange.append(line)
    replies.put(None)


def _read_errors(stream: IO[str], lines: deque[str]) -> None:
    with stream:
        while line := stream.readline(_LINE):
            if line.strip():
                lines.append(line)


def _stop(
    process: "subprocess.Popen[str]", texts: "SimpleQueue[str | None]", threads: list[threading.Thread], owner: int
) -> None:
    """Kill a program with all that it has started, and wait for its end; only the process that started it may."""
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
