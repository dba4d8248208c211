"""A table of an agent's samples: enough for anyone to score them again."""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.scores import EvaluatedAgent
from benchmarks.metrics.columns import COLUMNS, METRIC_COLUMNS, attempt_rows, number
from crystal_env.crystal import Crystal
from crystal_env.files import atomic_write


def write_table(path: Path, cases: Sequence[EvaluatedAgent]) -> None:
    """Write a row for each attempt, failures included, as gzipped CSV; equal input gives equal bytes.

    Columns are those of `benchmarks.metrics.columns`, ``case``, ``tokens`` (actions of ``CrystalGen-v0``),
    ``log_prob``, ``cif``, and ``total``, ``term:NAME`` and ``reward_failure`` of the task's reward.
    """
    terms = list(dict.fromkeys(f"term:{name}" for one in cases for name in one.result.terms))
    names = ["row", "case", *COLUMNS[2:], "tokens", "log_prob", "cif", "total", *terms, "reward_failure"]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*names, *METRIC_COLUMNS], restval="", lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    for case, one in enumerate(cases):
        rows = attempt_rows(one.metrics)
        for position, row in enumerate(one.samples.rows):
            rows[row] |= _reward_columns(one, position)
        table.writerows([entry | {"case": case} for entry in rows])
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as file:
        file.write(text.getvalue().encode())
    atomic_write(path, packed.getvalue())


def _reward_columns(agent: EvaluatedAgent, position: int) -> dict[str, Any]:
    sample, result = agent.samples[position], agent.result
    return {
        "tokens": _tokens(sample),
        "log_prob": number(agent.samples.log_prob[position]),
        "cif": _cif(sample),
        "total": number(result.total[position]),
        **{f"term:{name}": number(values[position]) for name, values in result.terms.items()},
        "reward_failure": result.failures[position] or "",
    }


def _tokens(sample: Any) -> str:
    try:
        return " ".join(str(action) for action in sample.to_actions()) if isinstance(sample, Crystal) else ""
    except ValueError:  # outside the bounds of the environment
        return ""


def _cif(sample: Any) -> str:
    """Return the conventional cell as CIF text without symmetry, which every program reads alike."""
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(sample.to_structure() if isinstance(sample, Crystal) else sample))
