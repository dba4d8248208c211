"""The commands of this package: what draws crystals, what trains, and what converts models."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from agents.crystalformer.model import CrystalFormer
from agents.klppo.config import TrainConfig
from agents.sample import SampleConfig, sample
from agents.search.mcmc_run import MCMCRunConfig, run_mcmc
from agents.supervised.dpo import DPOConfig, dpo
from agents.supervised.finetune import FinetuneConfig, finetune
from agents.supervised.pretrain import pretrain
from agents.supervised.pretrain_config import PretrainConfig
from crystal_env.errors import InputError

_JSON = ConstructorRegistry()
"""How the command line reads what is no plain number or word: dictionaries, and space groups."""


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


def resume(run: Path, resume: bool = True) -> Path:
    """Go on with a run where it was saved last, with the settings it has.

    Args:
        run: folder of the run.
        resume: as the command says.
    """
    return run


def convert(source: str, target: Path, key_size: int = 64, coordinate_components: int = 16) -> None:
    """Convert a model, such as a checkpoint published with the paper, into a folder of this project's format.

    The folder holds config.json and model.safetensors. Reading runs no code that a file brings.

    Args:
        source: a checkpoint file of the paper's code, a folder, or the name of a shipped model.
        target: folder to write.
        key_size: width of an attention head, which the paper's files do not tell.
        coordinate_components: von Mises components of a coordinate, which they do not tell either.
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
    shares = ", ".join(f"{name} {share:.1%}" for name, share in result.acceptance.items())
    print(f"accepted: {shares}")
    print(
        f"autocorrelation time of the reward {result.autocorrelation:.1f} steps: worth {result.effective_size:.0f} "
        f"independent crystals; {result.calls} calls of the reward"
    )
    print(f"mean reward {result.trace[0, 1]:.3f} after the first step, {result.trace[-1, 1]:.3f} after the last")
    print(f"the chains' last crystals and the best ones are in {config.out}")


_OTHERS: dict[str, tuple[type[Any], Callable[[Any], object]]] = {
    "sample": (SampleConfig, _sample),
    "mcmc": (MCMCRunConfig, _mcmc),
}


def main(command: str, args: Sequence[str]) -> None:
    """Run a command; one that trains goes on with a run where the arguments say ``--resume``."""
    prog = f"crystalgen {command}"
    if command == "convert":
        tyro.cli(convert, prog=prog, args=args, config=(tyro.conf.PositionalRequiredArgs,))
        return
    kind, act = (_RUNS | _OTHERS)[command]
    if command in _RUNS and "--resume" in args:
        config = kind.of_run(tyro.cli(resume, prog=prog, args=args))
    else:
        config = tyro.cli(kind, prog=prog, args=args, config=(OmitArgPrefixes,), registry=_JSON)
    try:
        act(config)
    except KeyboardInterrupt as interrupt:
        raise SystemExit(f"crystalgen: {interrupt}" if str(interrupt) else "crystalgen: interrupted") from None
    if command in _RUNS and command != "pretrain":
        print(f"the model is in {config.run / 'model'}")
