"""Results by crystal, the form in which caches keep them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from crystal_env.reward import RewardResult


class Row(NamedTuple):
    """The result of one crystal: its total, its terms, and None or the reason why it could not be scored."""

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


def join_rows(rows: Sequence[Row], floor: float, names: Iterable[str] = ()) -> RewardResult:
    """Join rows in order, by the rules of `RewardResult.concatenate`.

    Args:
        rows: B rows.
        floor: value of a term where a row lacks it; success is 0 there.
        names: terms that the result has in any case, before all others.
    """
    return RewardResult.concatenate([_result(row) for row in rows], floor, names)


def _result(row: Row) -> RewardResult:
    terms = {name: np.array([value], np.float64) for name, value in row.terms.items()}
    return RewardResult(np.array([row.total], np.float64), terms, np.array([row.failure], object))
