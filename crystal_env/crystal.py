"""Crystals and batches of crystals: the one data type that flows through the project."""

import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crystal_env import geometry, text
from crystal_env.checks import as_numbers, check_crystal
from crystal_env.elements import SYMBOLS, covalent_radii
from crystal_env.encoding import Decisions, decisions
from crystal_env.errors import InputError
from crystal_env.symmetry import canonical, standardise
from crystal_env.vocabulary import Vocabulary
from crystal_env.wyckoff import N_ELEMENTS, N_SLOTS, spelled, tables

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


_NAMES = ("G", "W", "A", "XYZ", "L")
_Sites = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]  # W, A, XYZ, L


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """B crystals as a struct of arrays.

    An integer index gives a `Crystal`, a slice, mask or index array a batch.

    Attributes:
        G (B,): space group numbers 1...230.
        W (B, 21): Wyckoff letters, 1 = a ... 26 = z, 27 = A, 0 = pad.
        A (B, 21): atomic numbers, 0 = pad.
        XYZ (B, 21, 3): fractional coordinates in [0, 1) of the representatives, 0 on pads.
        L (B, 6): lattice parameters a, b, c in Å and alpha, beta, gamma in degrees of the conventional cell.

    Raises:
        ValueError: if an array has the wrong shape.
    """

    G: NDArray[np.int64]
    W: NDArray[np.int64]
    A: NDArray[np.int64]
    XYZ: NDArray[np.float64]
    L: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {"G": (), "W": (N_SLOTS,), "A": (N_SLOTS,), "XYZ": (N_SLOTS, 3), "L": (6,)}
        size = len(self.G)
        for name, shape in shapes.items():
            array = np.asarray(getattr(self, name), np.float64 if name in ("XYZ", "L") else np.int64)
            if array.shape != (size, *shape):
                raise InputError(f"{name} must have shape {(size, *shape)}, got {array.shape}")
            object.__setattr__(self, name, array)

    @classmethod
    def empty(cls, size: int = 0) -> Self:
        """Return a batch of ``size`` crystals with all arrays zero."""
        shapes = ((), (N_SLOTS,), (N_SLOTS,), (N_SLOTS, 3), (6,))
        dtypes = (np.int64, np.int64, np.int64, np.float64, np.float64)
        return cls(*(np.zeros((size, *shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)))

    @classmethod
    def from_crystals(cls, crystals: "Iterable[Crystal] | CrystalBatch") -> "CrystalBatch":
        """Stack single crystals."""
        if isinstance(crystals, CrystalBatch):
            return crystals
        crystals = list(crystals)
        batch = cls.empty(len(crystals))
        for row, crystal in enumerate(crystals):
            n = len(crystal.W)
            batch.G[row], batch.L[row] = crystal.G, crystal.L
            batch.W[row, :n], batch.A[row, :n], batch.XYZ[row, :n] = crystal.W, crystal.A, crystal.XYZ
        return batch

    @classmethod
    def concatenate(cls, batches: Sequence["CrystalBatch"]) -> "CrystalBatch":
        """Join batches in order; no batches give an empty one."""
        batches = [cls.empty(), *batches]
        return cls(*(np.concatenate([getattr(b, name) for b in batches]) for name in _NAMES))

    @classmethod
    def from_structures(
        cls,
        structures: "Iterable[Structure | Atoms | str | Path]",
        symprec: float = 0.01,
        on_error: Literal["raise", "skip"] | Callable[[int, ValueError], None] = "raise",
    ) -> "CrystalBatch":
        """Convert structures to crystals, in order.

        Args:
            structures: whatever `Crystal.from_structure` takes.
            symprec: tolerance of the symmetry search in Å.
            on_error: ``"raise"`` stops at the first structure that cannot be represented, ``"skip"`` omits it and warns
                with its index and the reason, a function is called with both.
        """
        crystals = []
        for index, structure in enumerate(structures):
            try:
                crystals.append(Crystal.from_structure(structure, symprec))
            except ValueError as error:
                if on_error == "raise":
                    raise InputError(f"structure {index}: {error}") from error
                _report_skipped(index, error) if on_error == "skip" else on_error(index, error)
        return cls.from_crystals(crystals)

    def save(self, path: str | Path) -> None:
        """Save as a compressed npz file."""
        with open(path, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **dict(zip(_NAMES, self.arrays, strict=True)))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`.

        Raises:
            ValueError: if it is no such file, an array is missing or has the wrong shape.
        """
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path} is no file of crystals: it is no npz archive, or there is none")
        with np.load(path, allow_pickle=False) as file:
            missing = set(_NAMES) - set(file.files)
            if missing:
                raise InputError(f"{path} is no file of crystals: it lacks the arrays {sorted(missing)}")
            return cls(*(file[name] for name in _NAMES))

    @property
    def arrays(self) -> tuple[NDArray[np.int64], *_Sites]:
        """``G, W, A, XYZ, L``, as the functions of `crystal_env.geometry` take them."""
        return self.G, self.W, self.A, self.XYZ, self.L

    def __len__(self) -> int:
        return len(self.G)

    def __iter__(self) -> Iterator["Crystal"]:
        rows = zip(self.G.tolist(), self.n_sites().tolist(), self.W, self.A, self.XYZ, self.L, strict=True)
        return (Crystal._trusted(G, W[:n], A[:n], XYZ[:n], L) for G, n, W, A, XYZ, L in rows)

    @overload
    def __getitem__(self, index: int) -> "Crystal": ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> "CrystalBatch": ...
    def __getitem__(self, index: Any) -> "Crystal | CrystalBatch":
        if isinstance(index, int | np.integer):
            n = int(np.count_nonzero(self.W[index]))
            return Crystal._trusted(
                int(self.G[index]), self.W[index, :n], self.A[index, :n], self.XYZ[index, :n], self.L[index]
            )
        return CrystalBatch(self.G[index], self.W[index], self.A[index], self.XYZ[index], self.L[index])

    def __repr__(self) -> str:
        return f"<CrystalBatch of {len(self)} crystals>"

    def n_sites(self) -> NDArray[np.int64]:
        """Return the number of inequivalent sites (B,)."""
        return np.count_nonzero(self.W, axis=1)

    def n_atoms(self, primitive: bool = False) -> NDArray[np.int64]:
        """Return the number of atoms (B,) in the conventional or the primitive cell."""
        return geometry.multiplicities(self.G, self.W, primitive).sum(1)

    def composition(self, primitive: bool = True) -> NDArray[np.int64]:
        """Return atoms per element (B, 119) in the primitive or the conventional cell, column 0 unused."""
        counts = np.zeros((len(self), N_ELEMENTS + 1), np.int64)
        multiplicities = geometry.multiplicities(self.G, self.W, primitive)
        np.add.at(counts, (np.arange(len(self))[:, None], self.A), multiplicities)
        counts[:, 0] = 0
        return counts

    def distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows (k,) of distinct crystals, compared bit by bit, and each crystal's index (B,) in them."""
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        rows = np.concatenate([array.reshape(len(self), -1).astype(np.float64) for array in self.arrays], axis=1)
        keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first, inverse

    def volume_per_atom(self) -> NDArray[np.float64]:
        """Return the volume per atom (B,) in Å^3."""
        return geometry.volumes_per_atom(self.G, self.W, self.L)

    def min_distance(self, cutoff: float = 3.0) -> NDArray[np.float64]:
        """Return the shortest interatomic distance (B,) in Å, periodic images included, at most ``cutoff``."""
        return geometry.min_distances(*self.arrays, cutoff)

    def min_contact(self, cutoff: float = 1.0) -> NDArray[np.float64]:
        """Return the shortest interatomic distance (B,) in units of the sum of the covalent radii, at most ``cutoff``.

        Radii are those of Cordero et al., Dalton Trans. 2832 (2008).
        """
        return geometry.min_distances(*self.arrays, cutoff, covalent_radii())

    def expand(self, primitive: bool = False) -> geometry.AtomArrays:
        """Return all atoms of the conventional or the primitive cells, one crystal after the other."""
        return geometry.expand(*self.arrays, primitive)

    def to_actions(self, vocabulary: Vocabulary | None = None) -> Decisions:
        """Return the decisions that build these crystals, numbers on the nearest bins.

        Args:
            vocabulary: of the environment, by default that of ``CrystalGen-v0``.

        Raises:
            ValueError: if a length or an angle lies outside the bounds of the environment.
        """
        return decisions(*self.arrays, vocabulary or Vocabulary())

    def to_atoms(self, primitive: bool = True) -> "list[Atoms]":
        """Return ASE atoms, of the primitive cells by default, on which potentials are evaluated."""
        from ase import Atoms

        arrays = self.expand(primitive)
        ends = np.cumsum(arrays.counts)
        return [
            Atoms(numbers=arrays.numbers[start:end], scaled_positions=arrays.frac[start:end], cell=cell, pbc=True)
            for start, end, cell in zip(ends - arrays.counts, ends, arrays.lattice, strict=True)
        ]

    def to_structures(self, primitive: bool = False) -> "list[Structure]":
        """Return pymatgen structures, of the conventional cells by default."""
        from pymatgen.core import Structure

        arrays = self.expand(primitive)
        ends = np.cumsum(arrays.counts)
        return [
            Structure(cell, [SYMBOLS[z] for z in arrays.numbers[start:end]], arrays.frac[start:end])
            for start, end, cell in zip(ends - arrays.counts, ends, arrays.lattice, strict=True)
        ]


@dataclass(frozen=True, eq=False, repr=False)
class Crystal:
    """One crystal: its space group, its n inequivalent sites and the cell.

    Attributes:
        G: space group number 1...230.
        W (n,): Wyckoff letters, 1 = a ... 26 = z, 27 = A, in non-decreasing order.
        A (n,): atomic numbers.
        XYZ (n, 3): fractional coordinates of the representatives, in [0, 1) and on the letter's first operation.
        L (6,): lattice parameters a, b, c in Å and alpha, beta, gamma in degrees of the conventional cell.

    Coordinates and lattice parameters that are fixed by symmetry are set to their exact values, where those given are
    within 0.001 of them.

    Raises:
        ValueError: if the arrays do not make a crystal of the grammar; the message says why.
    """

    G: int
    W: NDArray[np.int64]
    A: NDArray[np.int64]
    XYZ: NDArray[np.float64]
    L: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("W", "A", "XYZ", "L"):
            dtype = np.float64 if name in ("XYZ", "L") else np.int64
            object.__setattr__(self, name, as_numbers(name, getattr(self, name), dtype))
        check_crystal(*self.arrays)
        T, G = tables(), int(self.G)
        object.__setattr__(self, "G", G)
        object.__setattr__(self, "XYZ", geometry.representatives(G, self.W, self.XYZ))
        object.__setattr__(self, "L", np.where(T.lattice_angle[G] > 0, T.lattice_angle[G], self.L[T.lattice_source[G]]))

    @classmethod
    def _trusted(
        cls, G: int, W: NDArray[np.int64], A: NDArray[np.int64], XYZ: NDArray[np.float64], L: NDArray[np.float64]
    ) -> "Crystal":
        """Build without the checks, from arrays that the grammar itself has produced."""
        crystal = object.__new__(cls)
        crystal.__dict__.update(G=G, W=W, A=A, XYZ=XYZ, L=L)
        return crystal

    @classmethod
    def from_string(cls, string: str) -> "Crystal":
        """Read the text form, such as ``"225-a-La-0-0-0-c-H-1/4-1/4-1/4-X-5.1-5.1-5.1-90-90-90"``.

        Raises:
            ValueError: if the text is malformed or not a crystal of the grammar.
        """
        return cls(*text.parse(string))

    @classmethod
    def from_structure(cls, structure: "Structure | Atoms | str | Path", symprec: float = 0.01) -> "Crystal":
        """Convert a structure in any cell, setting and origin, with noise up to the tolerance.

        Args:
            structure: a pymatgen structure, ASE atoms, the text of a CIF, or the path of a structure file.
            symprec: tolerance of the symmetry search in Å.

        Raises:
            ValueError: if the structure cannot be represented, because it is empty, disordered, not periodic, has
                overlapping atoms or more than 20 inequivalent sites, or cannot be read.
        """
        return cls(*standardise.standardise(*standardise.cell_arrays(structure), symprec))

    def __str__(self) -> str:
        """Return the text form of the paper, exact to the last bit: `from_string` gives an equal crystal."""
        return text.render(self.G, self.W, self.A, self.XYZ, self.L)

    def __repr__(self) -> str:
        return f"Crystal({self.formula}, G={self.G}, letters='{self.letters}')"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Crystal):
            return NotImplemented
        return self.G == other.G and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("W", "A", "XYZ", "L")
        )

    def __hash__(self) -> int:
        return hash((self.G, *(getattr(self, name).tobytes() for name in ("W", "A", "XYZ", "L"))))

    @property
    def arrays(self) -> tuple[int, *_Sites]:
        """``G, W, A, XYZ, L``."""
        return self.G, self.W, self.A, self.XYZ, self.L

    @property
    def letters(self) -> str:
        """The Wyckoff letters of the sites, such as ``"acf"``."""
        return spelled(self.W)

    @property
    def formula(self) -> str:
        """The reduced formula in pymatgen's order, such as ``"LaH10"``."""
        from pymatgen.core import Composition

        multiplicity = tables().multiplicity[self.G, self.W]
        counts: dict[str, int] = {}
        for z, m in zip(self.A, multiplicity, strict=True):
            counts[SYMBOLS[z]] = counts.get(SYMBOLS[z], 0) + int(m)
        with warnings.catch_warnings():  # pymatgen warns of elements without an electronegativity
            warnings.simplefilter("ignore", UserWarning)
            return Composition(counts).reduced_formula

    def canonical(self) -> "Crystal":
        """Return the crystal in its canonical setting (see `crystal_env.symmetry.canonical`).

        It is the same crystal, or its mirror image, with another origin, axes, letters or representatives.
        """
        return Crystal(*canonical.canonical(*self.arrays))

    def key(self) -> str:
        """Return the group and the first list of letters and elements among all equivalent settings.

        It is independent of origin, axes and representatives; coordinates and lattice do not enter. Rock salt is
        ``"225-a-Na-b-Cl"`` whichever of the two is on letter a.
        """
        return canonical.key(self)

    def to_batch(self) -> CrystalBatch:
        """Return the batch that holds this crystal alone."""
        return CrystalBatch.from_crystals([self])

    def to_actions(self, vocabulary: Vocabulary | None = None) -> NDArray[Any]:
        """Return the decisions (T,), in continuous mode (T, 2), that build this crystal.

        Args:
            vocabulary: of the environment, by default that of ``CrystalGen-v0``.

        Raises:
            ValueError: if a length or an angle lies outside the bounds of the environment.
        """
        actions, lengths = self.to_batch().to_actions(vocabulary)
        return actions[0, : lengths[0]]

    def to_structure(self, primitive: bool = False) -> "Structure":
        """Return a pymatgen structure of the conventional or the primitive cell."""
        return self.to_batch().to_structures(primitive)[0]

    def to_atoms(self, primitive: bool = True) -> "Atoms":
        """Return ASE atoms of the primitive or the conventional cell."""
        return self.to_batch().to_atoms(primitive)[0]


def _report_skipped(index: int, error: ValueError) -> None:
    warnings.warn(f"skipped structure {index}: {error}", stacklevel=3)


def as_batch(crystals: "CrystalBatch | Iterable[Crystal] | ArrayLike") -> CrystalBatch:
    """Return crystals of any accepted form as a batch."""
    return CrystalBatch.from_crystals(crystals)  # type: ignore[arg-type]
