"""A reward on many workers of a Ray cluster: one copy of its models on each."""

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

_TRIALS = 2  # how often a chunk may kill its worker before it is cut in two


class RayPool:
    """Scores crystals on Ray actors, each with a copy of the reward, and returns them in order.

    A worker that dies is replaced, and its crystals are scored again; a chunk that has killed two workers is cut in
    two, down to the crystal that does it, which gets ``floor`` and a reason. No more than two chunks wait at a worker.
    Ray is started with the first score if the program has not done so. Pickles and copies have workers of their own.

    Args:
        reward: any reward that can be pickled.
        workers: actors, by default one per CPU of the cluster, or per GPU if ``num_gpus`` is given.
        num_cpus: CPUs of an actor.
        num_gpus: GPUs of an actor, such as 1 or 0.5.
        chunk_size: crystals that an actor gets at a time.
        floor: the total of a crystal that cannot be scored.

    Raises:
        ValueError: if a number is not positive. The first call raises ImportError without Ray.
    """

    def __init__(
        self,
        reward: Reward | str,
        workers: int | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        chunk_size: int = 32,
        floor: float = -10.0,
    ) -> None:
        for name, value in (("workers", 1 if workers is None else workers), ("chunk_size", chunk_size)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if num_cpus < 0 or num_gpus < 0:
            raise ValueError(f"num_cpus and num_gpus must not be negative, got {num_cpus} and {num_gpus}")
        self.reward = resolve_reward(reward)
        self.workers, self.chunk_size, self.floor = workers, int(chunk_size), float(floor)
        self.num_cpus, self.num_gpus = num_cpus, num_gpus
        self.restarts = 0
        self._actors: list[Any] = []

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals, in order."""
        crystals = as_batch(crystals)
        rows = np.arange(len(crystals))
        waiting = [(rows[start : start + self.chunk_size], 0) for start in range(0, len(rows), self.chunk_size)]
        parts: list[tuple[np.ndarray, RewardResult]] = []
        if waiting:
            self._start()
            self._run(crystals, waiting, parts)
        return _joined(parts, len(crystals), self.floor)

    def close(self) -> None:
        """End the workers."""
        if self._actors:
            import ray

            for actor in self._actors:
                ray.kill(actor)
            self._actors = []

    def __enter__(self) -> "RayPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_actors": []}

    def _start(self) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError(f'RayPool needs Ray: pip install "crystalgen[ray]" ({error})') from error

        if self._actors:
            return
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if self.workers is None:
            kind, each = ("GPU", self.num_gpus) if self.num_gpus else ("CPU", self.num_cpus or 1)
            self.workers = max(int(ray.cluster_resources().get(kind, 1) / each), 1)
        self._actors = [self._actor() for _ in range(self.workers)]

    def _actor(self) -> Any:
        import ray

        remote = ray.remote(num_cpus=self.num_cpus, num_gpus=self.num_gpus)(_Worker)
        return remote.remote(self.reward, self.floor)

    def _run(
        self,
        crystals: CrystalBatch,
        waiting: list[tuple[np.ndarray, int]],
        parts: list[tuple[np.ndarray, RewardResult]],
    ) -> None:
        """Hand chunks to workers until all are done."""
        import ray

        running: dict[Any, tuple[int, np.ndarray, int]] = {}  # task -> worker, rows, trials
        while waiting or running:
            for worker in self._free(running):
                if waiting:
                    rows, trials = waiting.pop(0)
                    running[self._actors[worker].score.remote(_arrays(crystals[rows]))] = (worker, rows, trials)
            (task,), _ = ray.wait(list(running), num_returns=1)
            worker, rows, trials = running.pop(task)
            try:
                parts.append((rows, RewardResult(*ray.get(task))))
            except ray.exceptions.RayActorError as error:
                first = self._lost(worker, running, (rows, trials))
                waiting[:0] = first[1:]
                self._again(first[0], waiting, parts, str(error).splitlines()[0])

    def _free(self, running: dict[Any, tuple[int, np.ndarray, int]]) -> list[int]:
        """Return the workers that may get a chunk, twice if they may get two."""
        load = [sum(worker == w for w, _, _ in running.values()) for worker in range(len(self._actors))]
        return [worker for room in (0, 1) for worker in range(len(load)) if load[worker] <= room]

    def _lost(
        self, worker: int, running: dict[Any, tuple[int, np.ndarray, int]], chunk: tuple[np.ndarray, int]
    ) -> list[tuple[np.ndarray, int]]:
        """Replace a dead worker, and return its chunks, the one it was at first."""
        chunks = [chunk]
        for task, (owner, rows, trials) in list(running.items()):
            if owner == worker:
                running.pop(task)
                chunks.append((rows, trials))
        self._actors[worker] = self._actor()
        self.restarts += 1
        return chunks

    def _again(
        self,
        chunk: tuple[np.ndarray, int],
        waiting: list[tuple[np.ndarray, int]],
        parts: list[tuple[np.ndarray, RewardResult]],
        reason: str,
    ) -> None:
        """Have a chunk that was with a dead worker scored again, in two if it has killed several."""
        rows, trials = chunk
        if trials + 1 < _TRIALS:
            waiting.insert(0, (rows, trials + 1))
        elif len(rows) > 1:
            half = len(rows) // 2
            waiting[:0] = [(rows[:half], 0), (rows[half:], 0)]
        else:
            failed = np.array([f"it killed its worker: {reason}", None], object)[:1]
            parts.append((rows, RewardResult(np.array([self.floor]), {}, failed)))


class _Worker:
    """What runs on an actor."""

    def __init__(self, reward: Reward, floor: float) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.scorer = Scorer(reward, floor)

    def score(self, arrays: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
        return tuple(self.scorer(CrystalBatch(*arrays)))


def _arrays(crystals: CrystalBatch) -> tuple[np.ndarray, ...]:
    return crystals.G, crystals.W, crystals.A, crystals.XYZ, crystals.L


def _joined(parts: list[tuple[np.ndarray, RewardResult]], size: int, floor: float) -> RewardResult:
    """Return the results of parts in the order of their rows."""
    total, failures = np.full(size, floor), np.full(size, None, object)
    terms: dict[str, np.ndarray] = {}
    for rows, result in parts:
        total[rows], failures[rows] = result.total, result.failures
        for name, values in result.terms.items():
            terms.setdefault(name, np.full(size, 0.0 if name == "success" else floor))[rows] = values
    return RewardResult(total, terms, failures)
