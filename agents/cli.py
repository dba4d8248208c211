"""The command of this package: ``pretrain``."""

from collections.abc import Sequence
from pathlib import Path

import tyro
from tyro.conf import OmitArgPrefixes

from agents.pretrain import pretrain
from agents.pretrain_config import PretrainConfig


def resume(run: Path, resume: bool = True) -> None:
    """Go on with a run where its last checkpoint is, with the settings it has.

    Args:
        run: folder of the run.
        resume: as the command says.
    """
    _train(PretrainConfig.of_run(run))


def main(args: Sequence[str]) -> None:
    """Train a network on structures, or with ``--resume`` go on with a run."""
    if "--resume" in args:
        tyro.cli(resume, prog="crystalgen pretrain", args=args)
    else:
        _train(tyro.cli(PretrainConfig, prog="crystalgen pretrain", args=args, config=(OmitArgPrefixes,)))


def _train(config: PretrainConfig) -> None:
    try:
        model = pretrain(config)
    except KeyboardInterrupt as interrupt:
        raise SystemExit(f"crystalgen: {interrupt}") from None
    print(f"{model.n_parameters:,} parameters in {config.run / 'model'}")
