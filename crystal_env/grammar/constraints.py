"""Constraints on the crystals of an environment, checked and brought into a normal form."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from math import gcd
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from crystal_env.elements import RADIOACTIVE, SYMBOLS, atomic_number, atomic_numbers
from crystal_env.errors import InputError
from crystal_env.wyckoff import LETTERS, MAX_SITES, N_ELEMENTS, N_GROUPS, letter_index

GROUP_COUNTS_FILE = Path(__file__).parents[1] / "data" / "mp20_groups.txt"

SpaceGroup = int | Literal["mp20", "agent"] | Sequence[int] | Sequence[float] | NDArray[Any]
Element = str | int

_DEFAULT_MAX_ATOMS_OF_FORMULA = 20
_WEIGHTS = "space_group weights must be finite numbers, not negative and not all zero"


class ConstraintOptions(TypedDict, total=False):
    """The arguments of `constraints`, the space group apart."""

    elements: Iterable[Element] | None
    required_elements: Iterable[Element]
    formula: str | Mapping[str, int] | None
    max_sites: int
    max_atoms: int | None
    site_elements: Sequence[Iterable[Element] | None]
    tied_sites: Sequence[Sequence[int]]
    wyckoff_letters: str | None
    exclude_radioactive: bool


@dataclass(frozen=True)
class Constraints:
    """Constraints of a crystal in normal form; equal constraints are equal and hash alike.

    Attributes:
        space_group: a number, a tuple of numbers, a tuple of 230 weights, ``"mp20"`` or ``"agent"``.
        elements: allowed atomic numbers.
        required_elements: atomic numbers that every crystal contains.
        formula: the reduced composition as (atomic number, count) pairs, or None.
        max_sites: maximum number of inequivalent sites.
        max_atoms: maximum number of atoms in the primitive cell, or None.
        site_elements: for each of the first sites the allowed atomic numbers, or None.
        tied_sites: groups of site indices with the same element.
        wyckoff_letters: the letter indices of all sites, or None.
    """

    space_group: int | tuple[int, ...] | tuple[float, ...] | str = "mp20"
    elements: tuple[int, ...] = tuple(range(1, N_ELEMENTS + 1))
    required_elements: tuple[int, ...] = ()
    formula: tuple[tuple[int, int], ...] | None = None
    max_sites: int = MAX_SITES
    max_atoms: int | None = None
    site_elements: tuple[tuple[int, ...] | None, ...] = ()
    tied_sites: tuple[tuple[int, ...], ...] = ()
    wyckoff_letters: tuple[int, ...] | None = None

    @property
    def chooses_group(self) -> bool:
        """Whether the agent chooses the space group."""
        return self.space_group == "agent"

    @property
    def group_is_explicit(self) -> bool:
        """Whether the groups were listed one by one, so that each of them must be possible."""
        return isinstance(self.space_group, int) or (
            isinstance(self.space_group, tuple) and len(self.space_group) != N_GROUPS
        )

    @cached_property
    def group_weights(self) -> NDArray[np.float64]:
        """Weights of the space groups (231,), impossible ones included."""
        weights = np.zeros(N_GROUPS + 1)
        if self.space_group == "agent":
            weights[1:] = 1
        elif self.space_group == "mp20":
            weights[1:] = mp20_group_counts()
        elif isinstance(self.space_group, tuple) and len(self.space_group) == N_GROUPS:
            weights[1:] = self.space_group
        else:
            weights[np.array(self.space_group, np.int64)] = 1
        return weights

    def in_words(self) -> dict[str, str]:
        """Return argument -> value of all constraints that differ from the defaults, for messages."""
        words = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default and not (field.name == "elements" and self.formula):
                words[field.name] = _in_words(field.name, value)
        return words


def constraints(
    *,
    space_group: SpaceGroup = "mp20",
    elements: Iterable[Element] | None = None,
    required_elements: Iterable[Element] = (),
    formula: str | Mapping[str, int] | None = None,
    max_sites: int = MAX_SITES,
    max_atoms: int | None = None,
    site_elements: Sequence[Iterable[Element] | None] = (),
    tied_sites: Sequence[Sequence[int]] = (),
    wyckoff_letters: str | None = None,
    exclude_radioactive: bool = False,
) -> Constraints:
    """Check constraints and return their normal form.

    Args:
        space_group: a number; a list of numbers, sampled uniformly; 230 weights; ``"mp20"``, the frequencies in the
            training set of MP-20; or ``"agent"``, chosen by the first action.
        elements: allowed symbols or atomic numbers, by default all.
        required_elements: elements that every crystal contains.
        formula: the composition up to a multiple, such as ``"SrTiO3"`` or ``{"Sr": 1, "Ti": 1, "O": 3}``. Unless
            ``max_atoms`` says otherwise, the primitive cell has up to 20 atoms, or one formula unit if that is more.
        max_sites: maximum number of inequivalent sites, 1 to 20.
        max_atoms: maximum number of atoms in the primitive cell.
        site_elements: the allowed elements of the first, second ... site, None for any; sites are in the order of
            their letters.
        tied_sites: groups of site indices (from 0) that hold the same element.
        wyckoff_letters: the letters of all sites in alphabetical order, such as ``"abc"``.
        exclude_radioactive: exclude the elements without a stable isotope.

    Raises:
        ValueError: naming an argument that is malformed or contradicts another, what it is and what is allowed.
    """
    allowed = set(range(1, N_ELEMENTS + 1)) if elements is None else set(_elements("elements", elements))
    if not isinstance(exclude_radioactive, bool | np.bool_):
        raise InputError(f"exclude_radioactive must be True or False, got {exclude_radioactive!r}")
    if exclude_radioactive:
        allowed -= RADIOACTIVE
    composition = None if formula is None else _formula(formula)
    if composition is not None:
        _require({z for z, _ in composition}, allowed, "formula")
        allowed = {z for z, _ in composition}
    if not allowed:
        raise InputError("elements leaves no element to use")
    required = _elements("required_elements", required_elements)
    _require(set(required), allowed, "required_elements")
    letters = None if wyckoff_letters is None else _letters(wyckoff_letters)
    n_sites = _integer("max_sites", max_sites, 1, MAX_SITES)
    if letters is not None and len(letters) > n_sites:
        raise InputError(f"wyckoff_letters {wyckoff_letters!r} has {len(letters)} sites, max_sites allows {n_sites}")
    if max_atoms is not None:
        max_atoms = _integer("max_atoms", max_atoms, 1, None)
    elif composition is not None:
        max_atoms = max(_DEFAULT_MAX_ATOMS_OF_FORMULA, sum(count for _, count in composition))
    return Constraints(
        space_group=_space_group(space_group),
        elements=tuple(sorted(allowed)),
        required_elements=required,
        formula=composition,
        max_sites=n_sites,
        max_atoms=max_atoms,
        site_elements=_site_elements(site_elements),
        tied_sites=_tied_sites(tied_sites),
        wyckoff_letters=letters,
    )


@lru_cache(maxsize=1)
def mp20_group_counts() -> NDArray[np.int64]:
    """Return the number of crystals of each space group (230,) in the training set of MP-20."""
    counts = np.loadtxt(GROUP_COUNTS_FILE, dtype=np.int64)
    counts.setflags(write=False)
    return counts


def _integer(name: str, value: Any, low: int, high: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low or (high and value > high):
        raise InputError(f"{name} must be an integer from {low}{f' to {high}' if high else ''}, got {value!r}")
    return int(value)


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{name} must be a list, got {value!r}")
    return list(value)


def _elements(name: str, value: Any) -> tuple[int, ...]:
    listed = _listed(name, value)
    try:
        return atomic_numbers(listed)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def _space_group(value: Any) -> int | tuple[int, ...] | tuple[float, ...] | str:
    if isinstance(value, str):
        if value not in ("mp20", "agent"):
            raise InputError(f"space_group must be a number, a list, 230 weights, 'mp20' or 'agent', got {value!r}")
        return value
    if hasattr(value, "tolist"):  # an array of any library
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return _integer("space_group", value, 1, N_GROUPS)
    entries = list(value)
    if len(entries) == N_GROUPS and not _are_all_groups(entries):
        return _weights(entries)
    groups = [_integer("space_group", entry, 1, N_GROUPS) for entry in entries]
    if not groups or len(set(groups)) < len(groups):
        raise InputError(f"space_group must list at least one group, each once, got {entries}")
    if len(groups) == N_GROUPS:
        return (1 / N_GROUPS,) * N_GROUPS
    return tuple(sorted(groups))


def _are_all_groups(entries: list[Any]) -> bool:
    return all(_is_number(entry) for entry in entries) and sorted(entries) == list(range(1, N_GROUPS + 1))


def _weights(entries: list[Any]) -> tuple[float, ...]:
    """Return 230 weights with the sum 1."""
    for group, entry in enumerate(entries, start=1):
        if not _is_number(entry) or not 0 <= entry <= sys.float_info.max:
            raise InputError(f"{_WEIGHTS}, got {entry!r} for space group {group}")
    weights = np.asarray(entries, np.float64)
    if not weights.any():
        raise InputError(f"{_WEIGHTS}, got {N_GROUPS} zeros")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not np.isfinite(total):  # each weight is finite, their sum is not
        weights = weights / weights.max()
        total = weights.sum()
    return tuple((weights / total).tolist())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _formula(formula: Any) -> tuple[tuple[int, int], ...]:
    """Return the reduced composition of a formula or a mapping of elements."""
    if not isinstance(formula, str | Mapping):
        raise InputError(f"formula must be a composition such as 'SrTiO3' or {{'Ti': 1, 'O': 2}}, got {formula!r}")
    try:
        counts = _parsed(formula) if isinstance(formula, str) else _counted(formula)
    except ValueError as error:
        raise InputError(f"formula must be a composition such as 'SrTiO3', got {formula!r}: {error}") from error
    if not counts or not all(_is_amount(amount) for amount in counts.values()):
        raise InputError(f"formula must have whole positive numbers of atoms, got {formula!r}")
    divisor = gcd(*(int(amount) for amount in counts.values()))
    return tuple(sorted((z, int(amount) // divisor) for z, amount in counts.items()))


def _is_amount(value: Any) -> bool:
    return _is_number(value) and bool(0 < value < np.inf and value % 1 == 0)


def _parsed(formula: str) -> dict[int, float]:
    from pymatgen.core import Composition

    for symbol in re.findall("[A-Z][a-z]*", formula):  # pymatgen reads D and T as hydrogen, X as a dummy
        atomic_number(symbol)
    return {element.Z: amount for element, amount in Composition(formula).items()}


def _counted(formula: Mapping[Any, Any]) -> dict[int, Any]:
    counts: dict[int, Any] = {}
    for key, amount in formula.items():
        Z = atomic_number(key if isinstance(key, str | int | np.integer) else getattr(key, "name", str(key)))
        if Z in counts:
            raise InputError(f"{SYMBOLS[Z]} is there twice")
        counts[Z] = amount
    return counts


def _require(needed: set[int], allowed: set[int], name: str) -> None:
    if missing := sorted(needed - allowed):
        raise InputError(f"{name} needs {[SYMBOLS[z] for z in missing]}, which the other constraints do not allow")


def _letters(letters: Any) -> tuple[int, ...]:
    if not isinstance(letters, str) or not 1 <= len(letters) <= MAX_SITES:
        raise InputError(f"wyckoff_letters must be a string of 1 to {MAX_SITES} letters, got {letters!r}")
    try:
        indices = tuple(letter_index(letter) for letter in letters)
    except ValueError as error:
        raise InputError(f"wyckoff_letters: {error}") from error
    if list(indices) != sorted(indices):
        raise InputError(f"wyckoff_letters must be in the order a...z, A, got {letters!r}")
    return indices


def _site_elements(lists: Any) -> tuple[tuple[int, ...] | None, ...]:
    lists = _listed("site_elements", lists)
    if len(lists) > MAX_SITES:
        raise InputError(f"site_elements must list the elements of at most {MAX_SITES} sites, got {len(lists)}")
    entries = tuple(None if e is None else _elements(f"site_elements[{i}]", e) for i, e in enumerate(lists))
    if () in entries:
        raise InputError(f"site_elements allows no element at site {entries.index(())}")
    return entries


def _tied_sites(groups: Any) -> tuple[tuple[int, ...], ...]:
    listed = [_listed(f"tied_sites[{i}]", group) for i, group in enumerate(_listed("tied_sites", groups))]
    tied = tuple(tuple(sorted(_integer("tied_sites", i, 0, MAX_SITES - 1) for i in group)) for group in listed)
    flat = [i for group in tied for i in group]
    if len(set(flat)) < len(flat) or any(len(group) < 2 for group in tied):
        raise InputError(f"tied_sites must be groups of two or more sites, each site in one group, got {groups!r}")
    return tuple(sorted(tied))


def _in_words(name: str, value: Any) -> str:
    if name in ("elements", "required_elements"):
        return str([SYMBOLS[z] for z in value])
    if name == "formula":
        return "".join(SYMBOLS[z] + (str(count) if count > 1 else "") for z, count in value)
    if name == "wyckoff_letters":
        return "".join(LETTERS[w - 1] for w in value)
    if name == "site_elements":
        return str([None if zs is None else [SYMBOLS[z] for z in zs] for zs in value])
    return "230 weights" if isinstance(value, tuple) and len(value) == N_GROUPS else str(value)
