"""One page of HTML that shows what an agent has reached: it opens from disk, without a network."""

from pathlib import Path

from benchmarks.report.folder import read
from benchmarks.report.page import page


def report(folder: Path) -> Path:
    """Write ``report.html`` into a folder of results, and return its path.

    The page holds everything it needs, plotly.js (MIT License) included. What a folder lacks, such as energies or the
    table of crystals, is left out.

    Args:
        folder: what ``crystalgen benchmark run`` has written: ``results.json`` and, for each seed K,
            ``seed-K/samples.csv.gz`` and ``seed-K/trace.npz``.

    Raises:
        ValueError: if there is no ``results.json``, or it is of another schema.
    """
    path = folder / "report.html"
    text = page(read(folder))
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
