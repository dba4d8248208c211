"""Overlap of a composition with a target."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.elements import atomic_numbers
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult
from rewards.hull.formulas import N_COLUMNS, parse_formula

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal

_STOICHIOMETRY = re.compile(r"([A-Z])(\d*)")


class CompositionMatch:
    """Overlap of a composition with a target, from 0 to 1; exactly one of the arguments is the target.

    Terms are ``overlap``, the total, and ``success``, 1 or 0. With x the atomic fractions of the crystal,

    - ``formula``: 1 - ½ Σ |x_i - t_i| over elements, t those of the target: the overlap of the two. Success is the
      same reduced formula.
    - ``stoichiometry``: the same for the best assignment of elements to letters. Success is the same reduced formula
      up to the names of the elements.
    - ``elements``: the number of elements in both sets over the number in either. Success is the same set.

    Args:
        formula: a composition, such as ``"SrTiO3"``.
        stoichiometry: a composition with letters for elements, such as ``"ABC3"``.
        elements: symbols or atomic numbers.

    Raises:
        ValueError: if none or several are given, or one cannot be parsed.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> CompositionMatch("NaF")([rock_salt]).total
        array([0.5])
    """

    floor: ClassVar[float] = 0.0
    """The lowest total."""

    def __init__(
        self,
        formula: str | None = None,
        *,
        stoichiometry: str | None = None,
        elements: Iterable[str | int] | None = None,
    ) -> None:
        given = {"formula": formula, "stoichiometry": stoichiometry, "elements": elements}
        kinds = [kind for kind, value in given.items() if value is not None]
        if len(kinds) != 1:
            raise InputError(f"exactly one of {list(given)} must be given, got {kinds}")
        self.kind = kinds[0]
        if elements is not None:
            self._target = np.bincount(atomic_numbers(elements), minlength=N_COLUMNS)
        elif stoichiometry is not None:
            self._target = _parse_stoichiometry(stoichiometry)
        else:
            self._target = parse_formula(str(formula))
        if not self._target.sum():
            raise InputError(f"{self.kind} must have atoms, got {given[self.kind]!r}")

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        counts, target = as_batch(crystals).composition(), self._target[None]
        if self.kind == "stoichiometry":
            counts = np.sort(counts, axis=1)[:, ::-1]
        if self.kind == "elements":
            both = ((counts > 0) & (target > 0)).sum(1)
            overlap = both / ((counts > 0) | (target > 0)).sum(1)
        else:
            fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            overlap = 1 - np.abs(fractions - target / target.sum()).sum(1) / 2
        same = counts > 0 if self.kind == "elements" else _reduced(counts)
        success = (same == _reduced(target)).all(1).astype(np.float64)
        return RewardResult(
            overlap, {"overlap": overlap.copy(), "success": success}, np.full(len(counts), None, object)
        )


def _reduced(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return atoms per element (B, 119) without common factors."""
    return counts // np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)


def _parse_stoichiometry(stoichiometry: str) -> NDArray[np.int64]:
    """Return the amounts in falling order, in the first columns (119,)."""
    terms = _STOICHIOMETRY.findall(stoichiometry)
    letters = {letter for letter, _ in terms}
    if "".join(letter + amount for letter, amount in terms) != stoichiometry or len(letters) < len(terms):
        raise InputError(f"stoichiometry must be like 'ABC3', every letter once, got {stoichiometry!r}")
    target = np.zeros(N_COLUMNS, np.int64)
    target[: len(terms)] = sorted((int(amount or 1) for _, amount in terms), reverse=True)
    return target
