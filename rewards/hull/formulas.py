"""Compositions as arrays of atoms per element, and their formulas."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.elements import ATOMIC_NUMBER, SYMBOLS
from crystal_env.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.composition import Composition

N_COLUMNS = len(SYMBOLS)
"""Columns of a composition array: one per atomic number, and the unused column 0."""

_TERM = re.compile(r"([A-Z][a-z]?)(\d*)")
_FORMULA = re.compile(rf"(?:{_TERM.pattern})+")


def reduced_formula(counts: NDArray[Any]) -> str:
    """Return the formula of whole numbers of atoms (119,) without a common factor, in the order of atomic numbers."""
    numbers = np.flatnonzero(counts)
    divisor = int(np.gcd.reduce(counts[numbers]))
    amounts = (counts[numbers] // divisor).tolist()
    return "".join(SYMBOLS[z] + (str(amount) if amount > 1 else "") for z, amount in zip(numbers, amounts, strict=True))


def parse_formula(formula: str) -> NDArray[np.int64]:
    """Return the atoms per element (119,) of a formula without brackets and fractions.

    Raises:
        ValueError: if it is no such formula.
    """
    counts = np.zeros(N_COLUMNS, np.int64)
    if not _FORMULA.fullmatch(formula):
        raise InputError(f"formula must be like 'SrTiO3', got {formula!r}")
    for symbol, amount in _TERM.findall(formula):
        if symbol not in ATOMIC_NUMBER:
            raise InputError(f"formula {formula!r} has an unknown element {symbol!r}")
        counts[ATOMIC_NUMBER[symbol]] += int(amount or 1)
    return counts


def as_compositions(
    compositions: "NDArray[Any] | Iterable[Composition | dict[str, float] | str]",
) -> NDArray[np.float64]:
    """Return atoms per element (B, 119) from such an array, or from pymatgen compositions, dicts or formulas.

    Raises:
        ValueError: if an array has another shape, or a composition is empty or no formula.
    """
    if not isinstance(compositions, np.ndarray):
        items = list(compositions)
        compositions = np.zeros((len(items), N_COLUMNS))
        for row, item in zip(compositions, items, strict=True):
            _count(item, row)
    if compositions.ndim != 2 or compositions.shape[1] != N_COLUMNS:
        raise InputError(f"compositions must have shape (B, {N_COLUMNS}), got {compositions.shape}")
    if len(compositions) and not (compositions.sum(1) > 0).all():
        raise InputError(f"composition {int((compositions.sum(1) > 0).argmin())} has no atoms")
    return compositions.astype(np.float64, copy=False)


def _count(composition: "Composition | dict[str, float] | str", counts: NDArray[np.float64]) -> None:
    """Add the atoms of one composition to counts (119,)."""
    if isinstance(composition, str):
        counts += parse_formula(composition)
        return
    amounts = composition if isinstance(composition, dict) else composition.get_el_amt_dict()
    for element, amount in amounts.items():
        counts[ATOMIC_NUMBER["H" if element in ("D", "T") else element]] += amount
