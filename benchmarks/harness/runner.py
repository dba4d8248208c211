"""A run of the benchmark: an agent on a task, seed by seed, with everything that others need to check it.

A folder of results holds ``results.json`` and, for each seed, the samples (``crystals.npz``), the queries of the oracle
(``trace.npz``), a table of the samples (``samples.csv.gz``) and the numbers (``seed.json``). Finished stages stay done:
``--resume`` resumes an interrupted run, and the oracle's answers are read from disk.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from benchmarks.harness.agent_loading import load_agent, settings_of
from benchmarks.harness.provenance import SCHEMA, dependencies, provenance
from benchmarks.harness.run_folder import claimed, write_json
from benchmarks.harness.seed_run import SeedRun
from benchmarks.metrics.intervals import over_seeds
from benchmarks.metrics.reference import NoveltyReference, load_reference
from benchmarks.provenance import file_digest
from benchmarks.tasks import Task, find_task
from benchmarks.tasks.oracle import task_reward
from crystal_env.errors import InputError
from rewards import EnergyAboveHull


@dataclass(frozen=True)
class RunConfig:
    """Run an agent on a task of the benchmark.

    Attributes:
        task: Name or id of the task; ``crystalgen benchmark list`` shows them.
        agent: ``module:attribute`` of a class, an object or a function, or a file of crystals.
        agent_kwargs: Settings of the agent, as JSON.
        name: Name of the agent in tables, by default the attribute's or the file's.
        seeds: One run for each.
        out: Folder of the results.
        resume: Resume a run of the same task, agent and settings in the folder.
        budget: Oracle calls, instead of the task's; the result is then not comparable with the leaderboard's.
        size: Number of samples, instead of the task's; with the same consequence.
        reference: Files of crystals that are not novel, by default MP-20's in the folder $CRYSTALGEN_DATA.
        relaxed: Number of stable samples that are relaxed; only where the task has energies.
        n_jobs: Processes that compare structures, by default one a core.
        cross_check: Cross-check potential, such as ``matgl:M3GNet-MP-2021.2.8-PES``, for the stable samples.
        cross_check_hull: Hull of its own energies, a file that ``crystalgen hull build`` has written.
    """

    task: Positional[str]
    agent: str
    out: Path
    agent_kwargs: Annotated[str, tyro.conf.arg(metavar="JSON")] = "{}"
    name: str | None = None
    seeds: tuple[int, ...] = (0,)
    resume: bool = False
    budget: int | None = None
    size: int | None = None
    reference: tuple[Path, ...] = ()
    relaxed: int = 32
    n_jobs: int | None = None
    cross_check: str = ""
    cross_check_hull: Path | None = None


def run(config: RunConfig) -> dict[str, Any]:
    """Run an agent on a task and return the results, which are also written.

    Everything is checked before the folder is touched.

    Raises:
        ValueError: if the task or the agent is not known, or the folder has results of something else.
    """
    task = find_task(config.task).resized(config.budget, config.size)
    kwargs = _json_object(config.agent_kwargs)
    _check(config)
    settings = settings_of(load_agent(config.agent, kwargs), kwargs)
    task_reward(task)
    cross_check = _cross_check(config)
    reference = load_reference(config.reference, required=task.stability)
    digests = reference.files | dependencies(task, settings.get("model"), _files(config))
    seed_run = SeedRun(task, config.agent, kwargs, reference.crystals, config.relaxed, cross_check, config.n_jobs)
    with claimed(config.out, _identity(task, config, settings, reference, digests), config.resume):
        seeds = [seed_run(seed, config.out / f"seed-{seed}") for seed in config.seeds]
        seconds = sum(sum(entry["seconds"].values()) for entry in seeds)
        results = {
            "schema": SCHEMA,
            "task": {**asdict(task), "name": task.name, "digest": task.digest},
            "agent": {"name": config.name or _name(config.agent), "source": config.agent, "settings": settings},
            "score": {"name": task.score, **over_seeds([entry["score"] for entry in seeds])},
            "reference": reference.facts(),
            "seeds": seeds,
            "flags": failed_checks(seeds),
            "provenance": provenance(digests, seconds),
        }
        written: dict[str, Any] = write_json(config.out / "results.json", results)
    return written


def failed_checks(seeds: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the checks that failed with any seed, sorted."""
    return sorted({check["name"] for entry in seeds for check in entry["checks"] if check["passed"] is False})


def _check(config: RunConfig) -> None:
    if not config.seeds or len(set(config.seeds)) < len(config.seeds) or min(config.seeds) < 0:
        raise InputError(f"seeds must be different numbers of at least 0, got {config.seeds}")
    if config.relaxed < 0:
        raise InputError(f"relaxed must not be negative, got {config.relaxed}")
    if bool(config.cross_check) != bool(config.cross_check_hull):
        given = f"{config.cross_check!r} and {config.cross_check_hull}"
        raise InputError(f"cross_check and cross_check_hull belong together, got {given}")


def _cross_check(config: RunConfig) -> EnergyAboveHull | None:
    if config.cross_check_hull is None:
        return None
    return EnergyAboveHull(config.cross_check, config.cross_check_hull)


def _files(config: RunConfig) -> list[Path]:
    """Return the files and folders that the command names, but for the reference: all that numbers depend on."""
    paths = (Path(config.agent), _weights(config.cross_check), config.cross_check_hull)
    return [path for path in paths if path is not None and path.exists()]


def _weights(potential: str) -> Path | None:
    """Return the file or folder that the name of a potential contains, None if there is none."""
    path = potential.partition(":")[2].partition("+")[0]
    return Path(path) if path and Path(path).exists() else None


def _identity(
    task: Task, config: RunConfig, settings: dict[str, Any], reference: NoveltyReference, digests: dict[str, str]
) -> dict[str, Any]:
    """Return everything that changes a number of the run: files by their content, not by their place."""
    potential, agent = config.cross_check, config.agent
    if (path := _weights(potential)) is not None:
        potential = potential.replace(str(path), file_digest(path))
    return {
        "task": task.digest,
        "agent": file_digest(Path(agent)) if Path(agent).exists() else agent,
        "settings": settings,
        "reference": list(reference.files.values()),
        "cross_check": potential,
        "relaxed": config.relaxed if task.stability else 0,
        "files": sorted(set(digests.values()) - set(reference.files.values())),
    }


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f'agent_kwargs must be JSON such as {{"tau": 0.1}}, got {text!r}: {error}') from error
    if not isinstance(value, dict):
        raise InputError(f"agent_kwargs must be a JSON object, got {text!r}")
    return value


def _name(source: str) -> str:
    return Path(source).stem if Path(source).exists() else source.partition(":")[2]
