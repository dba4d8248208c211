"""The tokens of a crystal: what every action id means.

Ids are 0 STOP, 1...27 the Wyckoff letters a...z and A, 28...145 the elements, then ``bins`` numeric bins shared by
coordinates, lengths and angles (the phase tells which), then, where the agent chooses it, 230 space groups.
`crystal_env.encoding` says which value a bin stands for.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError
from crystal_env.wyckoff import MAX_SITES, N_ELEMENTS, N_GROUPS, N_LETTERS


class Phase(IntEnum):
    """The next decision."""

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
    def normalised(self) -> NDArray[np.float64]:
        """Normalised values of the ids (13, size) by phase, 0 where the id is no number."""
        u = np.zeros((len(Phase), self.size))
        u[Phase.X : Phase.DONE, N_SYMBOLS : self.first_group] = np.arange(self.bins) / max(self.bins, 1)
        u[Phase.A : Phase.ALPHA, N_SYMBOLS : self.first_group] += 0.5 / max(self.bins, 1)
        return u

    @cached_property
    def base_masks(self) -> NDArray[np.bool_]:
        """Allowed ids by phase (13, size), constraints left aside; after the end STOP, which does nothing."""
        masks = np.zeros((len(Phase), self.size), bool)
        masks[Phase.X : Phase.DONE, N_SYMBOLS : self.first_group] = True
        if not self.bins:
            masks[Phase.X : Phase.DONE, STOP] = True
        masks[Phase.DONE, STOP] = True
        return masks
