"""The grammar of crystals as look-up tables: letters, multiplicities, free coordinates and operations.

Every array is indexed by the space group number ``G`` (1...230, row 0 unused) and, where it applies, by the Wyckoff
index ``W`` (0 = pad or stop, 1 = a ... 26 = z, 27 = A). Groups are in the standard setting of the International
Tables: unique axis b, origin choice 2, hexagonal axes for rhombohedral groups.
"""

from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError

TABLE_FILE = Path(__file__).parent / "data" / "wyckoff.npz"
LETTERS = "abcdefghijklmnopqrstuvwxyzA"
N_GROUPS = 230
N_LETTERS = 28  # index 0 and 27 letters
N_ELEMENTS = 118
N_SLOTS = 21
"""Site slots of a batch (the paper's n_max): at most 20 sites, and one pad for the lattice."""
MAX_SITES = N_SLOTS - 1

# Centring of the conventional cell: rows are the primitive vectors in units of the conventional ones.
_PRIMITIVE_VECTORS: dict[str, list[list[float]]] = {
    "P": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "A": [[1, 0, 0], [0, 1 / 2, 1 / 2], [0, -1 / 2, 1 / 2]],
    "C": [[1 / 2, -1 / 2, 0], [1 / 2, 1 / 2, 0], [0, 0, 1]],
    "I": [[-1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [1 / 2, 1 / 2, -1 / 2]],
    "F": [[0, 1 / 2, 1 / 2], [1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0]],
    "R": [[2 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, 1 / 3], [-1 / 3, -2 / 3, 1 / 3]],
}
_CENTRING_POINTS: dict[tuple[int, ...], str] = {
    (0, 12, 12): "A",
    (12, 12, 0): "C",
    (12, 12, 12): "I",
    (16, 8, 8): "R",
    (8, 16, 16): "R",
}


class WyckoffTables:
    """All look-up tables of the 230 space groups, derived from the 1,731 positions in ``data/wyckoff.npz``.

    Attributes:
        n_letters (231,): number of Wyckoff positions of a group.
        multiplicity (231, 28): atoms of a position in the conventional cell, 0 where the letter does not exist.
        offset (231, 28): first row of a position in ``rotation`` and ``translation``.
        rotation (14433, 3, 3), translation (14433, 3): the operations x -> R x + t of every position, grouped by
            centring vector: the first ``multiplicity / n_centring`` of a position make up the primitive cell.
        projection (231, 28, 3, 4): the first operation, which maps any point onto the letter's representative.
        free_coordinates (231, 28, 3): coordinates of the representative that are free variables.
        n_centring (231,): lattice points in the conventional cell (1, 2, 3 or 4).
        primitive_vectors (231, 3, 3): rows are the primitive lattice vectors in units of the conventional ones.
        free_lattice (231, 6): lattice parameters (a, b, c, alpha, beta, gamma) that the crystal system leaves free.
        lattice_source (231, 6): index of the parameter that each parameter equals (itself where it is free).
        lattice_angle (231, 6): value in degrees of an angle that the crystal system fixes, else 0.
    """

    def __init__(self, path: Path = TABLE_FILE) -> None:
        with np.load(path, allow_pickle=False) as file:
            letters, multiplicity = file["letters"].astype(np.int64), file["multiplicity"].astype(np.int64)
            self.rotation: NDArray[np.float64] = file["rotation"].astype(np.float64)
            translation = file["translation"]
        self.translation: NDArray[np.float64] = translation / 24
        group = np.repeat(np.arange(1, N_GROUPS + 1), letters)
        letter = np.arange(len(multiplicity)) - np.repeat(np.cumsum(letters) - letters, letters) + 1
        first = np.cumsum(multiplicity) - multiplicity

        self.n_letters = np.zeros(N_GROUPS + 1, np.int64)
        self.n_letters[1:] = letters
        self.multiplicity = np.zeros((N_GROUPS + 1, N_LETTERS), np.int64)
        self.multiplicity[group, letter] = multiplicity
        self.offset = np.zeros((N_GROUPS + 1, N_LETTERS), np.int64)
        self.offset[group, letter] = first
        self.projection = np.zeros((N_GROUPS + 1, N_LETTERS, 3, 4))
        self.projection[group, letter, :, :3] = self.rotation[first]
        self.projection[group, letter, :, 3] = self.translation[first]
        self.free_coordinates = np.zeros((N_GROUPS + 1, N_LETTERS, 3), bool)
        self.free_coordinates[group, letter] = np.diagonal(self.rotation[first], axis1=1, axis2=2) == 1
        self._set_centring(translation)
        self._set_lattice()

    def _set_centring(self, translation: NDArray[np.int8]) -> None:
        self.n_centring = np.ones(N_GROUPS + 1, np.int64)
        self.primitive_vectors = np.tile(np.eye(3), (N_GROUPS + 1, 1, 1))
        for number in range(1, N_GROUPS + 1):
            operations = self.operations(number, int(self.n_letters[number]))
            identity = (self.rotation[operations] == np.eye(3)).all((1, 2))
            points = [tuple(int(c) for c in p) for p in translation[operations][identity] % 24]
            self.n_centring[number] = len(points)
            if len(points) > 1:
                kind = "F" if len(points) == 4 else _CENTRING_POINTS[points[1]]
                self.primitive_vectors[number] = _PRIMITIVE_VECTORS[kind]

    def _set_lattice(self) -> None:
        self.free_lattice = np.zeros((N_GROUPS + 1, 6), bool)
        self.lattice_source = np.tile(np.arange(6), (N_GROUPS + 1, 1))
        self.lattice_angle = np.zeros((N_GROUPS + 1, 6))
        # last group of the system, free parameters, which length each length equals, angles (0 = free)
        systems = [
            (2, [1, 1, 1, 1, 1, 1], [0, 1, 2], [0, 0, 0]),
            (15, [1, 1, 1, 0, 1, 0], [0, 1, 2], [90, 0, 90]),
            (74, [1, 1, 1, 0, 0, 0], [0, 1, 2], [90, 90, 90]),
            (142, [1, 0, 1, 0, 0, 0], [0, 0, 2], [90, 90, 90]),
            (194, [1, 0, 1, 0, 0, 0], [0, 0, 2], [90, 90, 120]),
            (230, [1, 0, 0, 0, 0, 0], [0, 0, 0], [90, 90, 90]),
        ]
        first = 1
        for last, free, source, angles in systems:
            self.free_lattice[first : last + 1] = np.array(free, bool)
            self.lattice_source[first : last + 1, :3] = source
            self.lattice_angle[first : last + 1, 3:] = angles
            first = last + 1

    def operations(self, group: int, letter: int) -> slice:
        """Return the rows of ``rotation`` and ``translation`` that belong to one position."""
        start = int(self.offset[group, letter])
        return slice(start, start + int(self.multiplicity[group, letter]))

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """Number of free coordinates (231, 28)."""
        return self.free_coordinates.sum(-1)

    @cached_property
    def successor(self) -> NDArray[np.int64]:
        """First letter that may follow (231, 28): the letter itself if it can repeat, else the next one.

        A position without freedom holds a single atom, so it is used at most once; before the first site (letter
        index 0) it is letter a.
        """
        return np.arange(N_LETTERS) + (self.rank == 0)

    @cached_property
    def next_letter(self) -> NDArray[np.bool_]:
        """Letters that may follow a letter (231, 28, 28), index 0 meaning STOP, in the bare grammar.

        Row ``[G, 0]`` holds the first letters: no crystal is empty, so STOP is not among them.
        """
        letter = np.arange(N_LETTERS)
        allowed = (letter >= self.successor[:, :, None]) & (letter <= self.n_letters[:, None, None])
        allowed[:, 1:, 0] = True
        allowed[:, 0, 0] = False
        allowed[0] = False
        return allowed

    @cached_property
    def next_coordinate(self) -> NDArray[np.int64]:
        """First free coordinate 0...2 at or after each (231, 28, 4), 3 where none is left."""
        return _next_free(self.free_coordinates)

    @cached_property
    def next_parameter(self) -> NDArray[np.int64]:
        """First free lattice parameter 0...5 at or after each (231, 7), 6 where none is left."""
        return _next_free(self.free_lattice)

    @cached_property
    def primitive_multiplicity(self) -> NDArray[np.int64]:
        """Atoms of a position in the primitive cell (231, 28)."""
        return self.multiplicity // self.n_centring[:, None]


def _next_free(free: NDArray[np.bool_]) -> NDArray[np.int64]:
    n = free.shape[-1]
    following = np.full((*free.shape[:-1], n + 1), n)
    for index in range(n - 1, -1, -1):
        following[..., index] = np.where(free[..., index], index, following[..., index + 1])
    return following


@lru_cache(maxsize=1)
def tables() -> WyckoffTables:
    """Return the tables of all groups, read once per process in a few milliseconds."""
    return WyckoffTables()


def spelled(W: Iterable[int]) -> str:
    """Return the letters of indices 1...27, such as ``"acf"``."""
    return "".join(LETTERS[letter - 1] for letter in W)


def letter_index(letter: str) -> int:
    """Return the index 1...27 of a Wyckoff letter.

    Raises:
        ValueError: if ``letter`` is not one of a...z or A.
    """
    index = LETTERS.find(letter) + 1
    if len(letter) != 1 or not index:
        raise InputError(f"Wyckoff letter must be one of a...z or A, got {letter!r}")
    return index
