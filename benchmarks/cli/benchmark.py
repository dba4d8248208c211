"""The commands ``crystalgen benchmark run``, ``list``, ``data``, ``report``, ``leaderboard`` and ``migrate``."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from benchmarks.metrics.labels import label
from benchmarks.tasks import TASKS
from benchmarks.tasks.perovskites import FILE, read_table
from crystal_env.dataset import data_folder
from crystal_env.errors import InputError

_Config = TypeVar("_Config")

_COMMANDS = {
    "run": "Run an agent on a task and write its results.",
    "list": "List the tasks with their budgets and scores.",
    "data": "Check the table of perovskites and install it in the data folder.",
    "report": "Write the HTML page of a folder of results.",
    "leaderboard": "Rank the results in some folders.",
    "migrate": "Bring results of earlier versions into the current format, in place.",
}


@dataclass(frozen=True)
class DataConfig:
    """Settings of ``benchmark data``.

    Attributes:
        file: CSV file of perovskites with the columns formula and target, gzipped or not.
    """

    file: Positional[Path]


@dataclass(frozen=True)
class ReportConfig:
    """Settings of ``benchmark report``.

    Attributes:
        folder: Folder of results that ``benchmark run`` has written.
    """

    folder: Positional[Path]


@dataclass(frozen=True)
class LeaderboardConfig:
    """Settings of ``benchmark leaderboard``.

    Attributes:
        folders: Folders to search for results, recursively.
        out: Folder for README.md and leaderboard.html.
    """

    folders: Positional[tuple[Path, ...]]
    out: Path = Path("leaderboard")


@dataclass(frozen=True)
class MigrateConfig:
    """Settings of ``benchmark migrate``.

    Attributes:
        folders: Folders to search for results, recursively.
    """

    folders: Positional[tuple[Path, ...]]


def main(args: list[str]) -> None:
    """Run one of the commands.

    Raises:
        ValueError: if there is no such command, or its arguments are wrong.
    """
    command, rest = (args[0], args[1:]) if args else ("--help", [])
    if command == "run":
        _run(rest)
    elif command == "list":
        print(task_list())
    elif command == "data":
        print(f"the table is in {install(_parsed(DataConfig, command, rest).file)}")
    elif command == "report":
        from benchmarks.report import report

        print(report(_parsed(ReportConfig, command, rest).folder))
    elif command == "leaderboard":
        from benchmarks.report import leaderboard

        config = _parsed(LeaderboardConfig, command, rest)
        print(leaderboard.write(config.folders, config.out))
    elif command == "migrate":
        from benchmarks.harness.migrate import migrate

        changed = migrate(_parsed(MigrateConfig, command, rest).folders)
        print("\n".join(map(str, changed)) if changed else "all results are of the current format")
    elif command in ("--help", "-h", "help"):
        print("\n".join(["usage: crystalgen benchmark COMMAND ...", "", *_lines(_COMMANDS)]))
    else:
        raise InputError(f"there is no command {command!r}, there are {list(_COMMANDS)}")


def _run(args: list[str]) -> None:
    """Run an agent, print a summary of the results, and write their page."""
    from benchmarks.harness.runner import RunConfig, run
    from benchmarks.report import report
    from benchmarks.report.text import summary

    @dataclass(frozen=True)
    class RunCommand(RunConfig):
        """Run an agent on a task of the benchmark.

        Attributes:
            report: Write the page ``report.html`` too.
        """

        report: bool = True

    config = _parsed(RunCommand, "run", args)
    try:
        results = run(config)
    except KeyboardInterrupt:
        print("\ninterrupted: --resume resumes the run", file=sys.stderr)
        raise SystemExit(130) from None
    print(summary(results))
    if config.report:
        print(f"report: {report(config.out)}")


def task_list() -> str:
    """Return the tasks as a table."""
    lines = [f"{'task':<22}{'tier':<6}{'calls':>8}  {'crystals':>8}  score and goal"]
    for task in TASKS:
        cases = f"{len(task.cases)}×" if len(task.cases) > 1 else ""
        numbers = f"{cases + str(task.budget):>8}  {cases + str(task.size):>8}"
        lines.append(f"{task.name:<22}{task.tier:<6}{numbers}  {label(task.score)}: {task.summary}")
    return "\n".join(lines)


def install(file: Path) -> Path:
    """Check the table of perovskites, copy it into the data folder, and return its path there.

    Raises:
        ValueError: if it is another table.
    """
    import gzip

    read_table(file)
    place = data_folder() / FILE
    if place.exists() and place.samefile(file):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".gz":
        shutil.copyfile(file, place)
    else:
        place.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    return place


def _parsed(config: type[_Config], command: str, args: list[str]) -> _Config:
    return tyro.cli(config, prog=f"crystalgen benchmark {command}", args=args, config=(OmitArgPrefixes,))


def _lines(commands: dict[str, str]) -> list[str]:
    return [f"  {name:<13}{text}" for name, text in commands.items()]
