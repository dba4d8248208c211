"""One seed of a run: an agent learns, is sampled, and is evaluated; every finished stage leaves a file."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.agent_loading import load_agent, trained_agent
from benchmarks.harness.integrity_checks import Check, integrity_checks
from benchmarks.harness.rollout import sample_agent
from benchmarks.harness.run_folder import read_json, read_rollout, write_json
from benchmarks.harness.sample_table import write_table
from benchmarks.harness.scores import OF_BEST, EvaluatedAgent
from benchmarks.harness.scoring import evaluate_agent, score_crystals, seed_numbers
from benchmarks.harness.session import Session
from benchmarks.metrics.properties import sample_energies
from benchmarks.metrics.relaxation import RelaxedSamples, relax_samples
from benchmarks.metrics.sample import SampleMetrics
from benchmarks.samples.samples import Samples
from benchmarks.tasks import Task
from benchmarks.tasks.oracle import task_reward
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import data_folder, load_crystals
from rewards import EnergyAboveHull


@dataclass(frozen=True)
class SeedRun:
    """Runs an agent on a task with one seed after the other.

    Attributes:
        task: the task, of all its cases.
        agent: what `load_agent` takes.
        kwargs: the agent's settings.
        reference: crystals that are not novel.
        relaxed: number of stable samples that are relaxed.
        cross_check: reward of the cross-check potential, or None.
        n_jobs: processes that compare structures, None for one a core.
    """

    task: Task
    agent: str
    kwargs: Mapping[str, Any]
    reference: CrystalBatch
    relaxed: int = 0
    cross_check: EnergyAboveHull | None = None
    n_jobs: int | None = None

    def __call__(self, seed: int, folder: Path) -> dict[str, Any]:
        """Return the numbers of a seed, from its folder if they are there."""
        known = read_json(folder / "seed.json")
        return known if isinstance(known, dict) else self._run(seed, folder)

    def _run(self, seed: int, folder: Path) -> dict[str, Any]:
        print(f"{self.task.name}: seed {seed}")
        seconds = {"training": 0.0, "sampling": 0.0, "evaluation": 0.0}
        cases, queried = [], []
        for number in range(len(self.task.cases)):
            case, place, label = self.task.case(number), folder, f"seed {seed}"
            if len(self.task.cases) > 1:
                place, label = folder / f"case-{number}", f"{label}, case {number + 1} of {len(self.task.cases)}"
            place.mkdir(parents=True, exist_ok=True)
            samples, trace, times = read_rollout(place) or self._train_and_sample(case, seed, place, label)
            start = time.perf_counter()
            cases.append(evaluate_agent(case, samples, trace, self.reference, self.n_jobs))
            seconds = {name: seconds[name] + times.get(name, 0.0) for name in seconds}
            queried.append(np.arange(len(trace[0])) < times["queried"])
            seconds["evaluation"] += time.perf_counter() - start
        start = time.perf_counter()
        numbers = seed_numbers(cases) | {"seed": seed}
        numbers["checks"] = [asdict(check) for check in self._checks(cases, seed, np.concatenate(queried))]
        write_table(folder / "samples.csv.gz", cases)
        seconds["evaluation"] += time.perf_counter() - start
        numbers["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
        result: dict[str, Any] = write_json(folder / "seed.json", numbers)
        return result

    def _train_and_sample(self, case: Task, seed: int, place: Path, label: str) -> Any:
        """Let an agent learn and sample it, and store its samples and its queries."""
        answers = place / "oracle.sqlite" if case.key == "canonical" else None
        own = place / "agent"
        own.mkdir(exist_ok=True)
        session = Session(case, seed, own, answers, f"{label}: oracle")
        try:
            start = time.perf_counter()
            agent = trained_agent(load_agent(self.agent, self.kwargs), session, self.kwargs)
            trained = time.perf_counter()
            samples = sample_agent(agent, case, seed, f"{label}: sampling", self.n_jobs)
            ended = time.perf_counter()
            queried = session.oracle.calls
            if not queried:  # an agent that did not learn is measured by its samples
                session.score(samples.crystals)
        finally:
            session.close()
        session.oracle.save(place / "trace.npz")
        times = {"training": trained - start, "sampling": ended - trained, "queried": queried}
        write_json(place / "times.json", times)
        samples.save(place / "crystals.npz")
        session.oracle.close()
        for path in place.glob("oracle.sqlite*"):
            path.unlink()
        return samples, (session.oracle.crystals, session.oracle.result()), times

    def _checks(self, cases: Sequence[EvaluatedAgent], seed: int, queried: NDArray[np.bool_]) -> list[Check]:
        metrics = SampleMetrics.concatenate([one.metrics for one in cases])
        success = np.concatenate([one.result.success() for one in cases])
        validation = data_folder() / "mp20_val.csv.gz"
        return integrity_checks(
            metrics,
            constraints=self.task.constraints,
            counted=metrics.valid if self.task.stability else success,
            of_best=self.task.score in OF_BEST,
            trace=CrystalBatch.concatenate([one.trace for one in cases]),
            totals=np.concatenate([one.trace_result.total for one in cases]),
            recompute=_recompute(self.task),
            cross_check=self._cross_check(),
            relaxed=self._relax(metrics, seed),
            validation=load_crystals(validation).crystals if validation.is_file() else None,
            queried=queried,
            seed=seed,
        )

    def _relax(self, metrics: SampleMetrics, seed: int) -> RelaxedSamples | None:
        if not self.task.stability or not self.relaxed:
            return None
        stable = np.flatnonzero(metrics.stable())
        rows = np.random.default_rng(seed).permutation(stable)[: self.relaxed]
        return relax_samples(metrics.samples.take(np.sort(rows)))

    def _cross_check(self) -> Callable[[Samples], Any] | None:
        energy = self.cross_check
        return None if energy is None else lambda samples: sample_energies(samples, energy)


def _recompute(task: Task) -> Callable[[CrystalBatch], Any]:
    reward = task_reward(task)
    return lambda crystals: score_crystals(reward, crystals, task.floor).total
