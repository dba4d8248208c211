"""Contract tests for energy models: `check_potential`."""

import copy
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import Crystal
from rewards.potentials import Energies, ForceField, Forces, Potential
from rewards.testing.global_state import unchanged_state

if TYPE_CHECKING:
    from ase import Atoms

_STRINGS = (
    "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.5-5.5-5.5-90-90-90",
    "221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.95-3.95-3.95-90-90-90",
    "186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.37-X-3.25-3.25-5.3-90-90-120",
    "229-a-Fe-0-0-0-X-2.8-2.8-2.8-90-90-90",
)
_SUPERCELL = (2, 1, 2)
_MIN_LARGE = 1500  # atoms
_STEP = 0.01  # Å: numerical derivatives are good to 1e-3 eV/Å in single precision
_STRAIN = 2e-3


def check_potential(
    potential: Potential,
    crystals: Sequence[Crystal] | None = None,
    *,
    tolerance: float = 1e-4,
    large: bool = True,
    conservative: bool = True,
    derivative_tolerance: float = 0.02,
) -> None:
    """Make sure that an energy model keeps the contract of `Potential`, and of `ForceField` if it has ``forces``.

    Promises, by the names that messages begin with: ``pickling``, ``deep copy``, ``global state``, ``never raises``,
    ``form`` (a number or a reason for every structure), ``inputs``, ``empty batch``, ``repeat``, ``order``, ``batch
    equals singles``, ``isolation`` (unphysical structures change nothing for others); the same energy per atom for
    ``conventional cell``, ``supercell``, ``atom order``, ``origin shift`` and ``large cell`` (which may fail with a
    reason instead); ``forces``, minus the derivative of the energy by the positions, and ``stress``, its derivative by
    the strain over the volume.

    Args:
        potential: the model.
        crystals: crystals of elements that it knows, by default of Na, Cl, Sr, Ti, O, Zn and Fe.
        tolerance: largest difference of two energies in eV/atom that should be equal.
        large: whether to test a cell of 1,500 atoms, which may take a model 20 seconds and some gigabytes.
        conservative: False for a model whose forces are not derivatives of its energy by design.
        derivative_tolerance: largest error of a force in eV/Å and of stress times volume in eV, relative above 1.

    Raises:
        AssertionError: if a promise is broken.
    """
    crystals = [Crystal.from_string(string) for string in _STRINGS] if crystals is None else list(crystals)
    atoms = [crystal.to_atoms() for crystal in crystals]
    assert isinstance(potential, Potential), "form: it has no name, no scale or no energies"
    with unchanged_state("the first call", warm=False):
        expected = _per_atom(potential, atoms)
    assert np.isfinite(expected).all(), f"form: the crystals to test with must have energies, got {expected}"
    with unchanged_state("a call"):
        again = _per_atom(potential, atoms)
    cases = {"repeat": again, "order": np.roll(_per_atom(potential, [*atoms[1:], *atoms[:1]]), 1)}
    cases["batch equals singles"] = np.concatenate([_per_atom(potential, [a]) for a in atoms])
    cases["isolation"] = _per_atom(potential, [*nonsense(), *atoms])[-len(atoms) :]
    cases["pickling"] = _per_atom(_copied(potential, "pickling"), atoms)
    cases["deep copy"] = _per_atom(_copied(potential, "deep copy"), atoms)
    for promise, settings in _resettings(crystals).items():
        cases[promise] = _per_atom(potential, settings)
    for promise, found in cases.items():
        apart = ~(np.abs(found - expected) <= tolerance)
        assert not apart.any(), f"{promise}: {found[apart][0]} instead of {expected[apart][0]} eV/atom"
    assert len(_per_atom(potential, [])) == 0, "empty batch: it has an energy"
    if large:
        found = _per_atom(potential, [_large(atoms[0])])
        apart = np.abs(found - expected[:1]) > tolerance
        assert not apart.any(), f"large cell: {found[0]} instead of {expected[0]} eV/atom"
    if isinstance(potential, ForceField):
        _check_forces(potential, [_distorted(a) for a in atoms], tolerance, conservative, derivative_tolerance)


def nonsense() -> "list[Atoms]":
    """Return structures that a model may refuse, and that must not change its other results.

    Two atoms at one place, an atom alone in 40 Å, noble gases, an unknown element, a cell of 1.2 Å, positions that are
    not numbers, a cell without volume.
    """
    from ase import Atoms

    def cell(symbols: str, a: float, positions: Sequence[Sequence[float]] = ((0.0, 0.0, 0.0),)) -> Atoms:
        return Atoms(symbols, scaled_positions=positions, cell=[a, a, a], pbc=True)

    apart = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    flat = Atoms("Fe", positions=[[0, 0, 0]], cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True)
    lost = Atoms("Fe", positions=[[np.nan, 0, 0]], cell=[3, 3, 3], pbc=True)
    return [
        cell("Fe2", 3.0, ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))),
        cell("Fe", 40.0),
        cell("HeXe", 4.5, apart),
        cell("OgTs", 5.0, apart),
        cell("Fe", 1.2),
        lost,
        flat,
    ]


def _resettings(crystals: Sequence[Crystal]) -> "dict[str, list[Atoms]]":
    rng, atoms = np.random.default_rng(0), [crystal.to_atoms() for crystal in crystals]
    shifted = [a.copy() for a in atoms]
    for a in shifted:
        a.translate(rng.uniform(-3, 3, 3))
        a.wrap()
    repeated = [a.repeat(_SUPERCELL) for a in atoms]
    return {
        "conventional cell": [crystal.to_atoms(primitive=False) for crystal in crystals],
        "supercell": repeated,
        "atom order": [a[rng.permutation(len(a))] for a in repeated],
        "origin shift": shifted,
    }


def _large(atoms: "Atoms") -> "Atoms":
    """Return a supercell of 1,500 atoms at least, its shortest axis repeated first."""
    while len(atoms) < _MIN_LARGE:
        repeats = [1, 1, 1]
        repeats[int(atoms.cell.lengths().argmin())] = 2
        atoms = atoms.repeat(repeats)
    return atoms


def _per_atom(potential: Potential, atoms: "list[Atoms]") -> NDArray[np.float64]:
    """Return energies (B,) in eV/atom, NaN where there is a reason, after a check of their form."""
    given = [a.copy() for a in atoms]
    try:
        result = Energies(*potential.energies(given))
    except Exception as error:
        raise AssertionError(f"never raises: {type(error).__name__}: {error}") from error
    _check_form(result.total, result.failures, given, atoms)
    return result.total / np.array([len(a) for a in atoms])


def _check_form(
    total: NDArray[np.float64], failures: NDArray[np.object_], given: "list[Atoms]", atoms: "list[Atoms]"
) -> None:
    shapes = np.shape(total), np.shape(failures)
    assert shapes == ((len(atoms),),) * 2, f"form: total and failures have shapes {shapes} for {len(atoms)} structures"
    for row, (energy, failure) in enumerate(zip(total, failures, strict=True)):
        assert np.isfinite(energy) == (failure is None), f"form: structure {row} has energy {energy} and {failure!r}"
    for row, (one, other) in enumerate(zip(given, atoms, strict=True)):
        kept = set(one.arrays) == set(other.arrays) and np.array_equal(one.cell.array, other.cell.array)
        kept &= one.calc is None and all(
            np.array_equal(one.arrays[k], v, equal_nan=True) for k, v in other.arrays.items()
        )
        assert kept, f"inputs: the potential changed structure {row}"


def _copied(potential: Potential, promise: str) -> Potential:
    try:
        made = copy.deepcopy(potential) if promise == "deep copy" else pickle.loads(pickle.dumps(potential))
    except Exception as error:
        raise AssertionError(f"{promise}: {type(error).__name__}: {error}") from error
    return made


def _distorted(atoms: "Atoms") -> "Atoms":
    """Return a structure with atoms moved by 0.05 Å and a cell strained by a per cent."""
    rng, atoms = np.random.default_rng(len(atoms)), atoms.copy()
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.01, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.05, (len(atoms), 3))
    return atoms


def _check_forces(
    potential: ForceField, atoms: "list[Atoms]", tolerance: float, conservative: bool, derivative_tolerance: float
) -> None:
    """Make sure that forces and stress have the right form and, where they should, are derivatives."""
    bad = nonsense()
    mixed = _forces(potential, [*bad, *atoms])
    sizes = [len(a) for a in (*bad, *atoms)]
    shapes = [np.shape(force) for force in mixed.forces]
    assert shapes == [(n, 3) for n in sizes], f"form: forces have shapes {shapes} for {sizes} atoms"
    assert np.shape(mixed.stress) == (len(sizes), 3, 3), f"form: stress has shape {np.shape(mixed.stress)}"
    found, energies = _forces(potential, atoms), _per_atom(potential, atoms)
    apart = np.abs(found.total / np.array([len(a) for a in atoms]) - energies) > tolerance
    assert not apart.any(), f"forces: with forces the energies differ, {found.total[apart]} eV"
    for row, one in enumerate(atoms):
        kept = np.allclose(mixed.forces[len(bad) + row], found.forces[row], atol=derivative_tolerance)
        assert kept, f"isolation: nonsense changes the forces of structure {row}"
        if conservative:
            _check_derivatives(potential, one, found.forces[row], found.stress[row], derivative_tolerance)


def _forces(potential: ForceField, atoms: "list[Atoms]") -> Forces:
    """Return energies, forces and stress, after a check of the form of the energies."""
    given = [a.copy() for a in atoms]
    try:
        result = Forces(*potential.forces(given))
    except Exception as error:
        raise AssertionError(f"never raises: {type(error).__name__}: {error}") from error
    _check_form(result.total, result.failures, given, atoms)
    return result


def _check_derivatives(
    potential: Potential, atoms: "Atoms", forces: NDArray[np.float64], stress: NDArray[np.float64], tolerance: float
) -> None:
    """Compare with central differences of the energy."""
    moved = []
    for atom, axis in np.ndindex(len(atoms), 3):
        for sign in (1, -1):
            moved.append(atoms.copy())
            moved[-1].positions[atom, axis] += sign * _STEP
    for i, j in np.ndindex(3, 3):
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * _STRAIN / 2
            strain[j, i] += sign * _STRAIN / 2
            moved.append(atoms.copy())
            moved[-1].set_cell(atoms.cell.array @ strain, scale_atoms=True)
    energies = len(atoms) * _per_atom(potential, moved)
    differences = energies[::2] - energies[1::2]
    expected = -differences[:-9].reshape(-1, 3) / (2 * _STEP)
    virial = differences[-9:].reshape(3, 3) / (2 * _STRAIN)
    for name, found, wanted, unit in (
        ("forces", forces, expected, "eV/Å"),
        ("stress", stress * atoms.get_volume(), virial, "eV in all"),
    ):
        error = np.abs(found - wanted).max()
        allowed = tolerance * max(1.0, np.abs(wanted).max())
        assert error <= allowed, f"{name}: they differ from the derivative of the energy by {error:.3g} {unit}"
