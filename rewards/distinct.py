"""Deduplication: a reward that calls a model scores each distinct crystal of a batch once."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch, as_batch

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal


class _Rows(Protocol):
    def take(self, rows: NDArray[np.int64]) -> Self: ...


_Owner = TypeVar("_Owner")
_Result = TypeVar("_Result", bound=_Rows)


def once_per_crystal(
    score: Callable[[_Owner, CrystalBatch], _Result],
) -> "Callable[[_Owner, CrystalBatch | Iterable[Crystal]], _Result]":
    """Decorate a method that scores a batch, so that it receives each distinct crystal once.

    Crystals are the same if all their numbers are equal, see `CrystalBatch.distinct`. The results are those of the
    whole batch, in its order.

    Args:
        score: method from a batch to a result with ``take(rows)``, such as a `RewardResult`.
    """

    @wraps(score)
    def score_distinct(self: _Owner, crystals: "CrystalBatch | Iterable[Crystal]") -> _Result:
        batch = as_batch(crystals)
        first, place = batch.distinct()
        return score(self, batch[first]).take(place)

    return score_distinct
