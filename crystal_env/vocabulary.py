"""The tokens of a crystal: what every action id means, and the grids of the numbers.

Ids are 0 STOP, 1...27 the Wyckoff letters a...z and A, 28...145 the elements, then ``bins`` numeric bins shared by
coordinates, lengths and angles (the phase tells which), then, where the agent chooses it, 230 space groups.

A number is handled as a unit value u in [0, 1]: a fractional coordinate is u modulo 1; a length is
``n_atoms**(1/3) * 0.7 Å * (40 / 0.7)**u`` with the atoms of the conventional cell; an angle is ``30° + 120° u``.
These bounds contain every crystal of MP-20. Bin b of a coordinate or an angle sits at u = b / bins, so that special
fractions, 90° and 120° are exact, and bin b of a length at u = (b + 1/2) / bins.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crystal_env.errors import InputError
from crystal_env.wyckoff import MAX_SITES, N_ELEMENTS, N_GROUPS, N_LETTERS


class Phase(IntEnum):
    """What is decided next."""

    SPACE_GROUP = 0
    LETTER = 1
    ELEMENT = 2
    X = 3
    Y = 4
    Z = 5
    A = 6
    B = 7
    C = 8
    ALPHA = 9
    BETA = 10
    GAMMA = 11
    DONE = 12


STOP = 0
FIRST_ELEMENT = N_LETTERS
"""Id of hydrogen."""
N_SYMBOLS = N_LETTERS + N_ELEMENTS
"""Ids of STOP, letters and elements: 146."""
MAX_DECISIONS = 5 * MAX_SITES + 1 + 6
"""Decisions of the longest crystal, the choice of the space group not counted: 107."""

LENGTH_BOUNDS = (0.7, 40.0)
"""Bounds of a / n_atoms^(1/3) in Å, n_atoms in the conventional cell."""
ANGLE_BOUNDS = (30.0, 150.0)
"""Bounds of the cell angles in degrees."""
MIN_ANGLE_VOLUME = 0.1
"""Least V / (a b c) of a cell whose three angles are free."""

_LOG_LENGTH = float(np.log(LENGTH_BOUNDS[0])), float(np.log(LENGTH_BOUNDS[1] / LENGTH_BOUNDS[0]))
_FIRST_LENGTH, _FIRST_ANGLE = int(Phase.A), int(Phase.ALPHA)
_ANGLE = ANGLE_BOUNDS[0], ANGLE_BOUNDS[1] - ANGLE_BOUNDS[0]


@dataclass(frozen=True)
class Vocabulary:
    """The action ids for a number of bins.

    Attributes:
        bins: numeric bins, a multiple of 24 so that every special fraction is on the grid; 0 in continuous mode,
            where numbers are no tokens.
        chooses_group: whether the agent chooses the space group, by 230 ids at the end.

    Raises:
        ValueError: if ``bins`` is not a multiple of 24.
    """

    bins: int = 960
    chooses_group: bool = False

    def __post_init__(self) -> None:
        if (
            isinstance(self.bins, bool)
            or not isinstance(self.bins, int | np.integer)
            or self.bins < 0
            or self.bins % 24
        ):
            raise InputError(f"bins must be a positive multiple of 24, got {self.bins!r}")
        object.__setattr__(self, "bins", int(self.bins))

    @property
    def first_group(self) -> int:
        """Id of space group 1, where groups have ids."""
        return N_SYMBOLS + self.bins

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.first_group + N_GROUPS * self.chooses_group

    @property
    def max_decisions(self) -> int:
        """Decisions of the longest episode."""
        return MAX_DECISIONS + self.chooses_group

    @cached_property
    def unit(self) -> NDArray[np.float64]:
        """Unit values of the ids (13, size) by phase, 0 where the id is no number."""
        unit = np.zeros((len(Phase), self.size))
        unit[Phase.X : Phase.DONE, N_SYMBOLS : self.first_group] = np.arange(self.bins) / max(self.bins, 1)
        unit[Phase.A : Phase.ALPHA, N_SYMBOLS : self.first_group] += 0.5 / max(self.bins, 1)
        return unit

    @cached_property
    def base_masks(self) -> NDArray[np.bool_]:
        """Allowed ids by phase (13, size), as far as the phase alone tells; after the end STOP, which does nothing."""
        masks = np.zeros((len(Phase), self.size), bool)
        masks[Phase.X : Phase.DONE, N_SYMBOLS : self.first_group] = True
        if not self.bins:
            masks[Phase.X : Phase.DONE, STOP] = True
        masks[Phase.DONE, STOP] = True
        return masks


def unit_to_value(u: NDArray[np.float64], phase: NDArray[np.int64], n_atoms: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return coordinates, lengths in Å and angles in degrees (n,) for unit values (n,) in numeric phases (n,)."""
    lengths = np.exp(_LOG_LENGTH[0] + _LOG_LENGTH[1] * u) * np.cbrt(n_atoms)
    angles = _ANGLE[0] + _ANGLE[1] * u
    return np.where(phase < _FIRST_LENGTH, u % 1, np.where(phase < _FIRST_ANGLE, lengths, angles))


def length_to_unit(length: ArrayLike, n_atoms: ArrayLike) -> NDArray[np.float64]:
    """Return unit values of lengths in Å; outside [0, 1] they are out of bounds."""
    return (np.log(np.asarray(length) / np.cbrt(n_atoms)) - _LOG_LENGTH[0]) / _LOG_LENGTH[1]


def angle_to_unit(angle: ArrayLike) -> NDArray[np.float64]:
    """Return unit values of angles in degrees; outside [0, 1] they are out of bounds."""
    return (np.asarray(angle) - _ANGLE[0]) / _ANGLE[1]


def gamma_bounds(alpha: NDArray[np.float64], beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bounds (n, 2) of gamma in degrees, so that a cell with alpha and beta (n,) has V / abc of at least 0.1.

    From (V / abc)^2 = sin^2(alpha) sin^2(beta) - (cos(gamma) - cos(alpha) cos(beta))^2.
    """
    alpha, beta = np.radians(alpha), np.radians(beta)
    centre = np.cos(alpha) * np.cos(beta)
    half = np.sqrt((np.sin(alpha) * np.sin(beta)) ** 2 - MIN_ANGLE_VOLUME**2)
    bounds = np.degrees(np.arccos(np.clip([centre + half, centre - half], -1, 1))).T
    return np.clip(bounds, *ANGLE_BOUNDS)
