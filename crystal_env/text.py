"""The text form of a crystal: ``225-a-La-0-0-0-c-H-1/4-1/4-1/4-f-H-3/8-3/8-3/8-X-5.1-5.1-5.1-90-90-90``.

A space group, then letter, element and coordinates of every site, then ``X`` and the six lattice parameters (Å,
degrees), joined by hyphens (CrystalFormer-RL, section II A).
"""

import re
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from crystal_env.elements import SYMBOLS, atomic_number
from crystal_env.errors import InputError
from crystal_env.wyckoff import LETTERS, N_GROUPS, letter_index

_Fields = tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]

_MAX_DENOMINATOR = 960
_NUMBER = re.compile(r"\d+(\.\d*)?([eE][+]?\d+)?|\.\d+|\d+/\d+", re.ASCII)


def render(G: int, W: NDArray[np.int64], A: NDArray[np.int64], XYZ: NDArray[np.float64], L: NDArray[np.float64]) -> str:
    """Return the text form; numbers are exact to the last bit."""
    sites = [(LETTERS[w - 1], SYMBOLS[a], *(number(c) for c in xyz)) for w, a, xyz in zip(W, A, XYZ, strict=True)]
    return "-".join([str(G), *(part for site in sites for part in site), "X", *(number(p) for p in L)])


def number(value: float) -> str:
    """Return a number as a short decimal, else as a fraction on the grid, else as a decimal that is exact."""
    decimal = np.format_float_positional(value, trim="-")
    if len(decimal) <= 6:
        return decimal
    fraction = Fraction(float(value)).limit_denominator(_MAX_DENOMINATOR)
    return str(fraction) if float(fraction) == value else decimal


def parse(string: str) -> _Fields:
    """Read the text form into ``G, W, A, XYZ, L``; dependent coordinates are recomputed exactly.

    Raises:
        ValueError: naming the part that is malformed.
    """
    parts = string.strip().split("-")
    if "X" not in parts or (len(parts) - 8) % 5 or len(parts) < 13 or parts[-7] != "X":
        raise InputError(f"text form must be G, letter-element-x-y-z of every site, X and six numbers, got {string!r}")
    if not (parts[0].isascii() and parts[0].isdecimal()) or not 1 <= int(parts[0]) <= N_GROUPS:
        raise InputError(f"space group must be an integer from 1 to {N_GROUPS}, got {parts[0]!r} in {string!r}")
    G = int(parts[0])
    sites = [parts[start : start + 5] for start in range(1, len(parts) - 7, 5)]
    W = np.array([letter_index(site[0]) for site in sites])
    A = np.array([atomic_number(site[1]) for site in sites])
    XYZ = np.array([[_value(c) % 1 for c in site[2:]] for site in sites])
    L = np.array([_value(p) for p in parts[-6:]])
    return G, W, A, XYZ, L


def _value(part: str) -> float:
    if not _NUMBER.fullmatch(part):
        raise InputError(f"expected a number such as 0.25, 1/4 or 5.1, got {part!r}")
    numerator, _, denominator = part.partition("/")
    if denominator and not int(denominator):
        raise InputError(f"expected a number such as 0.25, 1/4 or 5.1, got {part!r}")
    return float(Fraction(part)) if denominator else float(numerator)
