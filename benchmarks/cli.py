"""The command ``crystalgen``."""

import sys
from collections.abc import Sequence
from typing import Any

from tyro.conf import OmitArgPrefixes
from tyro.extras import subcommand_cli_from_dict

import agents.cli
import rewards.cli
from benchmarks import demo


def hull() -> None:
    """Build, inspect and check convex hulls: see crystalgen hull --help."""


def pretrain() -> None:
    """Train a network on structures by maximum likelihood: see crystalgen pretrain --help."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; without arguments show what there is."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        if args[:1] == ["hull"]:
            rewards.cli.main(args[1:] or ["--help"])
        elif args[:1] == ["pretrain"]:
            agents.cli.main(args[1:] or ["--help"])
        else:
            commands: dict[str, Any] = {"demo": demo.main, "hull": hull, "pretrain": pretrain}
            subcommand_cli_from_dict(commands, args=args or ["--help"], prog="crystalgen", config=(OmitArgPrefixes,))
    except (ValueError, OSError) as error:
        raise SystemExit(f"crystalgen: {error}") from error


if __name__ == "__main__":
    main()
