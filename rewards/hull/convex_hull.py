"""The convex hull of formation energies, the reference of energies above the hull."""

import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.elements import SYMBOLS
from crystal_env.errors import InputError
from rewards.hull.energies import crystal_energies
from rewards.hull.file_format import DFT, Provenance, read_hull, write_hull
from rewards.hull.formulas import N_COLUMNS, as_compositions, parse_formula, reduced_formula
from rewards.hull.lower_hull import lowest_energies
from rewards.potentials import MP2020, PBE, Potential, load_potential

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core.composition import Composition
    from pymatgen.core.structure import Structure

_PACKAGES = ("crystalgen", "chgnet", "torch", "numpy", "pymatgen")
_MAX_SUBSET_ELEMENTS = 12  # beyond, a scan of all systems is faster than one of all subsets
_CHUNK = 40_000  # phases batched in one array, few enough for the cache of a core


class ConvexHull:
    """The lower convex hull of known phases: the lowest energy of their mixtures at every composition.

    Only the lowest phase of every formula is kept. Elements without an entry are unknown: a composition with one has no
    hull energy.

    Args:
        compositions: atoms per element (N, 119) of the entries, column 0 unused.
        energies: total energies (N,) of these atoms in eV.
        provenance: provenance of the energies.

    Raises:
        ValueError: if shapes differ, an energy is not finite, or a composition is empty or not of whole numbers.

    Example:
        >>> hull = ConvexHull.from_entries([("Na", 0.0), ("Cl", 0.0), ("NaCl", -2.0)])
        >>> hull.e_above_hull(["Na3Cl", "NaCl"], [-1.6, -2.2])
        array([ 0.1, -0.1])
    """

    def __init__(
        self, compositions: NDArray[Any], energies: NDArray[Any], provenance: Provenance | None = None
    ) -> None:
        reduced, per_atom = _checked_entries(np.asarray(compositions), np.asarray(energies, np.float64))
        order = np.lexsort((per_atom, *reduced.T[::-1]))
        reduced, per_atom = reduced[order], per_atom[order]
        first = np.ones(len(order), bool)
        first[1:] = (reduced[1:] != reduced[:-1]).any(1)
        self.compositions: NDArray[np.int32] = reduced[first]
        self.energies: NDArray[np.float64] = per_atom[first]
        self.provenance = provenance or Provenance()
        self._n_atoms = self.compositions.sum(1)
        n_elements = (self.compositions > 0).sum(1)
        unary = np.flatnonzero(n_elements == 1)
        self._elemental = np.full(N_COLUMNS, np.nan)
        self._elemental[self.compositions[unary].argmax(1)] = self.energies[unary]
        self._formation = self.energies - self.compositions @ np.nan_to_num(self._elemental) / self._n_atoms
        self._rows: dict[int, list[int]] = {}
        useful = np.flatnonzero((self._formation < -1e-9) & (n_elements > 1))
        for row, system in zip(useful.tolist(), _systems(self.compositions[useful]), strict=True):
            self._rows.setdefault(system, []).append(row)

    @classmethod
    def from_entries(cls, entries: Iterable[Any], provenance: Provenance | None = None) -> "ConvexHull":
        """Build a hull from entries.

        Args:
            entries: pymatgen entries (anything with ``composition`` and ``energy``), or pairs of a composition
                (pymatgen's, dict or formula) and the total energy in eV of that many atoms.
            provenance: provenance of the energies.
        """
        pairs = [entry if isinstance(entry, tuple) else (entry.composition, entry.energy) for entry in entries]
        compositions = as_compositions([composition for composition, _ in pairs])
        return cls(compositions, np.array([energy for _, energy in pairs], np.float64), provenance)

    @classmethod
    def from_structures(
        cls,
        structures: "CrystalBatch | Iterable[Structure | Atoms | str | Path]",
        potential: "str | Potential" = "chgnet",
        *,
        reference_set: str = "",
        date: str = "",
        n_jobs: int | None = 1,
        progress: bool = False,
    ) -> "ConvexHull":
        """Build a hull from structures and a potential, so that energies and hull are on one scale.

        Args:
            structures: crystals, or an argument of `CrystalBatch.from_structures`.
            potential: name of a potential, or the potential.
            reference_set: the name of the structures, for the provenance.
            date: the date of the build, for the provenance.
            n_jobs: processes, None for one per core.
            progress: show a bar with the time left.

        A structure the potential fails on is left out with a warning.

        Raises:
            ValueError: if a structure cannot be represented.
        """
        potential = load_potential(potential)
        crystals = structures if isinstance(structures, CrystalBatch) else CrystalBatch.from_structures(structures)
        energies = crystal_energies(crystals, potential, n_jobs=n_jobs, progress=progress)
        scored = np.isfinite(energies.total)
        for row in np.flatnonzero(~scored):
            warnings.warn(f"left out crystal {row}: {energies.failures[row]}", stacklevel=2)
        provenance = Provenance(
            energy_model=potential.name,
            corrections="MP2020" if potential.name.endswith("+MP2020") else "none",
            reference_set=reference_set,
            n_structures=int(scored.sum()),
            date=date,
            versions={package: version(package) for package in _PACKAGES},
            scale=potential.scale,
        )
        return cls(crystals[scored].composition(), energies.total[scored], provenance)

    @classmethod
    def load(cls, source: str | Path) -> "ConvexHull":
        """Read a hull shipped with the package, such as ``"mp20-chgnet"``, or a file written by `save`.

        Raises:
            ValueError: if there is no such hull, or the file is not a hull file.
        """
        formulas, per_atom, provenance = read_hull(source)
        compositions = np.array([parse_formula(formula) for formula in formulas]).reshape(-1, N_COLUMNS)
        return cls(compositions, per_atom * compositions.sum(1), provenance)

    def save(self, path: str | Path) -> None:
        """Write formulas, energies per atom (to 1e-6 eV) and provenance to one npz file."""
        write_hull(path, self.formulas(), self.energies, self.provenance)

    def __len__(self) -> int:
        return len(self.energies)

    def __repr__(self) -> str:
        model = self.provenance.energy_model or "unknown energies"
        return f"<ConvexHull of {len(self)} formulas, {len(self.elements())} elements, {model}>"

    def formulas(self) -> list[str]:
        """Return the reduced formulas of the entries, elements by atomic number."""
        return [reduced_formula(row) for row in self.compositions]

    def elements(self) -> list[int]:
        """Return the atomic numbers of the elements in the hull."""
        return np.flatnonzero(np.isfinite(self._elemental)).tolist()

    def missing_elements(self, compositions: "NDArray[Any] | Sequence[Composition | str]") -> list[list[str]]:
        """Return for every composition the symbols of its elements that are not in the hull."""
        unknown = (as_compositions(compositions) > 0) & np.isnan(self._elemental)
        return [[SYMBOLS[z] for z in np.flatnonzero(row)] for row in unknown]

    def check_scale(self, potential: Potential) -> None:
        """Check that a potential's energies are comparable with the hull.

        The hull must hold the potential's own energies, or DFT energies on the potential's scale.

        Raises:
            ValueError: if the hull holds other energies.
        """
        model, scale = self.provenance.energy_model, self.provenance.scale
        if model == potential.name or (model == DFT and scale and scale == potential.scale):
            return
        advice = "use a hull of its own energies (crystalgen hull build)"
        if (model, scale, potential.scale) == (DFT, MP2020, PBE):
            advice = f"use the potential {potential.name + '+MP2020'!r}, or a hull of its own energies"
        raise InputError(
            f"energies and hull must be on one scale: the hull holds energies of {model!r} on the scale {scale!r}, the "
            f"potential {potential.name!r} has the scale {potential.scale!r}; {advice}"
        )

    def e_above_hull(
        self, compositions: "NDArray[Any] | Sequence[Composition | str]", energies: NDArray[Any] | Sequence[float]
    ) -> NDArray[np.float64]:
        """Return energies above the hull (B,) in eV/atom, negative below it, NaN where an element is unknown.

        Args:
            compositions: atoms per element (B, 119) with column 0 unused, or pymatgen compositions or formulas.
            energies: total energies (B,) of these atoms in eV.

        Raises:
            ValueError: if the arguments have different lengths.
        """
        compositions, energies = as_compositions(compositions), np.asarray(energies, np.float64)
        if energies.shape != (len(compositions),):
            raise InputError(f"energies must have shape ({len(compositions)},), got {energies.shape}")
        per_atom: NDArray[np.float64] = energies / compositions.sum(1)
        return per_atom - self.hull_energy(compositions)

    def hull_energy(self, compositions: "NDArray[Any] | Sequence[Composition | str]") -> NDArray[np.float64]:
        """Return the energy of the hull (B,) in eV/atom at compositions, NaN where an element is unknown."""
        counts = as_compositions(compositions)
        present = counts > 0
        fractions = counts / counts.sum(1, keepdims=True)
        energies: NDArray[np.float64] = fractions @ np.nan_to_num(self._elemental)
        known, n_elements = ~(present & np.isnan(self._elemental)).any(1), present.sum(1)
        energies[~known] = np.nan
        for k in np.unique(n_elements[known & (n_elements > 1)]).tolist():
            rows = np.flatnonzero(known & (n_elements == k))
            elements = np.nonzero(present[rows])[1].reshape(-1, k)
            energies[rows] += self._mixing_energy(np.take_along_axis(fractions[rows], elements, 1), elements)
        return energies

    def _mixing_energy(self, fractions: NDArray[np.float64], elements: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the hull's formation energies (Q,) in eV/atom at fractions (Q, k) of elements (Q, k)."""
        systems: dict[tuple[int, ...], list[int]] = {}
        for system in map(tuple, elements.tolist()):
            if system not in systems:
                systems[system] = self._compounds(system)
        compounds = [systems[system] for system in map(tuple, elements.tolist())]
        sizes = np.array([len(rows) for rows in compounds])
        energies, order, start = np.zeros(len(sizes)), np.argsort(sizes, kind="stable"), 0
        while start < len(order):
            area = np.arange(1, len(order) - start + 1) * (sizes[order[start:]] + 1)
            chunk = order[start : start + max(1, int(np.searchsorted(area, _CHUNK)))]
            phases = self._phases([compounds[row] for row in chunk], elements[chunk])
            energies[chunk] = lowest_energies(fractions[chunk], *phases)
            start += len(chunk)
        return energies

    def _phases(
        self, compounds: list[list[int]], elements: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return fractions (Q, k, M) and formation energies (Q, M) of lists of compounds, filled up with zeros."""
        sizes = np.array([len(rows) for rows in compounds])
        filled = np.arange(sizes.max()) < sizes[:, None]
        rows = np.zeros(filled.shape, np.int64)
        rows[filled] = [row for part in compounds for row in part]
        fractions = self.compositions[rows[:, None], elements[:, :, None]] / self._n_atoms[rows][:, None]
        return fractions * filled[:, None], self._formation[rows] * filled

    def _compounds(self, elements: tuple[int, ...]) -> list[int]:
        """Return the rows of all compounds of some of the elements that lie below the plane of the elements."""
        subsets = [0]
        if len(elements) <= _MAX_SUBSET_ELEMENTS:
            for z in elements:
                subsets += [subset | 1 << z for subset in subsets]
        else:
            system = sum(1 << z for z in elements)
            subsets = [subset for subset in self._rows if subset & ~system == 0]
        return [row for subset in subsets for row in self._rows.get(subset, ())]


def _systems(counts: NDArray[Any]) -> list[int]:
    """Return the chemical systems (B,) as bit masks over atomic numbers."""
    packed = np.packbits(counts > 0, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _checked_entries(
    compositions: NDArray[Any], energies: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return reduced compositions (N, 119) and energies per atom (N,)."""
    if compositions.ndim != 2 or compositions.shape[1] != N_COLUMNS or energies.shape != (len(compositions),):
        raise InputError(
            f"compositions must have shape (N, {N_COLUMNS}) and energies (N,), got {compositions.shape} and "
            f"{energies.shape}"
        )
    counts = np.rint(compositions).astype(np.int32)
    if np.abs(counts - compositions).max(initial=0) > 1e-6 or (counts < 0).any() or (counts.sum(1) < 1).any():
        raise InputError("compositions of hull entries must hold whole numbers of atoms and at least one")
    if not np.isfinite(energies).all():
        raise InputError(f"energies must be finite, got {energies[~np.isfinite(energies)][0]}")
    return counts // np.gcd.reduce(counts, axis=1, keepdims=True), energies / np.maximum(counts.sum(1), 1)
