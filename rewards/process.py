"""A reward in another program, over JSON lines; and a server for rewards of this package.

For every crystal the program gets one line on its standard input: ``{"id": 3, "crystal": "225-a-Na-…", "numbers":
[11, 17], "positions": [[0, 0, 0], …], "cell": [[…], …]}``, the text of the crystal, and the atoms of its primitive cell
in Å. It answers each with one line on its standard output, in any order: ``{"id": 3, "reward": 1.5, "terms": {"gap":
3.0}, "failure": null}``; ``terms`` and ``failure`` may be left out. Other lines are ignored. Any language will do; with
Python, ``python -m rewards.process module:attribute`` serves a reward, also behind ``ssh host``.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from queue import Empty, Queue
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from crystal_env.crystal import Crystal, CrystalBatch, as_batch
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward

if TYPE_CHECKING:
    from collections.abc import Iterable

_IN_FLIGHT = 64  # crystals sent ahead of their answers
_LAST_WORDS = 3  # lines of standard error that are remembered


class ProcessReward:
    """A reward that another program computes, one crystal a line; see `rewards.process` for the lines.

    The program starts with the first score and stays. If an answer takes longer than ``timeout``, or the program ends,
    it is started again: the crystal it was at gets ``floor`` and a reason, the others are sent again. Pickles and
    copies start a program of their own.

    Args:
        command: the program and its arguments.
        timeout: longest time in seconds between two answers.
        floor: the total of a crystal that cannot be scored.

    Raises:
        ValueError: if ``command`` is empty or a string, or ``timeout`` is not positive. The first call raises OSError
            if the program cannot be started.
    """

    def __init__(self, command: Sequence[str], timeout: float = 60.0, floor: float = -10.0) -> None:
        if isinstance(command, str) or not command:
            raise ValueError(f"command must be a list such as ['python', 'score.py'], got {command!r}")
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        self.command, self.timeout, self.floor = list(command), float(timeout), float(floor)
        self._program: _Program | None = None
        self._sent = 0

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals, in order."""
        crystals = as_batch(crystals)
        replies: list[dict[str, Any] | str | None] = [None] * len(crystals)
        requests = [_request(crystal) for crystal in crystals]
        while waiting := [row for row, reply in enumerate(replies) if reply is None]:
            try:
                self._exchange(waiting, requests, replies)
            except TimeoutError as error:
                self.close()
                first = next(row for row in waiting if replies[row] is None)
                replies[first] = str(error)
        return _result(replies, self.floor)

    def close(self) -> None:
        """End the program."""
        if self._program is not None:
            self._program.close()
            self._program = None

    def __enter__(self) -> "ProcessReward":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_program": None}

    def _exchange(
        self, rows: list[int], requests: list[dict[str, Any]], replies: list[dict[str, Any] | str | None]
    ) -> None:
        """Send requests and take in replies.

        Raises:
            TimeoutError: if the program is silent for too long or has ended.
        """
        if self._program is None:
            self._program = _Program(self.command)
        numbers: dict[int, int] = {}
        for row in rows:
            if len(numbers) >= _IN_FLIGHT:
                self._take(numbers, replies)
            self._sent += 1
            numbers[self._sent] = row
            self._program.send({"id": self._sent, **requests[row]})
        while numbers:
            self._take(numbers, replies)

    def _take(self, numbers: dict[int, int], replies: list[dict[str, Any] | str | None]) -> None:
        assert self._program is not None
        deadline = time.monotonic() + self.timeout
        while True:
            reply = self._program.receive(deadline, self.timeout)
            if reply.get("id") in numbers:
                replies[numbers.pop(reply["id"])] = reply
                return


class _Program:
    """A running program: lines in, lines out, and its last words."""

    def __init__(self, command: list[str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")
        self.lines: Queue[str | None] = Queue()
        self.words: list[str] = []
        self.threads = [
            threading.Thread(target=self._read_lines, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self._read_words, args=(self.process.stderr,), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except (OSError, ValueError):  # it has ended; `receive` says so
            return

    def receive(self, deadline: float, timeout: float) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            TimeoutError: if there is none until the deadline, or the program has ended.
        """
        while True:
            try:
                line = self.lines.get(timeout=max(deadline - time.monotonic(), 0))
            except Empty:
                raise TimeoutError(f"the program gave no answer within {timeout:g} s{self._last_words()}") from None
            if line is None:
                code = self.process.wait()
                self.threads[1].join(1.0)
                raise TimeoutError(f"the program ended with exit status {code}{self._last_words()}")
            try:
                reply = json.loads(line)
            except ValueError:
                continue
            if isinstance(reply, dict):
                return reply

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self.threads:
            thread.join(1.0)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was still to be written has no reader any more
                    continue

    def _read_lines(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.put(line)
        self.lines.put(None)

    def _read_words(self, stream: IO[str]) -> None:
        for line in stream:
            self.words = [*self.words, line.strip()][-_LAST_WORDS:]

    def _last_words(self) -> str:
        return f": {self.words[-1][:300]}" if self.words else ""


def _request(crystal: Crystal) -> dict[str, Any]:
    atoms = crystal.to_atoms()
    numbers, positions, cell = atoms.numbers.tolist(), atoms.positions.tolist(), atoms.cell.array.tolist()
    return {"crystal": str(crystal), "numbers": numbers, "positions": positions, "cell": cell}


def _result(replies: Sequence[dict[str, Any] | str | None], floor: float) -> RewardResult:
    """Return the result of replies, in order; what is no number is a failure."""
    total, reasons = np.full(len(replies), floor), np.full(len(replies), None, object)
    rows: list[dict[str, float]] = []
    for row, reply in enumerate(replies):
        terms: dict[str, float] = {}
        try:
            if not isinstance(reply, dict):
                raise ValueError(reply)
            if reply.get("failure") is not None:
                raise ValueError(reply["failure"])
            value = float(reply["reward"])
            terms = {str(name): float(number) for name, number in (reply.get("terms") or {}).items()}
            if not np.isfinite([value, *terms.values()]).all():
                raise ValueError(f"the program gave {value} and {terms}")
            total[row] = value
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            terms, reasons[row] = {}, str(error) if type(error) is ValueError else f"the program answered {reply}"
        rows.append(terms)
    names = list(dict.fromkeys(name for terms in rows for name in terms))
    columns = {
        name: np.array([terms.get(name, 0.0 if name == "success" else floor) for terms in rows]) for name in names
    }
    return RewardResult(total, columns, reasons)


def serve(reward: Reward | str, lines: IO[str], out: IO[str], floor: float = -10.0) -> None:
    """Answer requests with a reward until there are no more.

    Args:
        reward: any reward.
        lines: the requests.
        out: where the answers go.
        floor: the total of a crystal that cannot be scored.
    """
    scorer = Scorer(resolve_reward(reward), floor)
    for line in lines:
        request = json.loads(line)
        try:
            result = scorer(Crystal.from_string(request["crystal"]).to_batch())
            terms = {name: float(values[0]) for name, values in result.terms.items()}
            reply = {"reward": float(result.total[0]), "terms": terms, "failure": result.failures[0]}
        except ValueError as error:
            reply = {"reward": floor, "failure": str(error)}
        out.write(json.dumps({"id": request["id"], **reply}) + "\n")
        out.flush()


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # what a reward prints must not be taken for an answer
    serve(sys.argv[1], sys.stdin, answers)
