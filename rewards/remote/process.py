"""Scoring by another program, here or on another machine, over its standard input and output.

``python -m rewards.remote.process MODULE:ATTRIBUTE`` is such a program: it serves any reward, with another environment
or by ``ssh HOST python -m rewards.remote.process ...`` on another host. The protocol is one JSON object a line.

- A request is ``{"id": 7, "crystal": "225-a-Na-...", "numbers": [...], "positions": [[x, y, z], ...], "cell": [[...],
  [...], [...]]}``: the text form of the crystal, and atomic numbers, Cartesian positions in Å and lattice vectors in Å
  (rows) of its primitive cell, for programs that do not know the text form.
- An empty line says that no more requests come before these are answered. A program may answer each request at once
  and ignore empty lines, or wait for one and compute all together.
- A reply is ``{"id": 7, "reward": 1.5, "terms": {"gap": 2.0}, "failure": null}``, in any order. ``terms`` and
  ``failure`` may be missing; with a reason as ``failure`` the crystal has failed, and ``reward`` may be missing too.
- Other lines are ignored. The program should end when its standard input does.
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

from crystal_env.crystal import Crystal, CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward
from rewards.combinators.rows import Row, join_rows, rows_of
from rewards.remote.child import Child, ChildError

if TYPE_CHECKING:
    from ase import Atoms

_QUOTED = 300  # characters of a line that is quoted


class ProcessReward:
    """A reward that another program computes; see `rewards.remote.process` for how they talk.

    The program starts with the first score and stays. If it ends before it has answered, it is started again and asked
    again for what is missing, crystal by crystal; a crystal at which it ends twice gets ``floor`` and a reason that
    quotes its last line on standard error. A program that does not answer in time is killed and started again; alone,
    the crystal it was busy with gets the floor, and the others are scored. After more than ``restarts`` starts in a row
    without an answer, all crystals that are left get the floor.

    Args:
        command: the program and its arguments, as a list, or as a string that is split as a shell would do it.
        timeout: longest time in seconds until the next reply, the start of the program included.
        restarts: how often the program is started again without having answered.
        batch_size: most requests before an empty line: what the program may compute together.
        floor: the total of a crystal that cannot be scored.

    Raises:
        ValueError: if there is no such program, or a number is impossible.

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
        if not timeout > 0:
            raise InputError(f"timeout must be positive, got {timeout}")
        for name, value, least in (("restarts", restarts, 0), ("batch_size", batch_size, 1)):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        self.timeout, self.restarts, self.batch_size = float(timeout), int(restarts), int(batch_size)
        self.floor = float(floor)
        self._terms: list[str] = []
        self._next_id = 0
        self._child: Child | None = None
        self._pid = os.getpid()

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for what becomes of those that cannot be scored."""
        crystals = as_batch(crystals)
        finite = np.isfinite(crystals.XYZ).all((1, 2)) & np.isfinite(crystals.L).all(1)
        rows = {
            row: Row(self.floor, {}, "it has numbers that are not finite") for row in np.flatnonzero(~finite).tolist()
        }
        askable = np.flatnonzero(finite).tolist()
        parts = deque(askable[start : start + self.batch_size] for start in range(0, len(askable), self.batch_size))
        suspects: set[int] = set()
        in_a_row = 0
        while parts:
            part = parts.popleft()
            try:
                self._ask(crystals, part, rows)
                in_a_row = 0
            except (ChildError, OSError) as error:
                self._end()
                left = [row for row in part if row not in rows]
                in_a_row = 1 if len(left) < len(part) else in_a_row + 1
                if in_a_row > self.restarts:
                    reason = f"the program failed {in_a_row} times in a row: {error}"
                    rows |= dict.fromkeys(itertools.chain(left, *parts), Row(self.floor, {}, reason))
                    break
                timed_out = isinstance(error, ChildError) and not error.in_time
                if len(part) == 1 and (timed_out or part[0] in suspects):
                    rows[part[0]] = Row(self.floor, {}, str(error))
                    continue
                suspects.update(left)
                parts.extend([row] for row in left)  # after the others, which may show that the program works
        return join_rows([rows[row] for row in range(len(crystals))], self._terms, self.floor)

    def pid(self) -> int | None:
        """Return the process id of the program, None if it does not run."""
        return self._child.pid if self._child is not None and self._pid == os.getpid() else None

    def close(self) -> None:
        """End the program; the next score starts it again."""
        self._end(grace=1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_child": None}

    def _ask(self, crystals: CrystalBatch, part: list[int], rows: dict[int, Row]) -> None:
        """Send some crystals to the program, and put what it answers into the rows.

        Raises:
            ChildError: if it ends or does not answer in time.
            OSError: if it cannot be started.
        """
        if self._child is None or self._pid != os.getpid():
            self._child, self._pid = Child(self.command), os.getpid()
        child = self._child
        waiting = dict(zip(itertools.count(self._next_id), part, strict=False))
        self._next_id += len(part)
        asked = crystals[part]
        lines = [_request(*each) for each in zip(waiting, asked, asked.to_atoms(), strict=True)]
        child.write("".join(line + "\n" for line in [*lines, ""]))
        end = time.monotonic() + self.timeout
        while waiting:
            reply = child.read(end - time.monotonic())
            name = reply.get("id")
            if isinstance(name, int) and name in waiting:
                rows[waiting.pop(name)] = _row(reply, self.floor)
                end = time.monotonic() + self.timeout
            else:
                child.note(reply)

    def _end(self, grace: float = 0.0) -> None:
        if self._child is not None and self._pid == os.getpid():
            self._child.close(grace)
        self._child = None


def _request(name: int, crystal: Crystal, atoms: "Atoms") -> str:
    request = {
        "id": name,
        "crystal": str(crystal),
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
    }
    return json.dumps(request)


def _row(reply: dict[str, Any], floor: float) -> Row:
    """Return what a reply says of its crystal."""
    failure, terms = reply.get("failure"), reply.get("terms")
    reward: Any = reply.get("reward")
    reward = floor if reward is None and failure is not None else reward
    terms = {} if terms is None else terms
    if not isinstance(terms, dict) or not all(isinstance(number, int | float) for number in [reward, *terms.values()]):
        return Row(floor, {}, f"the reply is not understood: {json.dumps(reply)[:_QUOTED]}")
    try:
        total, numbers = float(reward), {name: float(number) for name, number in terms.items()}
    except OverflowError as error:
        return Row(floor, {}, f"the reply is not understood: {error}")
    if not math.isfinite(total):
        total, failure = floor, f"the reward is {total}"
    fills = {name: 0.0 if name == "success" else floor for name in numbers}
    numbers = {name: number if math.isfinite(number) else fills[name] for name, number in numbers.items()}
    return Row(total, numbers, None if failure is None else str(failure))


def serve(reward: Reward | str, stdin: Iterable[str], stdout: IO[str], floor: float = -10.0) -> None:
    """Answer requests with a reward until there are no more; what the reward prints goes to standard error.

    Args:
        reward: any reward.
        stdin: lines of requests.
        stdout: where replies are written to.
        floor: the total of a crystal for which the reward raises, or that cannot be read.
    """
    scorer = Scorer(resolve_reward(reward), floor)
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
    """Return the replies to requests; a line that is none is reported on standard error."""
    names, crystals, replies = [], [], []
    for line in lines:
        try:
            request = json.loads(line)
            name = request["id"]
        except (ValueError, TypeError, KeyError):
            print(f"a line is no request: {line.strip()[:_QUOTED]}", file=sys.stderr, flush=True)
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
    parser.add_argument("reward", metavar="MODULE:ATTRIBUTE", help="the reward, such as rewards:EnergyAboveHull")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="its keyword arguments, as a JSON object")
    parser.add_argument("--floor", type=float, default=-10.0, help="the total of a crystal that cannot be scored")
    options = parser.parse_args(args)
    reward = resolve_reward(options.reward, options.kwargs)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)  # what native code prints must not get among the replies either
        serve(reward, sys.stdin, stdout, options.floor)


if __name__ == "__main__":
    main()
