"""The command ``crystalgen``."""

import sys
from collections.abc import Sequence

import tyro
from tyro.conf import OmitArgPrefixes

import agents.cli
import rewards.cli
import rewards.property_training.train
from benchmarks.cli import benchmark, demo
from benchmarks.evaluation import cli as evaluate_cli
from crystal_env.errors import InputError

_AGENTS = {
    "sample": "Draw crystals of a model: CIF files and a table.",
    "pretrain": "Train a network on structures by maximum likelihood.",
    "finetune": "Fine-tune a model on what succeeds among its own crystals.",
    "dpo": "Fine-tune a model on pairs of better and worse crystals.",
    "train": "Fine-tune a model by reinforcement (KLPPO).",
    "mcmc": "Sample known crystals weighted by a reward, without training.",
    "convert": "Convert a checkpoint of the paper's code into a folder of this project's format.",
}
COMMANDS = _AGENTS | {
    "evaluate": "Say what crystals of any generator are worth, side by side.",
    "benchmark": "Run an agent on a task of the benchmark, and compare.",
    "demo": "Teach the base model to draw more stable crystals, in five minutes.",
    "hull": "Build, inspect and check convex hulls.",
    "property": "Train a property model on structures and targets.",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; without arguments show what there is."""
    args = list(sys.argv[1:] if args is None else args)
    command, rest = (args[0], args[1:]) if args else ("--help", [])
    try:
        if command == "hull":
            rewards.cli.main(rest or ["--help"])
        elif command == "property":
            rewards.property_training.train.main(rest or ["train", "--help"])
        elif command == "benchmark":
            benchmark.main(rest)
        elif command == "demo":
            tyro.cli(demo.main, prog="crystalgen demo", args=rest, config=(OmitArgPrefixes,))
        elif command == "evaluate":
            config = evaluate_cli.EvaluateConfig
            evaluate_cli.main(tyro.cli(config, prog="crystalgen evaluate", args=rest, config=(OmitArgPrefixes,)))
        elif command in _AGENTS:
            agents.cli.main(command, rest or ["--help"])
        elif command in ("--help", "-h", "help"):
            print(_help())
        else:
            raise InputError(f"there is no command {command!r}\n{_help()}")
    except InputError as error:
        raise SystemExit(f"crystalgen: {error}") from error
    except OSError as error:  # about a path that the user gave, it is the user's to mend
        if not error.filename or not any(str(error.filename) in word for word in args):
            raise
        raise SystemExit(f"crystalgen: {error}") from error


def _help() -> str:
    lines = ["usage: crystalgen COMMAND ...", "", "Each command explains itself with --help.", ""]
    lines += [f"  {name:<11}{text}" for name, text in COMMANDS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
