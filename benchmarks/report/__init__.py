"""Reports of results: one page of HTML that opens from disk without a network, and the leaderboard."""

from pathlib import Path

from benchmarks.report.folder import read
from benchmarks.report.page import page
from crystal_env.files import atomic_write


def report(folder: Path) -> Path:
    """Write ``report.html`` into a folder of results, and return its path.

    The page holds everything it needs, plotly.js (MIT License) included. Parts that a folder lacks, such as energies or
    the table of samples, are left out.

    Args:
        folder: a folder of ``crystalgen benchmark run``: ``results.json`` and, for each seed K,
            ``seed-K/samples.csv.gz`` and ``seed-K/trace.npz``.

    Raises:
        ValueError: if there is no ``results.json``, or it is of another schema.
    """
    path = folder / "report.html"
    text = page(read(folder))
    atomic_write(path, text)
    return path
