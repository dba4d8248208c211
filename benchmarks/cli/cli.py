"""The command ``crystalgen``."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes

import agents.cli
import rewards.cli
import rewards.property_training.train
from benchmarks.cli import benchmark, cache, demo
from benchmarks.evaluation import cli as evaluate_cli
from crystal_env.errors import InputError

_AGENTS = {
    "sample": "Sample crystals from a model into CIF files and a table.",
    "pretrain": "Train a CrystalFormer on structures by maximum likelihood.",
    "finetune": "Fine-tune a model on its own best crystals (supervised fine-tuning).",
    "dpo": "Fine-tune a model on pairs of better and worse crystals (DPO).",
    "train": "Fine-tune a model with a reward by reinforcement learning (KLPPO).",
    "mcmc": "Sample from a model weighted by a reward, without training (MCMC).",
    "convert": "Convert a checkpoint of the paper's code into this project's format.",
}
COMMANDS = _AGENTS | {
    "evaluate": "Compare crystals of any generators: validity, uniqueness, novelty, stability.",
    "benchmark": "Run an agent on a benchmark task and rank the results.",
    "demo": "Fine-tune the shipped model towards stable, novel crystals in five minutes.",
    "hull": "Build, inspect and check convex hulls.",
    "cache": "Show or clear what was computed and kept.",
    "property": "Train a property model on structures and targets.",
}
"""Name of a command -> what it does."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; without arguments list the commands.

    What a user got wrong ends the command with one line. Any other exception is a fault of the project and keeps its
    traceback.
    """
    args = list(sys.argv[1:] if args is None else args)
    command, rest = (args[0], args[1:]) if args else ("--help", [])
    try:
        if command in ("--help", "-h", "help"):
            print(_help())
        elif command in COMMANDS:
            with _modules_of_the_working_folder():
                _runner(command)(rest)
        else:
            raise InputError(f"there is no command {command!r}\n{_help()}")
    except InputError as error:
        raise SystemExit(f"crystalgen: {error}") from error
    except OSError as error:  # a path that the user typed
        if not error.filename or not any(str(error.filename) in word for word in args):
            raise
        raise SystemExit(f"crystalgen: {error}") from error


def _runner(command: str) -> Callable[[list[str]], Any]:
    """Return the function that runs a command with the arguments after its name."""
    if command in _AGENTS:
        return lambda rest: agents.cli.main(command, rest or ["--help"])
    return {
        "cache": lambda rest: cache.main(rest or ["--help"]),
        "hull": lambda rest: rewards.cli.main(rest or ["--help"]),
        "property": lambda rest: rewards.property_training.train.main(_with_command(rest)),
        "benchmark": benchmark.main,
        "demo": lambda rest: demo.main(_parsed(demo.Args, command, rest)),
        "evaluate": lambda rest: evaluate_cli.main(_parsed(evaluate_cli.EvaluateConfig, command, rest)),
    }[command]


def _with_command(rest: list[str]) -> list[str]:
    """Return the arguments of ``crystalgen property``, whose help is that of its one command."""
    return ["train", "--help"] if not rest or rest[0] in ("--help", "-h") else rest


def _parsed(kind: type[Any], command: str, args: list[str]) -> Any:
    return tyro.cli(kind, prog=f"crystalgen {command}", args=args, config=(OmitArgPrefixes,))


@contextmanager
def _modules_of_the_working_folder() -> Iterator[None]:
    """Let ``my_module:my_reward`` name a file beside the user, as with ``python -m``."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _help() -> str:
    lines = ["usage: crystalgen COMMAND ...", "", "crystalgen COMMAND --help shows the options of a command.", ""]
    lines += [f"  {name:<11}{text}" for name, text in COMMANDS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
