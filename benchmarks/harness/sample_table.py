"""A table of the crystals that an agent has drawn: enough for anyone to score them again."""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.scores import Judged

_VERDICTS = ("structural", "compositional", "found", "novel")


def write_table(path: Path, judged: Sequence[Judged]) -> None:
    """Write a row for each attempt, those that gave nothing included, as gzipped CSV; equal input gives equal bytes.

    Columns: ``row`` of the attempt, ``case``, ``failure``, ``formula``, ``space_group``, ``requested_space_group``,
    ``crystal`` (the text that `Crystal.from_string` reads), ``tokens`` (actions of ``CrystalGen-v0``), ``log_prob``,
    ``cif``, ``total`` and ``term:NAME`` of the reward, ``e_above_hull``, verdicts, and ``label``: the row of the first
    crystal of the same structure.
    """
    terms = list(dict.fromkeys(f"term:{name}" for one in judged for name in one.result.terms))
    names = ["row", "case", "failure", "formula", "space_group", "requested_space_group", "crystal", "tokens"]
    names += ["log_prob", "cif", "total", *terms, "reward_failure", "e_above_hull", *_VERDICTS, "label"]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, names, restval="", lineterminator="\n")
    table.writeheader()
    for number, one in enumerate(judged):
        place = {int(row): i for i, row in enumerate(one.drawn.rows)}
        for row, failure in enumerate(one.drawn.failures):
            entry: dict[str, Any] = {"row": row, "case": number, "failure": failure or ""}
            entry["requested_space_group"] = int(one.drawn.requested[row]) or ""
            table.writerow(entry | (_of_crystal(one, place[row]) if row in place else {}))
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(text.getvalue().encode())
    temporary.replace(path)


def _of_crystal(judged: Judged, i: int) -> dict[str, Any]:
    """Return the columns of the i-th crystal."""
    sample, result = judged.sample, judged.result
    crystal = sample.crystals[i]
    try:
        tokens = " ".join(str(action) for action in crystal.to_actions())
    except ValueError:  # outside the bounds of the environment
        tokens = ""
    return {
        "formula": crystal.formula,
        "space_group": crystal.G,
        "crystal": str(crystal),
        "tokens": tokens,
        "log_prob": _number(judged.drawn.log_prob[i]),
        "cif": _cif(crystal),
        "total": _number(result.total[i]),
        **{f"term:{name}": _number(values[i]) for name, values in result.terms.items()},
        "reward_failure": result.failures[i] or "",
        "e_above_hull": _number(sample.e_above_hull[i]),
        **{name: int(getattr(sample, name)[i]) for name in _VERDICTS},
        "label": int(judged.drawn.rows[sample.label[i]]),
    }


def _number(value: float) -> str:
    return repr(round(float(value), 6)) if np.isfinite(value) else ""


def _cif(crystal: Any) -> str:
    """Return the conventional cell as CIF text without symmetry, which every program reads alike."""
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(crystal.to_structure()))
