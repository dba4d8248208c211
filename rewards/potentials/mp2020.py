"""The energy corrections of the Materials Project (2020), from raw GGA and GGA+U energies to its published scale."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations_with_replacement, product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crystal_env.elements import ATOMIC_NUMBER, SYMBOLS
from crystal_env.errors import InputError
from rewards.potentials.interface import MP2020, PBE, Energies, Forces, Potential

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

_MAX_O_O = 1.6  # Å; pymatgen calls oxygen of a peroxide what is closer than 1.05 * 1.49


@dataclass(frozen=True)
class Corrected:
    """A potential with uncorrected energies, brought to the scale of the Materials Project.

    Args:
        potential: a potential of scale ``"PBE"``. With one that has ``forces``, the result has them too.

    Raises:
        ValueError: if the potential has another scale.

    Example:
        >>> from rewards.potentials import load_potential
        >>> load_potential("orb-v2+MP2020").scale
        'MP2020'
    """

    potential: Potential
    packages: ClassVar[tuple[str, ...]] = ("pymatgen",)

    def __new__(cls, potential: Any = None) -> "Corrected":
        """Choose the class, also of a copy that is made without arguments."""
        return object.__new__(_CorrectedForces if hasattr(potential, "forces") else cls)

    def __post_init__(self) -> None:
        if self.potential.scale != PBE:
            reason = "would be corrected twice" if self.potential.scale == MP2020 else "is on another scale"
            raise InputError(
                f"only energies of scale {PBE!r} get the MP2020 corrections, potential {self.potential.name!r} has "
                f"{self.potential.scale!r}: it {reason}"
            )

    @property
    def name(self) -> str:
        """The name of the model with its corrections."""
        return f"{self.potential.name}+MP2020"

    @property
    def scale(self) -> str:
        """The name of the energy scale."""
        return MP2020

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the potential's energies with their corrections; what fails in either has a reason."""
        return Energies(*_added(self.potential.energies(atoms), atoms))


class _CorrectedForces(Corrected):
    """The same with forces and stress, which the corrections leave as they are."""

    def forces(self, atoms: "Sequence[Atoms]") -> Forces:
        """Return the potential's forces and stress, and energies with their corrections."""
        result = self.potential.forces(atoms)  # type: ignore[attr-defined]
        total, failures = _added(result, atoms)
        return result._replace(total=total, failures=failures)


def corrections(
    structures: "Sequence[Atoms | Structure]",
) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Return what `MaterialsProject2020Compatibility` adds to energies with the Materials Project's settings.

    The settings are those of `MPRelaxSet`: a Hubbard U for eight transition metals in oxides and fluorides. Distances
    decide between oxide, peroxide, superoxide and ozonide, and between sulfide and sulfate. All else depends on the
    composition, and is computed once for each (Wang et al., Sci. Rep. 11, 15496 (2021)). Among equally electronegative
    elements, such as Si and Re, pymatgen takes the one that comes last; here it is the last by symbol, as in its
    sorted structures, whatever the order of the atoms.

    Args:
        structures: B periodic structures, ASE atoms or pymatgen structures without disorder.

    Returns:
        values (B,) in eV of the given cells, NaN where there is none, and failures (B,), None or the reason.
    """
    values, failures = np.full(len(structures), np.nan), np.full(len(structures), None, object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row, structure in enumerate(structures):
            try:
                values[row] = _correction(structure)
            except Exception as error:  # noqa: BLE001  one structure that breaks pymatgen must not break the others
                failures[row] = f"no MP2020 correction: {type(error).__name__}: {error}"
    return values, failures


def may_be_sulfate(symbols: Iterable[str]) -> bool:
    """Return whether sulfur is with an element more electronegative than itself, so that it may be no sulfide."""
    return "S" in symbols and not _oxidisers().isdisjoint(symbols)


def _correction(structure: "Atoms | Structure") -> float:
    """Return the correction of one structure in eV."""
    numbers, cell, positions = _arrays(structure)
    counts = np.bincount(numbers)
    present = np.flatnonzero(counts)
    divisor = int(np.gcd.reduce(counts[present]))
    formula = tuple(sorted((SYMBOLS[z], int(counts[z]) // divisor) for z in present))
    symbols = [symbol for symbol, _ in formula]
    oxide = "oxide"
    if "O" in symbols and _has_pair(positions[numbers == ATOMIC_NUMBER["O"]], cell, _MAX_O_O):
        oxide = oxide_type(_as_structure(structure))
    sulfide = sulfide_type(_as_structure(structure)) if may_be_sulfate(symbols) else "sulfide"
    return divisor * _formula_correction(formula, oxide, sulfide)


@lru_cache(maxsize=100_000)
def _formula_correction(formula: tuple[tuple[str, int], ...], oxide: str, sulfide: str) -> float:
    """Return the correction in eV of one formula unit; it is linear in the composition."""
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    hubbards = _hubbard_values([symbol for symbol, _ in formula])
    parameters = {"run_type": "GGA+U" if hubbards else "GGA", "is_hubbard": bool(hubbards), "hubbards": hubbards}
    data = {"oxide_type": oxide, "sulfide_type": sulfide, "oxidation_states": _oxidation_states(formula)}
    entry = ComputedEntry(Composition(dict(formula)), 0.0, parameters=parameters, data=data)
    return float(scheme().process_entry(entry, on_error="raise").correction)


@cache
def scheme() -> Any:
    """Return pymatgen's corrections, without its check of pseudopotentials."""
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)


def _oxidation_states(formula: tuple[tuple[str, int], ...]) -> dict[str, float]:
    """Return the first of pymatgen's `oxi_state_guesses`, with intermediate results cached across compounds."""
    if sum(amount for _, amount in formula) > 20 or _guessed_anions().isdisjoint(symbol for symbol, _ in formula):
        return {}  # too many for pymatgen, or not looked at
    best, guess = -1.0, tuple[tuple[int, float], ...]()
    for charges in product(*(_charges(symbol, amount) for symbol, amount in formula)):
        if sum(charge for charge, _ in charges) == 0 and (score := sum(s for _, s in charges)) > best:
            best, guess = score, charges
    return {symbol: charge / amount for (symbol, amount), (charge, _) in zip(formula, guess, strict=False)}


@lru_cache(maxsize=10_000)
def _charges(symbol: str, amount: int) -> tuple[tuple[int, float], ...]:
    """Return the total charges that atoms of one element can have, each with the score of its likeliest states."""
    from pymatgen.core import Composition, Element, Species

    if Composition.oxi_prob is None:
        Composition("NaCl").oxi_state_guesses()  # reads the scores
    element, likelihood = Element(symbol), Composition.oxi_prob or {}
    scores: dict[int, float] = {}
    for states in combinations_with_replacement(
        element.icsd_oxidation_states or element.common_oxidation_states, amount
    ):
        score = sum(likelihood.get(Species(symbol, state), 0) for state in states)
        if score > scores.get(sum(states), -1):
            scores[sum(states)] = score
    return tuple(scores.items())


@cache
def _guessed_anions() -> frozenset[str]:
    """Return the elements whose correction depends on their oxidation state."""
    return frozenset(scheme().comp_correction) - {"S"}


def _hubbard_values(symbols: list[str]) -> dict[str, float]:
    """Return the U values in eV of `MPRelaxSet` for a compound, by its most electronegative element."""
    from pymatgen.io.vasp.sets import MPRelaxSet

    table = MPRelaxSet.CONFIG["INCAR"]["LDAUU"].get(sorted(symbols, key=_electronegativity)[-1], {})
    return {symbol: float(table[symbol]) for symbol in symbols if table.get(symbol)}


@cache
def _oxidisers() -> frozenset[str]:
    """Return the elements more electronegative than sulfur; next to none of them, sulfur is a sulfide for pymatgen."""
    return frozenset(symbol for symbol in SYMBOLS[1:] if _electronegativity(symbol) > _electronegativity("S"))


@cache
def _electronegativity(symbol: str) -> float:
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some noble gases have none
        return float(Element(symbol).X)


def oxide_type(structure: "Structure") -> str:
    """Return pymatgen's oxide type with the tolerance of the corrections."""
    from pymatgen.analysis import structure_analyzer

    return str(structure_analyzer.oxide_type(structure, 1.05))


def sulfide_type(structure: "Structure") -> str:
    """Return pymatgen's sulfide type, with ``"sulfate"`` for its None."""
    from pymatgen.analysis import structure_analyzer

    return structure_analyzer.sulfide_type(structure) or "sulfate"  # type: ignore[no-untyped-call]


def _arrays(structure: "Atoms | Structure") -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return atomic numbers (n,), cell (3, 3) and Cartesian coordinates (n, 3) in Å."""
    from ase import Atoms

    if isinstance(structure, Atoms):
        return structure.numbers, structure.cell.array, structure.positions
    return np.array(structure.atomic_numbers), structure.lattice.matrix, structure.cart_coords


def _as_structure(structure: "Atoms | Structure") -> "Structure":
    from pymatgen.core import Structure

    numbers, cell, positions = _arrays(structure)
    return Structure(cell, numbers.tolist(), positions, coords_are_cartesian=True)


def _has_pair(positions: NDArray[np.float64], cell: NDArray[np.float64], cutoff: float) -> bool:
    """Return whether two points, or a point and its own image, are closer than a cutoff in Å."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise ValueError("cell and positions must be finite")
    points, lattice = np.ascontiguousarray(positions, np.float64), np.ascontiguousarray(cell, np.float64)
    centers, *_ = find_points_in_spheres(points, points, r=cutoff, pbc=np.ones(3, np.int64), lattice=lattice)
    return len(centers) > len(points)


def _added(result: "Energies | Forces", atoms: "Sequence[Atoms]") -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Return energies (B,) with corrections, and failures of the potential or else of the corrections."""
    rows = np.flatnonzero(np.isfinite(result.total))
    total, failures = result.total.copy(), result.failures.copy()
    values, failures[rows] = corrections([atoms[row] for row in rows.tolist()])
    total[rows] += values
    return total, failures
