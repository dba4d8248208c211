"""Rewards computed by another program, on this machine or another, over standard input and output.

``python -m rewards.remote.process MODULE:ATTRIBUTE`` serves any reward in this way: from another environment, or with
``ssh HOST python -m rewards.remote.process ...`` from another host. The protocol is one JSON object a line.

- A request is ``{"id": 7, "crystal": "225-a-Na-...", "numbers": [...], "positions": [[x, y, z], ...], "cell": [[...],
  [...], [...]]}``: the text form of the crystal, and atomic numbers, Cartesian positions in Å and lattice vectors in Å
  (rows) of its primitive cell, for programs that do not parse the text form.
- An empty line ends a batch: no more requests come before these are answered. A program may answer each request at
  once and ignore empty lines, or wait for one and compute the batch together.
- A reply is ``{"id": 7, "reward": 1.5, "terms": {"gap": 2.0}, "failure": null}``, in any order. ``terms`` and
  ``failure`` are optional; with a reason as ``failure`` the crystal has failed, and ``reward`` is optional too.
- All other lines are ignored. The program should end when its standard input does.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import shlex
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import Crystal, CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, default_floor, resolve_reward
from rewards.combinators.rows import rows_of
from rewards.remote.json_subprocess import JSONSubprocess, JSONSubprocessError

if TYPE_CHECKING:
    from ase import Atoms

_MAX_QUOTE = 300  # characters of a line quoted in an error


class ProcessReward:
    """A reward computed by another program; see `rewards.remote.process` for the protocol.

    The program starts with the first batch and keeps running. If it ends before it has answered, it is restarted and
    receives the unanswered requests one by one; a crystal at which it ends twice gets ``floor`` and a reason that
    quotes its last line on standard error. A program that does not answer in time is killed and restarted; only the
    crystal that timed out gets the floor. After more than ``restarts`` consecutive starts without an answer, all
    remaining crystals get the floor. So does a crystal for which a reply holds a number that is not finite.

    Args:
        command: the program and its arguments, as a list, or as a string with the quoting rules of a shell.
        timeout: maximum time in seconds until the next reply, including the start of the program.
        restarts: maximum number of consecutive restarts without an answer.
        batch_size: maximum number of requests before an empty line, which the program may compute together.
        floor: the total of a crystal that cannot be scored; choose the lowest total that the program can give.

    Raises:
        ValueError: if there is no such program, or a number is out of range.

    Example:
        >>> import sys
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> with ProcessReward([sys.executable, "-m", "rewards.remote.process", "rewards:Validity"]) as reward:
        ...     reward([rock_salt]).total
        array([1.])
    """

    def __init__(
        self,
        command: str | Sequence[str],
        timeout: float = 60.0,
        restarts: int = 3,
        batch_size: int = 1,
        floor: float = -10.0,
    ) -> None:
        self.command = shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
        if not self.command or shutil.which(self.command[0]) is None:
            raise InputError(f"command must start with a program, got {command!r}")
        self.timeout = finite_number("timeout", timeout, above=0)
        self.restarts = integer("restarts", restarts, least=0)
        self.batch_size = integer("batch_size", batch_size, least=1)
        self.floor = finite_number("floor", floor)
        self._terms: list[str] = []
        self._next_id = 0
        self._program: JSONSubprocess | None = None
        self._pid = os.getpid()

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for those that cannot be scored."""
        crystals = as_batch(crystals)
        finite = np.isfinite(crystals.XYZ).all((1, 2)) & np.isfinite(crystals.L).all(1)
        invalid = _failed(self.floor, "it has numbers that are not finite")
        results = dict.fromkeys(np.flatnonzero(~finite).tolist(), invalid)
        valid = np.flatnonzero(finite).tolist()
        parts = deque(valid[start : start + self.batch_size] for start in range(0, len(valid), self.batch_size))
        suspects: set[int] = set()
        in_a_row = 0
        while parts:
            part = parts.popleft()
            try:
                self._query(crystals, part, results)
                in_a_row = 0
            except (JSONSubprocessError, OSError) as error:
                self._end()
                left = [row for row in part if row not in results]
                in_a_row = 1 if len(left) < len(part) else in_a_row + 1
                if in_a_row > self.restarts:
                    reason = f"the program failed {in_a_row} times in a row: {error}"
                    results |= dict.fromkeys(itertools.chain(left, *parts), _failed(self.floor, reason))
                    break
                timed_out = isinstance(error, JSONSubprocessError) and error.timed_out
                if len(part) == 1 and (timed_out or part[0] in suspects):
                    results[part[0]] = _failed(self.floor, str(error))
                    continue
                suspects.update(left)
                parts.extend([row] for row in left)  # after the others, which may show that the program works
        result = RewardResult.concatenate([results[row] for row in range(len(crystals))], self.floor, self._terms)
        self._terms = list(result.terms)
        return result

    def pid(self) -> int | None:
        """Return the process id of the program, None if it does not run."""
        return self._program.pid if self._program is not None and self._pid == os.getpid() else None

    def close(self) -> None:
        """End the program; the next batch starts it again."""
        self._end(grace=1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_program": None}

    def _query(self, crystals: CrystalBatch, part: list[int], results: dict[int, RewardResult]) -> None:
        """Send the crystals of some rows to the program, and add its replies to the results by row.

        Raises:
            JSONSubprocessError: if it ends or does not answer in time.
            OSError: if it cannot be started.
        """
        if self._program is None or self._pid != os.getpid():
            self._program, self._pid = JSONSubprocess(self.command), os.getpid()
        program = self._program
        waiting = dict(zip(itertools.count(self._next_id), part, strict=False))
        self._next_id += len(part)
        batch = crystals[part]
        lines = [_request(*each) for each in zip(waiting, batch, batch.to_atoms(), strict=True)]
        program.write("".join(line + "\n" for line in [*lines, ""]))
        end = time.monotonic() + self.timeout
        while waiting:
            reply = program.read(end - time.monotonic())
            name = reply.get("id")
            if isinstance(name, int) and name in waiting:
                results[waiting.pop(name)] = _result(reply, self.floor)
                end = time.monotonic() + self.timeout
            else:
                program.note(reply)

    def _end(self, grace: float = 0.0) -> None:
        if self._program is not None and self._pid == os.getpid():
            self._program.close(grace)
        self._program = None


def _request(name: int, crystal: Crystal, atoms: "Atoms") -> str:
    request = {
        "id": name,
        "crystal": str(crystal),
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
    }
    return json.dumps(request)


def _result(reply: dict[str, Any], floor: float) -> RewardResult:
    """Return the result of the one crystal of a reply."""
    failure, terms = reply.get("failure"), reply.get("terms")
    reward: Any = reply.get("reward")
    reward = floor if reward is None and failure is not None else reward
    terms = {} if terms is None else terms
    if not isinstance(terms, dict) or not all(isinstance(number, int | float) for number in [reward, *terms.values()]):
        return _failed(floor, f"the reply is not understood: {json.dumps(reply)[:_MAX_QUOTE]}")
    try:
        total, numbers = float(reward), {name: float(number) for name, number in terms.items()}
    except OverflowError as error:
        return _failed(floor, f"the reply is not understood: {error}")
    bad = [(name, n) for name, n in {"the reward": total, **numbers}.items() if not math.isfinite(n)]
    if bad:
        reason = "{} is {}".format(*bad[0])
        finite = {name: number for name, number in numbers.items() if math.isfinite(number) and name != "success"}
        fills = {name: 0.0 if name == "success" else floor for name in numbers}
        return _one(floor, fills | finite, reason if failure is None else str(failure))
    return _one(total, numbers, None if failure is None else str(failure))


def _failed(floor: float, reason: str) -> RewardResult:
    return _one(floor, {}, reason)


def _one(total: float, terms: dict[str, float], failure: str | None) -> RewardResult:
    columns = {name: np.array([value]) for name, value in terms.items()}
    return RewardResult(np.array([total]), columns, np.array([failure], object))


def serve(reward: Reward | str, stdin: Iterable[str], stdout: IO[str], floor: float | None = None) -> None:
    """Answer requests with a reward until the input ends; whatever the reward prints goes to standard error.

    Args:
        reward: any reward.
        stdin: lines of requests.
        stdout: stream of the replies.
        floor: the total of a crystal that cannot be scored or parsed, by default -1 or the reward's own floor if lower.
    """
    reward = resolve_reward(reward)
    scorer = Scorer(reward, default_floor(reward) if floor is None else floor)
    waiting: list[str] = []
    with contextlib.redirect_stdout(sys.stderr):
        for line in itertools.chain(stdin, [""]):
            if line.strip():
                waiting.append(line)
            elif waiting:
                for reply in _replies(scorer, waiting):
                    stdout.write(json.dumps(reply) + "\n")
                stdout.flush()
                waiting = []


def _replies(scorer: Scorer, lines: list[str]) -> list[dict[str, Any]]:
    """Return the replies to requests; a malformed line is reported on standard error."""
    names, crystals, replies = [], [], []
    for line in lines:
        try:
            request = json.loads(line)
            name = request["id"]
        except (ValueError, TypeError, KeyError):
            print(f"a line is no request: {line.strip()[:_MAX_QUOTE]}", file=sys.stderr, flush=True)
            continue
        try:
            crystals.append(Crystal.from_string(str(request.get("crystal"))))
            names.append(name)
        except ValueError as error:
            replies.append({"id": name, "reward": scorer.floor, "terms": {}, "failure": f"ValueError: {error}"})
    rows = rows_of(scorer(as_batch(crystals)))
    return replies + [
        {"id": name, "reward": row.total, "terms": row.terms, "failure": row.failure}
        for name, row in zip(names, rows, strict=True)
    ]


def main(args: Sequence[str] | None = None) -> None:
    """Serve the reward that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m rewards.remote.process", description="Serve a reward over JSON lines."
    )
    parser.add_argument("reward", metavar="MODULE:ATTRIBUTE", help="The reward, such as rewards:EnergyAboveHull.")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="Its keyword arguments, as a JSON object.")
    parser.add_argument("--floor", type=float, help="Total of a crystal that cannot be scored.")
    options = parser.parse_args(args)
    reward = resolve_reward(options.reward, options.kwargs)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)  # what native code prints must not get among the replies either
        serve(reward, sys.stdin, stdout, options.floor)


if __name__ == "__main__":
    main()
