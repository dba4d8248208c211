"""Validity in the sense of CDVAE (Xie et al., ICLR 2022): atoms apart, and a composition that can be neutral."""

from functools import cache, lru_cache, reduce
from operator import or_
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.elements import SYMBOLS
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult
from rewards.screen import cell_thickness

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

_OXIDATION_STATES = ("smact14", "icsd16", "icsd24")
MIN_VOLUME = 0.1  # Å^3 of the primitive cell
MIN_THICKNESS = 0.1  # Å; no cell of real atoms is this flat, and it would have thousands of periodic images


class Validity:
    """1 for a crystal that is structurally and compositionally valid, else 0: a cheap reward without any model.

    Terms are ``structural``, ``compositional`` and ``success``, 1 or 0 each.

    - structural: no two atoms are closer than ``min_distance``, and the primitive cell has 0.1 Å^3 at least. Unlike in
      CDVAE's own script, the periodic images of an atom count, so that a tiny cell with one atom is not valid.
    - compositional: SMACT's rule. An element or an alloy is valid; any other composition if there are oxidation
      states, one per element, that add up to zero with all cations less electronegative than all anions.

    Args:
        min_distance: shortest interatomic distance in Å.
        oxidation_states: SMACT's list of oxidation states, ``"smact14"``, ``"icsd16"`` or ``"icsd24"``. They differ:
            89.6, 89.0 and 88.3 % of MP-20 is valid by them. The default is the list of the published numbers.

    Raises:
        ValueError: if ``min_distance`` is not a positive number or ``oxidation_states`` is unknown.
    """

    floor: ClassVar[float] = 0.0
    """The lowest total."""

    def __init__(self, min_distance: float = 0.5, oxidation_states: str = "smact14") -> None:
        self.min_distance = finite_number("min_distance", min_distance, above=0)
        if oxidation_states not in _OXIDATION_STATES:
            raise InputError(f"oxidation_states must be one of {_OXIDATION_STATES}, got {oxidation_states!r}")
        self.oxidation_states = oxidation_states

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        structural = self._structural(crystals)
        compositional = self._compositional(crystals)
        total = (structural & compositional).astype(np.float64)
        terms = {
            "structural": structural.astype(np.float64),
            "compositional": compositional.astype(np.float64),
            "success": total.copy(),
        }
        return RewardResult(total, terms, np.full(len(crystals), None, object))

    def _structural(self, crystals: CrystalBatch) -> NDArray[np.bool_]:
        volume = crystals.volume_per_atom() * crystals.n_atoms(primitive=True)
        valid = (volume >= MIN_VOLUME) & (cell_thickness(crystals) >= MIN_THICKNESS)
        rows = np.flatnonzero(valid)
        if len(rows):
            valid[rows] = crystals[rows].min_distance(self.min_distance) >= self.min_distance
        return valid

    def _compositional(self, crystals: CrystalBatch) -> NDArray[np.bool_]:
        counts = crystals.composition()
        counts //= np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
        valid = np.zeros(len(counts), bool)
        for row, amounts in enumerate(counts):
            numbers = amounts.nonzero()[0]
            composition = tuple(zip(numbers.tolist(), amounts[numbers].tolist(), strict=True))
            valid[row] = composition_is_valid(composition, self.oxidation_states)
        return valid


@lru_cache(maxsize=1 << 16)
def composition_is_valid(composition: tuple[tuple[int, int], ...], oxidation_states: str = "smact14") -> bool:
    """Return whether a composition is valid by SMACT, in milliseconds for any number of elements.

    SMACT's own ``smact_validity(..., use_pauling_test=True, include_alloys=True)`` enumerates all combinations of
    oxidation states, which takes minutes for ten elements. The same result follows from the electronegativities: all
    elements up to a boundary are cations, those beyond it anions, and the total charges that either can have are
    compared, for every boundary.

    Args:
        composition: pairs of atomic number and amount, without a common factor.
        oxidation_states: name of SMACT's list of oxidation states.
    """
    if len(composition) == 1 or all(_is_metal(z) for z, _ in composition):
        return bool(composition)
    ions = []
    for z, amount in composition:
        electronegativity, states = _element_data(z, oxidation_states)
        if electronegativity is None or not states:
            return False
        ions.append((electronegativity, [state * amount for state in states]))
    return any(_can_be_neutral(ions, boundary) for boundary, _ in ions)


def _can_be_neutral(ions: list[tuple[float, list[int]]], boundary: float) -> bool:
    """Return whether charges can add up to zero with cations up to an electronegativity and anions beyond it."""
    positive = _sums(
        [q for q in charges if q >= 0] for electronegativity, charges in ions if electronegativity <= boundary
    )
    negative = _sums(
        [-q for q in charges if q <= 0] for electronegativity, charges in ions if electronegativity > boundary
    )
    return positive & negative != 0


def _sums(choices: "Iterable[list[int]]") -> int:
    """Return all sums of one number from every list, none of them negative, as the set bits of an integer."""
    bits = 1
    for numbers in choices:
        bits = reduce(or_, (bits << number for number in numbers), 0)
    return bits


@cache
def _element_data(z: int, oxidation_states: str) -> tuple[float | None, list[int] | None]:
    """Return electronegativity and oxidation states of an element, None where SMACT has none."""
    from smact import Element

    try:
        element = Element(SYMBOLS[z])
    except KeyError:  # SMACT ends at Lr
        return None, None
    return element.pauling_eneg, getattr(element, f"oxidation_states_{oxidation_states}")


@cache
def _is_metal(z: int) -> bool:
    from smact import metals

    return SYMBOLS[z] in metals
