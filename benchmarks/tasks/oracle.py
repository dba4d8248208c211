"""The oracle of a task: its reward with a budget, counted on different crystals, and a record of the queries."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tasks.catalogue import find_task
from benchmarks.tasks.perovskites import compositions
from benchmarks.tasks.task import Task
from crystal_env.arguments import integer
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.files import atomic_write
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward
from rewards.combinators.cache import Keys
from rewards.combinators.cache_file import CacheFile
from rewards.combinators.rows import Row, join_rows, rows_of

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal

_CHUNK = 128


class Oracle:
    """A task's reward, metered: it answers until its budget is spent.

    Crystals are counted once: one that was previously queried, in whatever setting, costs nothing and gets the same
    answer. Beyond the budget every new crystal gets the floor and the reason. The task's constraints are enforced by
    its environment, not here.

    Args:
        task: a task, or its name.
        budget: oracle calls, by default the task's.
        path: an SQLite file that keeps the answers, so that a run that was interrupted does not compute them again.
        on_query: called with the number of calls after every part of a batch.

    Attributes:
        queried: number of queries, repeated ones and those beyond the budget included.
        charged: calls for work of the oracle's potential outside of it, see `charge`.
        floor: the lowest total.

    Raises:
        ValueError: if there is no such task, or the reward needs what is not there.
    """

    def __init__(
        self,
        task: Task | str,
        budget: int | None = None,
        path: Path | None = None,
        on_query: Callable[[int], Any] | None = None,
    ) -> None:
        if isinstance(task, str):
            task = find_task(task)
        self.task, self.budget, self.on_query = task, task.budget if budget is None else budget, on_query
        self.floor = task.floor
        self.scorer = Scorer(task_reward(task), task.floor)
        self._keys: Callable[[CrystalBatch], Sequence[Any]] = Keys() if task.key == "canonical" else compositions
        self._file = CacheFile(path, f"{task.reward} {task.reward_kwargs}", task.key) if path else None
        self._rows: dict[Any, Row] = {}
        self._scored: list[CrystalBatch] = []
        self._terms: list[str] = []
        self.queried = self.charged = 0

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals as far as the budget reaches."""
        crystals = as_batch(crystals)
        self.queried += len(crystals)
        keys = self._keys(crystals)
        new: dict[Any, int] = {}
        for row, key in enumerate(keys):
            if key not in self._rows:
                new.setdefault(key, row)
        allowed = list(new)[: self.left]
        for start in range(0, len(allowed), _CHUNK):
            part = allowed[start : start + _CHUNK]
            batch = crystals[[new[key] for key in part]]
            self._rows.update(zip(part, self._answers(part, batch), strict=True))
            self._scored.append(batch)
            if self.on_query is not None:
                self.on_query(self.calls)
        beyond = Row(self.task.floor, {}, f"the budget of {self.budget} calls is spent")
        result = join_rows([self._rows.get(key, beyond) for key in keys], self.task.floor, self._terms)
        self._terms = list(result.terms)
        return result

    def charge(self, calls: int) -> None:
        """Count calls that the potential has answered elsewhere, such as the steps of a relaxation."""
        self.charged += integer("calls", calls, least=0)
        if self.on_query is not None:
            self.on_query(self.calls)

    @property
    def calls(self) -> int:
        """Different crystals that were scored, and calls that were charged."""
        return len(self._rows) + self.charged

    @property
    def left(self) -> int:
        """Calls that are left."""
        return max(self.budget - self.calls, 0)

    @property
    def spent(self) -> bool:
        """Whether no call is left."""
        return not self.left

    @property
    def crystals(self) -> CrystalBatch:
        """The crystals that were scored, in the order of the queries."""
        return CrystalBatch.concatenate(self._scored)

    def result(self) -> RewardResult:
        """Return their rewards."""
        return join_rows(list(self._rows.values()), self.task.floor, self._terms)

    def save(self, path: Path) -> None:
        """Write crystals and answers into an npz file: ``total``, ``failure`` and ``term:NAME`` beside the crystals."""
        crystals, result = self.crystals, self.result()
        arrays: dict[str, NDArray[Any]] = {name: getattr(crystals, name) for name in ("G", "W", "A", "XYZ", "L")}
        arrays |= {f"term:{name}": values for name, values in result.terms.items()}
        arrays["failure"] = np.array([failure or "" for failure in result.failures], np.str_)
        arrays["total"] = result.total
        atomic_write(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the file of answers."""
        if self._file is not None:
            self._file.close()

    def _answers(self, keys: Sequence[Any], crystals: CrystalBatch) -> list[Row]:
        """Return the answers in the file, and of other crystals those of the reward."""
        names = [str(key) for key in keys]
        known = self._file.read(names) if self._file is not None else {}
        missing = [row for row, name in enumerate(names) if name not in known]
        fresh = dict(zip([names[row] for row in missing], rows_of(self.scorer(crystals[missing])), strict=True))
        if self._file is not None and fresh:
            self._file.write(fresh)
        return [known[name] if name in known else fresh[name] for name in names]


def load_trace(path: Path) -> tuple[CrystalBatch, RewardResult]:
    """Return what `Oracle.save` wrote: the crystals and their rewards."""
    with path.open("rb") as archive, np.load(archive, allow_pickle=False) as file:
        crystals = CrystalBatch(*(file[name] for name in ("G", "W", "A", "XYZ", "L")))
        terms = {name.removeprefix("term:"): file[name] for name in file.files if name.startswith("term:")}
        failures = np.array([failure or None for failure in file["failure"].tolist()] + [None], object)[:-1]
        return crystals, RewardResult(file["total"], terms, failures)


def task_reward(task: Task) -> Reward:
    """Return the reward of a task without its budget.

    Raises:
        ValueError: if an argument is an environment variable that is not set.
    """
    kwargs = {}
    for name, value in task.reward_kwargs.items():
        variable = value[1:] if isinstance(value, str) and value.startswith("$") else None
        if variable is not None and variable not in os.environ:
            raise InputError(f"{task.id} needs the environment variable {variable}, the path of its reward's {name}")
        kwargs[name] = value if variable is None else os.environ[variable]
    return resolve_reward(task.reward, kwargs)
