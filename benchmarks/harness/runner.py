"""The command ``crystalgen benchmark run``: an agent on a task, seed by seed, with all that others need to check it.

A folder of results holds ``results.json`` and, for each seed, what was drawn (``crystals.npz``), what the oracle was
asked for (``trace.npz``), a table of the crystals (``samples.csv.gz``) and the numbers (``seed.json``). What is done
stays done: a run that was interrupted goes on with ``--resume``, and the oracle's answers are read from disk.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

from benchmarks.harness.agent_loading import load_agent, player_of, settings_of
from benchmarks.harness.integrity_checks import Check, checks
from benchmarks.harness.provenance import SCHEMA, provenance
from benchmarks.harness.rollout import Drawn, draw
from benchmarks.harness.sample_table import write_table
from benchmarks.harness.scores import OF_BEST, Judged
from benchmarks.harness.scoring import in_chunks, judge, load_reference, numbers, together
from benchmarks.harness.session import Session
from benchmarks.metrics.intervals import aggregate
from benchmarks.metrics.relaxation import outcomes
from benchmarks.metrics.sample import STABLE, energies_above_hull
from benchmarks.tasks import Task, find_task
from benchmarks.tasks.oracle import load_trace, task_reward
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.errors import InputError
from rewards import EnergyAboveHull


@dataclass(frozen=True)
class RunConfig:
    """What `run` does.

    Attributes:
        task: name or id of the task; ``crystalgen benchmark list`` shows them.
        agent: ``module:attribute`` of a class, an object or a function, or a file of crystals.
        agent_kwargs: its settings, as JSON.
        name: what the agent is called in tables, by default the attribute's or the file's name.
        seeds: a run for each.
        out: folder of the results.
        resume: go on with a folder that has results of the same task, agent and settings.
        budget: oracle calls, instead of the task's; the result is then not comparable with the leaderboard's.
        size: crystals drawn, instead of the task's; with the same consequence.
        reference: files of crystals that are not novel, by default MP-20's in the folder $CRYSTALGEN_DATA.
        relaxed: stable crystals that are relaxed to see if they stay what they are; only where the task has energies.
        n_jobs: processes that compare structures, by default one a core.
        judge: a second potential, such as ``matgl:M3GNet-MP-2021.2.8-PES``, that is asked about stable crystals.
        judge_hull: the hull of its own energies, a file that ``crystalgen hull build`` has written.
        report: write the page ``report.html`` too.
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
    judge: str = ""
    judge_hull: Path | None = None
    report: bool = True


def run(config: RunConfig) -> dict[str, Any]:
    """Run an agent on a task and return the results, which are also written.

    Raises:
        ValueError: if the task or the agent is not known, or the folder has results of something else.
    """
    task = find_task(config.task).resized(config.budget, config.size)
    kwargs = _json_object(config.agent_kwargs)
    agent = load_agent(config.agent, kwargs)
    settings = settings_of(agent, kwargs)
    about = {"task": task.digest, "agent": config.agent, "settings": settings}
    _claim(config.out, about, config.resume)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds) or min(config.seeds) < 0:
        raise InputError(f"seeds must be different numbers of at least 0, got {config.seeds}")
    if bool(config.judge) != bool(config.judge_hull):
        raise InputError(f"judge and judge_hull belong together, got {config.judge!r} and {config.judge_hull}")
    task_reward(task)  # what is missing is said before anything is computed
    reference, files = load_reference(config.reference, needed=task.judge)
    seeds = []
    for position, seed in enumerate(config.seeds):
        folder = config.out / f"seed-{seed}"
        if not (folder / "seed.json").is_file():
            print(f"{task.name}: seed {seed}, {position + 1} of {len(config.seeds)}")
            _run_seed(task, config, kwargs, seed, folder, reference)
        seeds.append(json.loads((folder / "seed.json").read_text()))
    results = {
        "schema": SCHEMA,
        "task": {**asdict(task), "name": task.name, "digest": task.digest},
        "agent": {"name": config.name or _name(config.agent), "source": config.agent, "settings": settings},
        "score": {"name": task.score, **aggregate([entry["score"] for entry in seeds])},
        "seeds": seeds,
        "flags": sorted({check["name"] for entry in seeds for check in entry["checks"] if check["passed"] is False}),
        "provenance": provenance(
            [*files, *([config.judge_hull] if config.judge_hull else [])],
            task,
            sum(sum(entry["seconds"].values()) for entry in seeds),
            settings.get("model"),
        ),
    }
    results = _write_json(config.out / "results.json", results)
    print(summary(results))
    if config.report:
        from benchmarks.report import report

        print(f"report: {report(config.out)}")
    return results


def summary(results: dict[str, Any]) -> str:
    """Return what came out, in a few lines."""
    score = results["score"]
    low, high = score["interval"] or (None, None)
    lines = [
        f"{results['agent']['name']} on {results['task']['id']}",
        f"  {score['name']}: {score['value']:.4f}"
        + (f" [{low:.4f}, {high:.4f}]" if low is not None else "")
        + f" over {len(results['seeds'])} seed{'s' if len(results['seeds']) > 1 else ''}",
        f"  oracle calls: {', '.join(str(entry['calls']) for entry in results['seeds'])}",
        "  checks failed: " + (", ".join(results["flags"]) or "none"),
    ]
    return "\n".join(lines)


def _run_seed(
    task: Task, config: RunConfig, kwargs: dict[str, Any], seed: int, folder: Path, reference: CrystalBatch
) -> None:
    """Train, draw and judge; every stage that is done is not done again."""
    seconds = {"training": 0.0, "drawing": 0.0, "evaluation": 0.0}
    judged, asked = [], []
    for number in range(len(task.cases)):
        case, place = task.case(number), folder / f"case-{number}" if len(task.cases) > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        label = f"seed {seed}" + (f", case {number + 1} of {len(task.cases)}" if len(task.cases) > 1 else "")
        if not (place / "crystals.npz").is_file():
            _train_and_draw(case, config, kwargs, seed, place, label)
        times = json.loads((place / "times.json").read_text())
        start = time.perf_counter()
        drawn, trace = Drawn.load(place / "crystals.npz"), load_trace(place / "trace.npz")
        judged.append(judge(case, drawn, trace, reference, label, config.n_jobs))
        seconds = {name: seconds[name] + times.get(name, 0.0) for name in seconds}
        asked.append(np.arange(len(trace[0])) < times["asked"])
        seconds["evaluation"] += time.perf_counter() - start
    start = time.perf_counter()
    outcome = numbers(judged) | {"seed": seed}
    outcome["checks"] = [asdict(check) for check in _checks(judged, config, seed, np.concatenate(asked))]
    write_table(folder / "samples.csv.gz", judged)
    seconds["evaluation"] += time.perf_counter() - start
    _write_json(folder / "seed.json", {**outcome, "seconds": {k: round(v, 2) for k, v in seconds.items()}})


def _train_and_draw(case: Task, config: RunConfig, kwargs: dict[str, Any], seed: int, place: Path, label: str) -> None:
    """Let an agent learn and draw, and write down what it asked and drew."""
    answers = place / "oracle.sqlite" if case.key == "canonical" else None
    own = place / "agent"
    own.mkdir(exist_ok=True)
    session = Session(case, seed, own, answers, f"{label}: oracle")
    try:
        agent = load_agent(config.agent, kwargs)
        start = time.perf_counter()
        player = player_of(agent, session, kwargs)
        trained = time.perf_counter()
        drawn = draw(player, case, seed, f"{label}: drawing")
        ended = time.perf_counter()
        asked = session.oracle.calls
        if not asked:  # who did not learn is measured by what it draws
            session.score(drawn.crystals)
    finally:
        session.close()
    session.oracle.save(place / "trace.npz")
    _write_json(place / "times.json", {"training": trained - start, "drawing": ended - trained, "asked": asked})
    drawn.save(place / "crystals.npz")
    session.oracle.close()
    for path in place.glob("oracle.sqlite*"):
        path.unlink()


def _checks(judged: Sequence[Judged], config: RunConfig, seed: int, asked: NDArray[np.bool_]) -> list[Check]:
    """Look for what makes a score doubtful."""
    task = judged[0].task
    sample = together([one.sample for one in judged])
    relaxed, valid = None, sample.structural & sample.compositional
    if task.judge and config.relaxed:
        stable = np.flatnonzero(sample.e_above_hull <= STABLE)
        rows = np.random.default_rng(seed).permutation(stable)[: config.relaxed]
        relaxed = outcomes(sample.crystals[np.sort(rows)], name=f"seed {seed}")._asdict()
    starts = np.cumsum([0, *(len(one.drawn.requested) for one in judged)])
    validation = data_folder() / "mp20_val.csv.gz"
    return checks(
        sample,
        constraints=task.constraints,
        counts=valid if task.judge else np.concatenate([one.result.success() for one in judged]),
        of_best=task.score in OF_BEST,
        requested=np.concatenate([one.drawn.requested for one in judged]),
        obtained=np.concatenate([one.drawn.rows + start for one, start in zip(judged, starts, strict=False)]),
        trace=CrystalBatch.concatenate([one.trace for one in judged]),
        totals=np.concatenate([one.trace_result.total for one in judged]),
        recompute=_recompute(task),
        judge=_second_judge(config),
        relaxed=relaxed,
        validation=load_crystals(validation).crystals if validation.is_file() else None,
        asked=asked,
        seed=seed,
    )


def _second_judge(config: RunConfig) -> Callable[[CrystalBatch], Any] | None:
    if not config.judge:
        return None
    energy = EnergyAboveHull(config.judge, config.judge_hull or "")
    return lambda crystals: energies_above_hull(crystals, energy, config.judge)


def _recompute(task: Task) -> Callable[[CrystalBatch], Any]:
    reward = task_reward(task)
    return lambda crystals: in_chunks(reward, crystals, task.floor).total


def _claim(folder: Path, about: dict[str, Any], resume: bool) -> None:
    """Make sure that a folder is new, or of the same run if that is to go on."""
    path = folder / "run.json"
    if path.is_file():
        if (known := json.loads(path.read_text())) != about:
            changed = [name for name in about if known.get(name) != about[name]]
            raise InputError(f"out {folder} has results of another {' and '.join(changed)}: choose another folder")
        if not resume:
            raise InputError(f"out {folder} has results already: --resume goes on with them, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(path, about)


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


def _write_json(path: Path, value: Any) -> Any:
    """Write a file, which is replaced whole or not at all, and return what it says."""
    text, temporary = json.dumps(value, indent=2), path.with_name(f".{path.name}")
    temporary.write_text(text + "\n")
    temporary.replace(path)
    return json.loads(text)


def main(args: list[str]) -> None:
    """Run the command."""
    try:
        run(tyro.cli(RunConfig, prog="crystalgen benchmark run", args=args, config=(tyro.conf.OmitArgPrefixes,)))
    except KeyboardInterrupt:
        print("\ninterrupted: --resume goes on", file=sys.stderr)
        raise SystemExit(130) from None
