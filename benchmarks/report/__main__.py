"""``python -m benchmarks.report FOLDER``: make the page of a folder of results again."""

from pathlib import Path

import tyro
from tyro.conf import Positional

from benchmarks.report import report
from crystal_env.errors import InputError


def main(folder: Positional[Path]) -> None:
    """Write ``report.html`` into a folder of results.

    Args:
        folder: of ``crystalgen benchmark run``, with ``results.json``.
    """
    try:
        print(report(folder))
    except InputError as error:
        raise SystemExit(f"report: {error}") from error


if __name__ == "__main__":
    tyro.cli(main)
