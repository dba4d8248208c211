"""Chemical symbols by atomic number, covalent radii, and the elements without a stable isotope."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError

SYMBOLS = tuple(
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt "
    "Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc "
    "Lv Ts Og".split()
)
"""Symbols; index 0 is the pad."""

ATOMIC_NUMBER = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}

RADIOACTIVE = frozenset({43, 61, *range(84, 119)})
"""Atomic numbers without a stable isotope: Tc, Pm and everything from Po on (Bi counts as stable)."""


MIN_CONTACT = 0.65
"""Distance in units of the sum of the covalent radii below which two atoms are impossibly close: no crystal of MP-20's
validation set has a shorter one."""


@lru_cache(maxsize=1)
def covalent_radii() -> NDArray[np.float64]:
    """Return covalent radii (119,) in Å by atomic number (Cordero et al., Dalton Trans. 2832 (2008))."""
    from ase import data

    return np.asarray(data.covalent_radii, np.float64)[: len(SYMBOLS)]


def atomic_number(element: str | int | np.integer) -> int:
    """Return the atomic number of a symbol or number.

    Raises:
        ValueError: if it is neither a chemical symbol nor an integer from 1 to 118.
    """
    if isinstance(element, str) and element in ATOMIC_NUMBER:
        return ATOMIC_NUMBER[element]
    if isinstance(element, int | np.integer) and not isinstance(element, bool) and 1 <= element < len(SYMBOLS):
        return int(element)
    isotope = ": isotopes are not told apart, write 'H'" if isinstance(element, str) and element in ("D", "T") else ""
    raise InputError(f"element must be a chemical symbol or an atomic number from 1 to 118, got {element!r}{isotope}")


def atomic_numbers(elements: Iterable[str | int]) -> tuple[int, ...]:
    """Return sorted atomic numbers without repeats.

    Raises:
        ValueError: if an entry is no element, or if ``elements`` is a bare string.
    """
    if isinstance(elements, str):
        raise InputError(f"elements must be a list such as ['Sr', 'Ti', 'O'], got the string {elements!r}")
    return tuple(sorted({atomic_number(element) for element in elements}))
