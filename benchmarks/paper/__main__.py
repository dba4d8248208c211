"""Run ``python -m benchmarks.paper NAME [--size N] [--out FOLDER] ...``: reproduce a figure or table of the paper.

It prints the paper's numbers beside ours and writes ``NAME.png``, ``NAME.svg``, ``NAME.md`` and ``NAME.json``. What
figures share is computed once; an interrupted command resumes where it stopped.
"""

import sys
import time
from collections.abc import Callable, Sequence

import tyro
from tyro.conf import OmitArgPrefixes

from benchmarks.paper import dataset, dielectrics, stability
from benchmarks.paper.outcome import Outcome, render, write
from benchmarks.paper.settings import Settings
from benchmarks.paper.work import Work
from crystal_env.errors import InputError

TARGETS: dict[str, Callable[[Work], Outcome]] = {
    "fig2": stability.fig2,
    "fig3": stability.fig3,
    "fig4": stability.fig4,
    "fig5": stability.fig5,
    "fig6": dielectrics.fig6,
    "table_s2": dielectrics.table_s2,
    "table_s3": dielectrics.table_s3,
    "fig_s1": dataset.fig_s1,
    "fig_s2": dataset.fig_s2,
    "fig_s3": dataset.fig_s3,
    "fig_s4": dielectrics.fig_s4,
}
"""Name on the command line -> what makes the figure or table."""


def main(args: Sequence[str] | None = None) -> None:
    """Make one figure or table; without a name list them."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("--help", "-h", "help"):
        print(usage())
        return
    name, rest = args[0], args[1:]
    if name not in TARGETS:
        raise SystemExit(f"benchmarks.paper: there is no {name!r}, there are {', '.join(TARGETS)}")
    prog = f"python -m benchmarks.paper {name}"
    settings = tyro.cli(Settings, prog=prog, args=rest, config=(OmitArgPrefixes,))
    started = time.perf_counter()
    try:
        work = Work(settings)
        outcome = TARGETS[name](work)
        path = write(name, outcome, settings, work.used, time.perf_counter() - started)
    except KeyboardInterrupt:
        raise SystemExit("benchmarks.paper: interrupted; the same command resumes where it stopped") from None
    except InputError as error:
        raise SystemExit(f"benchmarks.paper: {error}") from error
    print(f"\n{render(name, outcome)}\nin {path.parent}: {name}.png, .svg, .md, .json")


def usage() -> str:
    """Return the names of all figures and tables, one line each."""
    texts = {name: (make.__doc__ or "").removeprefix("Return ") for name, make in TARGETS.items()}
    lines = [
        "usage: python -m benchmarks.paper NAME [--size N] [--out FOLDER] ...",
        "",
        "NAME --help shows options.",
        "",
    ]
    return "\n".join([*lines, *(f"  {name:<10}{text[0].upper()}{text[1:]}" for name, text in texts.items())])


if __name__ == "__main__":
    main()
