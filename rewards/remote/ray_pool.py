"""Scoring in parallel on Ray actors: one copy of the model each, dying ones replaced."""

import math
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward
from rewards.combinators.aggregate import lower_floor
from rewards.remote.ray_session import import_ray, session, start_ray

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal

_MAX_CHUNK_DEATHS = 2  # workers that a chunk may lose before its crystals are scored one by one
_START_TIMEOUT = 300.0  # seconds in which at least one worker must have started


@dataclass
class _Chunk:
    """Crystals that are scored together, and the number of workers that died over them."""

    rows: NDArray[np.int64]
    deaths: int = 0


@dataclass
class _Worker:
    """An actor and its tasks in order; the first task, without a chunk, ends when the actor has started."""

    actor: Any
    tasks: "deque[tuple[Any, _Chunk | None]]" = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)
    pid: int | None = None


class RayPool:
    """A reward computed by Ray actors, on the cores or GPUs of this machine or of a cluster.

    Total, terms and failures are those of the reward, in the order of the crystals. Every worker is a process with a
    copy of the reward and one torch thread; it loads its model with its first chunk and keeps it. A chunk goes to the
    worker with the fewest, at most ``max_in_flight`` each. Workers start when there is work for them. One that dies or
    exceeds ``timeout`` is replaced, and its crystals are scored again. A chunk that has lost two workers is split into
    single crystals, and a crystal that has lost more than ``restarts`` gets ``floor`` and a reason.

    Ray is connected with the first batch, to the cluster at ``$RAY_ADDRESS`` if that is set, else it is started on this
    machine (and ends with the program); an existing connection is used as it is. Resources reserved for the workers of
    one pool are not available to another until it is closed. If no worker can be started, all crystals get ``floor``
    and a reason, with a `RuntimeWarning`.

    Args:
        reward: any reward that can be pickled.
        workers: maximum number of actors, by default as many as there are cores and GPUs for.
        num_cpus: cores that Ray reserves for a worker; by default it needs one free to start and then reserves none.
        num_gpus: GPUs, or a fraction of one, that Ray reserves for a worker.
        chunk_size: maximum number of crystals of one task; fewer if there are too few for all workers.
        max_in_flight: maximum number of tasks queued at a worker, the running one included.
        restarts: how often a crystal is scored again after its worker has died.
        timeout: seconds for a chunk, by default unlimited; the first one of a worker includes loading the model.
        floor: the total of a crystal that cannot be scored.

    Attributes:
        deaths: number of workers that have died or exceeded the timeout.
        floor: the lowest total: the argument, or the reward's own floor where it is lower.

    Raises:
        ImportError: if Ray is missing.
        ValueError: if an argument is out of range.

    Example:
        >>> import rewards
        >>> with RayPool(rewards.EnergyAboveHull(), workers=2) as reward:  # doctest: +SKIP
        ...     result = reward(crystals)
    """

    def __init__(
        self,
        reward: Reward | str,
        workers: int | None = None,
        num_cpus: float | None = None,
        num_gpus: float = 0.0,
        chunk_size: int = 32,
        max_in_flight: int = 2,
        restarts: int = 3,
        timeout: float | None = None,
        floor: float = -10.0,
    ) -> None:
        self.workers = None if workers is None else integer("workers", workers, least=1)
        self.num_cpus = None if num_cpus is None else finite_number("num_cpus", num_cpus, least=0)
        self.num_gpus = finite_number("num_gpus", num_gpus, least=0)
        self.chunk_size = integer("chunk_size", chunk_size, least=1)
        self.max_in_flight = integer("max_in_flight", max_in_flight, least=1)
        self.restarts = integer("restarts", restarts, least=0)
        self.timeout = None if timeout is None else finite_number("timeout", timeout, above=0)
        self._floor = finite_number("floor", floor)
        import_ray()
        self.reward = resolve_reward(reward)
        self.deaths = 0
        self._terms: list[str] = []
        self._forget()

    @property
    def floor(self) -> float:
        """The lowest total; see the class."""
        return lower_floor(self._floor, self.reward)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for those that cannot be scored.

        Raises:
            ValueError: if the cluster has not enough for a single worker.
        """
        crystals = as_batch(crystals)
        results: dict[int, RewardResult] = {}
        if len(crystals):
            limit = self._connect()
            size = min(self.chunk_size, math.ceil(len(crystals) / limit))
            starts = range(size, len(crystals), size)
            queue = deque(_Chunk(part) for part in np.split(np.arange(len(crystals)), starts))
            try:
                while sum(len(part.total) for part in results.values()) < len(crystals):
                    self._submit(queue, crystals, limit)
                    self._collect(queue, results)
            except BaseException:
                self.close()
                raise
        result = RewardResult.concatenate([results[start] for start in sorted(results)], self._floor, self._terms)
        self._terms = list(result.terms)
        return result

    def pids(self) -> list[int]:
        """Return the process ids of the workers that have started."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self) -> None:
        """Stop the workers; the next batch starts new ones."""
        ray = import_ray()
        if self._session is not None and self._session == session(ray):
            for worker in self._workers:
                ray.kill(worker.actor)
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workers": [], "_recipe": None, "_session": None, "_failed_starts": 0}

    def _forget(self) -> None:
        self._workers: list[_Worker] = []
        self._recipe: Any = None
        self._session: tuple[int, str] | None = None
        self._failed_starts = 0

    def _connect(self) -> int:
        """Connect Ray, and return the maximum number of workers."""
        ray = import_ray()
        if not ray.is_initialized():
            start_ray(ray, None if self.workers is None else math.ceil(self.workers * self._cores()))
        if self._session != session(ray):
            self._forget()
            self._session = session(ray)
            self._recipe = ray.put(ray.cloudpickle.dumps(self.reward))
        there, need = ray.cluster_resources(), {"CPU": self._cores(), "GPU": self.num_gpus}
        fits = [there.get(kind, 0.0) / amount for kind, amount in need.items() if amount]
        if fits and min(fits) < 1:
            raise InputError(
                f"a worker needs num_cpus={need['CPU']:g} and num_gpus={need['GPU']:g}, "
                f"Ray has {there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
            )
        return self.workers or (int(min(fits)) if fits else 1)

    def _cores(self) -> float:
        return 1.0 if self.num_cpus is None else float(self.num_cpus)

    def _reserved(self) -> dict[str, float]:
        """Return Ray's options; an actor without any reserves nothing once it has started."""
        if self.num_cpus is None and not self.num_gpus:
            return {}
        return {"num_cpus": self.num_cpus or 0.0, "num_gpus": self.num_gpus}

    def _submit(self, queue: deque[_Chunk], crystals: CrystalBatch, limit: int) -> None:
        """Start the workers that are needed, and submit chunks to them."""
        ray = import_ray()
        busy = sum(worker.pid is not None and bool(worker.tasks) for worker in self._workers)
        while len(self._workers) < min(limit, len(queue) + busy):
            kind = ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **self._reserved())
            actor = kind.remote(self._recipe, self._floor)
            self._workers.append(_Worker(actor, deque([(actor.start.remote(), None)])))
        while queue:
            free = [w for w in self._workers if w.pid is not None and len(w.tasks) < self.max_in_flight]
            if not free:
                return
            worker = min(free, key=lambda w: len(w.tasks))
            if not worker.tasks:
                worker.since = time.monotonic()
            chunk = queue.popleft()
            worker.tasks.append((worker.actor.score.remote(crystals[chunk.rows]), chunk))

    def _collect(self, queue: deque[_Chunk], results: dict[int, RewardResult]) -> None:
        """Wait for a task to end, and collect its result."""
        ray = import_ray()
        running = {worker.tasks[0][0]: worker for worker in self._workers if worker.tasks}
        done, _ = ray.wait(list(running), num_returns=1, timeout=1.0 if self.timeout is None else self.timeout / 10)
        for task in done:
            worker = running[task]
            try:
                result = ray.get(task)
            except ray.exceptions.RayError as error:
                self._lose(worker, f"{type(error).__name__}: {str(error).splitlines()[0]}", queue, results)
                continue
            chunk = worker.tasks.popleft()[1]
            worker.since = time.monotonic()
            if chunk is None:
                worker.pid, self._failed_starts = result, 0
            else:
                results[int(chunk.rows[0])] = result
        now = time.monotonic()
        for worker in [w for w in running.values() if w.tasks and w.pid is not None]:
            if self.timeout is not None and now - worker.since > self.timeout:
                self._lose(worker, f"no result within {self.timeout:g} s", queue, results)
        if self._workers and not self.pids() and all(now - worker.since > _START_TIMEOUT for worker in self._workers):
            self._give_up(f"none has started within {_START_TIMEOUT:g} s", queue, results)

    def _lose(self, worker: _Worker, reason: str, queue: deque[_Chunk], results: dict[int, RewardResult]) -> None:
        """Stop a worker and queue its chunks again; the running one is split or given up after too many deaths."""
        import_ray().kill(worker.actor)
        self._workers.remove(worker)
        self.deaths += 1
        running, *others = (chunk for _, chunk in worker.tasks)
        worker.tasks.clear()
        queue.extendleft(chunk for chunk in reversed(others) if chunk is not None)
        if running is None:
            self._failed_starts += 1
            if self._failed_starts > self.restarts:
                self._give_up(reason, queue, results)
            return
        running.deaths += 1
        if running.deaths > self.restarts:
            reason = f"{running.deaths} workers died over it, the last one of: {reason}"
            results[int(running.rows[0])] = self._failed(running, reason)
        elif running.deaths >= min(_MAX_CHUNK_DEATHS, self.restarts):
            queue.extendleft(_Chunk(running.rows[[i]], running.deaths) for i in reversed(range(len(running.rows))))
        else:
            queue.appendleft(running)

    def _failed(self, chunk: _Chunk, reason: str) -> RewardResult:
        """Return the result of crystals that could not be scored."""
        size = len(chunk.rows)
        return RewardResult(np.full(size, self._floor), {}, np.full(size, reason, object))

    def _give_up(self, reason: str, queue: deque[_Chunk], results: dict[int, RewardResult]) -> None:
        """Give all waiting crystals the floor, since no worker can be started."""
        reason = f"no worker could be started: {reason}"
        waiting = [*queue, *(chunk for worker in self._workers for _, chunk in worker.tasks if chunk is not None)]
        for chunk in waiting:
            results[int(chunk.rows[0])] = self._failed(chunk, reason)
        queue.clear()
        self.close()
        with suppress(RuntimeWarning):  # where warnings are errors, nothing may be lost either
            warnings.warn(f"crystals get {self._floor}, {reason}", RuntimeWarning, stacklevel=5)


class _Actor:
    """The actor of a worker: the reward, unpickled with the first chunk, in one thread."""

    def __init__(self, recipe: bytes, floor: float) -> None:
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # for a torch that is not imported yet
        self._recipe = recipe
        self._reward: Reward | None = None
        self._scorer = Scorer(self._evaluate, floor)

    def start(self) -> int:
        """Return the process id."""
        return os.getpid()

    def score(self, crystals: CrystalBatch) -> RewardResult:
        """Score B crystals."""
        return self._scorer(crystals)

    def _evaluate(self, crystals: CrystalBatch) -> Any:
        if self._reward is None:
            self._reward = import_ray().cloudpickle.loads(self._recipe)
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
        return self._reward(crystals)
