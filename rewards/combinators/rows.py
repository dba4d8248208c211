"""The result of one crystal, for rewards that put a batch together from several sources."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crystal_env.reward import RewardResult


class Row(NamedTuple):
    """What one crystal is worth: a total, its terms, and None or the reason why it could not be scored."""

    total: float
    terms: dict[str, float]
    failure: str | None = None


def rows_of(result: RewardResult) -> list[Row]:
    """Return the rows of a result, in order."""
    names, columns = list(result.terms), [values.tolist() for values in result.terms.values()]
    values = list(zip(*columns, strict=True)) if columns else [()] * len(result.total)
    return [
        Row(total, dict(zip(names, numbers, strict=True)), failure)
        for total, numbers, failure in zip(result.total.tolist(), values, result.failures.tolist(), strict=True)
    ]


def join_rows(rows: Sequence[Row], names: list[str], floor: float) -> RewardResult:
    """Join rows in order; a term that one of them lacks is the floor there, success is 0.

    Args:
        rows: B rows.
        names: names of the terms known so far, to which those of the rows are added.
        floor: what a missing term is.
    """
    names += [name for name in dict.fromkeys(name for row in rows for name in row.terms) if name not in names]
    terms = {}
    for name in names:
        fill = 0.0 if name == "success" else floor
        terms[name] = np.array([row.terms.get(name, fill) for row in rows], np.float64)
    failures = np.array([*(row.failure for row in rows), None], object)[:-1]
    return RewardResult(np.array([row.total for row in rows], np.float64), terms, failures)
