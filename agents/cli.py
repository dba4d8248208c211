"""The commands of this package: those that sample crystals, train and convert models."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from agents.crystalformer.model import CrystalFormer
from agents.klppo.config import PRESETS, Preset, TrainConfig
from agents.sample import SampleConfig, sample
from agents.search.mcmc_run import MCMCRunConfig, run_mcmc
from agents.supervised.dpo import DPOConfig, dpo
from agents.supervised.finetune import FinetuneConfig, finetune
from agents.supervised.pretrain import pretrain
from agents.supervised.pretrain_config import PretrainConfig
from crystal_env.errors import InputError

_JSON = ConstructorRegistry()
"""How the command line reads dictionaries and space groups."""


@_JSON.primitive_rule
def _from_json(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if info.type is not Any and info.type_origin is not dict:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda words: _parsed(words[0], info.type_origin is dict),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [value if isinstance(value, str) else json.dumps(value)],
    )


def _parsed(text: str, is_dictionary: bool) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if is_dictionary and not isinstance(value, dict):
        raise InputError(f"expected a JSON dictionary such as '{{\"max_depth\": 0.2}}', got {text!r}")
    return value


@dataclass(frozen=True)
class _Resume:
    """Resume a run from its last checkpoint, with the settings it has.

    Attributes:
        run: Folder of the run.
        resume: Resume the run in the folder.
        device: Device such as "cuda" to continue on; by default that of the run.
        checkpoint_minutes: Minutes between checkpoints, by default those of the run.
    """

    run: Path
    resume: bool = True
    device: str | None = None
    checkpoint_minutes: float | None = None

    def changes(self) -> dict[str, Any]:
        """Return the settings that are not those of the run."""
        changes = {"device": self.device, "checkpoint_minutes": self.checkpoint_minutes}
        return {name: value for name, value in changes.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class _TrainCommand(TrainConfig):
    """Fine-tune a base model by reinforcement, with KLPPO.

    Attributes:
        preset: Preset that the other settings default to.
    """

    preset: Preset = "best"

    def config(self) -> TrainConfig:
        """Return the settings without the name of the preset."""
        return TrainConfig(**{f.name: getattr(self, f.name) for f in fields(TrainConfig)})


def convert(source: str, target: Path, key_size: int = 64, coordinate_components: int = 16) -> None:
    """Convert a model, such as a checkpoint published with the paper, into a folder of this project's format.

    The folder holds config.json and model.safetensors. Reading runs no code that a file brings.

    Args:
        source: Checkpoint file of the paper's code, folder, or name of a shipped model.
        target: Folder to write.
        key_size: Width of an attention head, which the paper's files do not contain.
        coordinate_components: Von Mises components of a coordinate, which the paper's files do not contain.
    """
    sizes = {"key_size": key_size, "coordinate_components": coordinate_components} if Path(source).is_file() else {}
    model = CrystalFormer.from_pretrained(source, **sizes)
    model.save_pretrained(target)
    print(f"{target}: {model.n_parameters:,} parameters, {model.config.n_layers} layers")


def _train(config: TrainConfig) -> None:
    from agents.klppo.run import train  # stable-baselines3 takes its time to import

    train(config)


def _sample(config: SampleConfig) -> None:
    sample(config)
    print(f"{config.size} crystals in {config.out}")


def _pretrain(config: PretrainConfig) -> None:
    model = pretrain(config)
    print(f"{model.n_parameters:,} parameters in {config.run / 'model'}")


_RUNS: dict[str, tuple[type[Any], Callable[[Any], object]]] = {
    "pretrain": (PretrainConfig, _pretrain),
    "finetune": (FinetuneConfig, finetune),
    "dpo": (DPOConfig, dpo),
    "train": (TrainConfig, _train),
}


def _mcmc(config: MCMCRunConfig) -> None:
    result = run_mcmc(config)
    rates = ", ".join(f"{name} {rate:.1%}" for name, rate in result.acceptance.items())
    print(f"acceptance rates: {rates}")
    print(
        f"autocorrelation time of the reward {result.autocorrelation:.1f} steps: effective sample size "
        f"{result.effective_size:.0f}; {result.calls} calls of the reward"
    )
    print(f"mean reward {result.trace[0, 1]:.3f} after the first step, {result.trace[-1, 1]:.3f} after the last")
    print(f"the chains' last crystals and the best ones are in {config.out}")


_OTHERS: dict[str, tuple[type[Any], Callable[[Any], object]]] = {
    "sample": (SampleConfig, _sample),
    "mcmc": (MCMCRunConfig, _mcmc),
}


def main(command: str, args: Sequence[str]) -> None:
    """Run a command; one that trains resumes a run where the arguments say ``--resume``."""
    prog = f"crystalgen {command}"
    if command == "convert":
        tyro.cli(convert, prog=prog, args=args, config=(tyro.conf.PositionalRequiredArgs,))
        return
    kind, act = (_RUNS | _OTHERS)[command]
    if command in _RUNS and "--resume" in args:
        resume = tyro.cli(_Resume, prog=prog, args=args)
        config = kind.of_run(resume.run, **resume.changes())
    elif command == "train":
        config = _train_config(prog, args)
    else:
        config = _config(kind, prog, args)
    try:
        act(config)
    except KeyboardInterrupt as interrupt:
        raise SystemExit(f"crystalgen: {interrupt}" if str(interrupt) else "crystalgen: interrupted") from None
    if command in _RUNS and command != "pretrain":
        print(f"the model is in {config.run / 'model'}")


def _config(kind: type[Any], prog: str, args: Sequence[str]) -> Any:
    """Read settings, and check them only then: a mistake is an `InputError`, not one of the parser's."""
    content = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__post_init__": lambda self: None}
    unchecked = type(kind.__name__, (kind,), content)
    given: Any = tyro.cli(unchecked, prog=prog, args=args, config=(OmitArgPrefixes,), registry=_JSON)
    return kind(**{field.name: getattr(given, field.name) for field in fields(kind)})


def _train_config(prog: str, args: Sequence[str]) -> TrainConfig:
    """Read the arguments of ``train``: the preset first, since the other defaults follow from it."""
    first = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=tuple(PRESETS), default="best")
    given, _ = first.parse_known_args(args)
    defaults = _TrainCommand.from_preset(given.preset, run=tyro.MISSING)
    defaults = replace(defaults, preset=given.preset)
    command = tyro.cli(_TrainCommand, prog=prog, args=args, default=defaults, config=(OmitArgPrefixes,), registry=_JSON)
    return command.config()


def _main(words: Sequence[str]) -> None:
    """Run a command of ``python -m agents.cli``, as ``torchrun`` does."""
    commands = ("convert", *_RUNS, *_OTHERS)
    if not words or words[0] not in commands:
        raise SystemExit(f"python -m agents.cli takes one of {', '.join(commands)}, got {' '.join(words[:1])!r}")
    try:
        main(words[0], words[1:])
    except InputError as error:
        raise SystemExit(f"crystalgen: {error}") from None


if __name__ == "__main__":
    _main(sys.argv[1:])
