"""Time of energies above a large hull and of the Materials Project's corrections, compared with the published code.

Run ``python -m benchmarks.speed.hull``. The corrections are measured on MP-20 if the folder ``$CRYSTALGEN_DATA`` holds
``mp20_val.csv.gz``, else on crystals built here.
"""

import math
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp.inputs import Incar, Poscar
from pymatgen.io.vasp.sets import MPRelaxSet

from benchmarks.speed.timing import seconds
from crystal_env.dataset import data_folder, read_structures
from crystal_env.elements import SYMBOLS
from crystal_env.errors import InputError
from rewards.hull.convex_hull import ConvexHull
from rewards.hull.formulas import N_COLUMNS
from rewards.potentials import mp2020


class Row(NamedTuple):
    """One measured number."""

    name: str
    value: float
    unit: str


class Entries(NamedTuple):
    """Atoms per element (N, 119) and total energies (N,) in eV."""

    compositions: NDArray[np.int64]
    energies: NDArray[np.float64]


def main(entries: int = 100_000, crystals: int = 1000, sample: int = 10, compared: int = 3000, seed: int = 0) -> None:
    """Measure and print a table.

    Args:
        entries: Entries of the synthetic hull.
        crystals: Crystals looked up and corrected.
        sample: Crystals also evaluated as in the published code.
        compared: Random energies compared with pymatgen's.
        seed: Seed of entries and crystals.
    """
    for row in measure(entries, crystals, sample, compared, seed):
        print(f"{row.name:<66}{row.value:>12.4g} {row.unit}", flush=True)


def measure(
    entries: int = 100_000, crystals: int = 1000, sample: int = 10, compared: int = 3000, seed: int = 0
) -> list[Row]:
    """Return the measured numbers; the arguments are those of `main`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pymatgen about noble gases and oxidation states
        return measure_hull(entries, crystals, sample, compared, seed) + measure_corrections(crystals, sample)


def measure_hull(entries: int, crystals: int, sample: int, compared: int, seed: int) -> list[Row]:
    """Measure build and look-up of a hull, and compare with pymatgen."""
    known = synthetic_entries(entries, seed=seed)
    wanted = random_crystals(known, crystals, seed)
    hull, build, kept, peak = _build(known)
    cold = _once(lambda: hull.e_above_hull(*wanted))
    warm = seconds(lambda: hull.e_above_hull(*wanted))
    single = seconds(lambda: [hull.e_above_hull(wanted[0][i : i + 1], wanted[1][i : i + 1]) for i in range(100)])
    objects = as_pymatgen(known)
    queries = as_pymatgen(Entries(wanted.compositions[:sample], wanted.energies[:sample]))
    published = _once(lambda: [published_e_above_hull(objects, query) for query in queries])
    return [
        Row("entries", entries, ""),
        Row("chemical systems", len(np.unique(known.compositions > 0, axis=0)), ""),
        Row("build", build, "s"),
        Row("memory of the hull", kept, "MB"),
        Row("memory while it is built, at most", peak, "MB"),
        Row(f"look-up of {crystals} crystals, first call", cold / crystals * 1e3, "ms each"),
        Row(f"look-up of {crystals} crystals, later calls", warm / crystals * 1e3, "ms each"),
        Row("look-up of one crystal", single / 100 * 1e3, "ms"),
        Row("look-up, PhaseDiagram for each crystal as published", published / sample * 1e3, "ms each"),
        Row("look-up, times faster than published", published / sample / (cold / crystals), ""),
        Row(
            f"largest difference from pymatgen, {compared} energies",
            _difference(hull, known, compared, seed),
            "eV/atom",
        ),
    ]


def measure_corrections(crystals: int, sample: int) -> list[Row]:
    """Measure the corrections of structures, and compare with pymatgen's."""
    structures = _structures(crystals)
    atoms = [AseAtomsAdaptor.get_atoms(structure) for structure in structures]
    some = structures[:: max(1, len(structures) // (5 * sample))]
    mp2020.corrections([_rock_salt("Fe", "Cl")])  # reads pymatgen's tables
    cold = _once(lambda: mp2020.corrections(atoms)) / len(atoms)
    warm = seconds(lambda: mp2020.corrections(atoms)) / len(atoms)
    published = _once(lambda: [published_correction(structure) for structure in some]) / len(some)
    difference = max(abs(mp2020.corrections([s])[0][0] - _plain_correction(s)) for s in structures)
    return [
        Row("corrected structures", len(atoms), ""),
        Row("correction, new formulas", cold * 1e3, "ms each"),
        Row("correction, known formulas", warm * 1e3, "ms each"),
        Row("correction, VASP inputs in a folder as published", published * 1e3, "ms each"),
        Row("correction, times faster than published, new formulas", published / cold, ""),
        Row("correction, times faster than published, known formulas", published / warm, ""),
        Row("largest difference from pymatgen's correction", difference, "eV"),
    ]


def synthetic_entries(n: int = 100_000, n_systems: int = 19_000, n_elements: int = 76, seed: int = 0) -> Entries:
    """Return random entries whose formation energies are those of attracting pairs of elements, and some noise.

    Some elements are in many compounds and most in few, as in databases. All elements have an entry.

    Raises:
        ValueError: if there are not enough elements for so many chemical systems.
    """
    if n_systems > math.comb(n_elements, 3):
        raise InputError(f"n_systems must be at most {math.comb(n_elements, 3)}, got {n_systems}")
    rng = np.random.default_rng(seed)
    elements = np.sort(rng.choice(np.arange(1, 95), n_elements, replace=False))
    frequency = rng.permutation(1 / np.arange(1, n_elements + 1) ** 0.9)
    frequency /= frequency.sum()
    systems: dict[tuple[int, ...], None] = {}
    while len(systems) < n_systems:
        k = rng.choice([2, 3, 4, 5], p=[0.2, 0.6, 0.15, 0.05])
        systems[tuple(np.sort(rng.choice(elements, k, replace=False, p=frequency)).tolist())] = None
    compositions = np.zeros((n, N_COLUMNS), np.int64)
    compositions[np.arange(n_elements), elements] = 1
    chosen = list(systems)
    for row, pick in enumerate(rng.integers(n_systems, size=n - n_elements), start=n_elements):
        compositions[row, list(chosen[pick])] = rng.integers(1, 9, len(chosen[pick]))
    pairs = -np.abs(rng.normal(0, 2, (N_COLUMNS, N_COLUMNS)))
    np.fill_diagonal(pairs := (pairs + pairs.T) / 2, 0)
    x = compositions / compositions.sum(1, keepdims=True)
    per_atom = x @ rng.normal(-4, 2, N_COLUMNS) + ((x @ pairs) * x).sum(1)
    per_atom[n_elements:] += rng.normal(0, 0.08, n - n_elements)
    return Entries(compositions, per_atom * compositions.sum(1))


def random_crystals(known: Entries, n: int, seed: int) -> Entries:
    """Return n compositions of two to five elements, chosen as often as among the entries, and random energies."""
    rng = np.random.default_rng(seed + 1)
    frequency = (known.compositions > 0).sum(0) / (known.compositions > 0).sum()
    compositions = np.zeros((n, N_COLUMNS), np.int64)
    for row in range(n):
        compositions[row, rng.choice(N_COLUMNS, 2 + row % 4, replace=False, p=frequency)] = rng.integers(
            1, 9, 2 + row % 4
        )
    return Entries(compositions, compositions.sum(1) * rng.normal(-5, 1, n))


def as_pymatgen(entries: Entries) -> list[PDEntry]:
    """Return entries as pymatgen's objects."""
    made = []
    for row, energy in zip(entries.compositions, entries.energies.tolist(), strict=True):
        made.append(PDEntry(Composition({SYMBOLS[z]: int(row[z]) for z in np.flatnonzero(row)}), energy))
    return made


def published_e_above_hull(entries: list[PDEntry], query: PDEntry) -> float:
    """Return an energy above the hull as the published code does: a phase diagram for each crystal."""
    elements = set(query.composition.elements)
    diagram = PhaseDiagram([entry for entry in entries if set(entry.composition.elements) <= elements])
    return float(diagram.get_e_above_hull(query, allow_negative=True))  # type: ignore[arg-type]


def published_correction(structure: Structure) -> float:
    """Return a correction by way of VASP's input files, written to a folder and read again as in the published code."""
    with tempfile.TemporaryDirectory() as folder:
        MPRelaxSet(structure).write_input(folder, potcar_spec=True)
        poscar, incar = Poscar.from_file(f"{folder}/POSCAR"), Incar.from_file(f"{folder}/INCAR")
    hubbards = dict(zip(poscar.site_symbols, incar.get("LDAUU", []), strict=False))
    return _pymatgen_correction(poscar.structure, hubbards)


def _plain_correction(structure: Structure) -> float:
    by_electronegativity = sorted(structure.composition.elements, key=lambda element: element.X)
    table = MPRelaxSet.CONFIG["INCAR"]["LDAUU"].get(by_electronegativity[-1].symbol, {})
    return _pymatgen_correction(
        structure, {e.symbol: table[e.symbol] for e in by_electronegativity if e.symbol in table}
    )


def _pymatgen_correction(structure: Structure, hubbards: dict[str, float]) -> float:
    used = any(hubbards.values())
    parameters = {"run_type": "GGA+U" if used else "GGA", "is_hubbard": used, "hubbards": hubbards if used else {}}
    entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
    scheme = MaterialsProject2020Compatibility(check_potcar=False)
    return float(scheme.process_entries([entry], clean=True, on_error="raise")[0].correction)


def _structures(count: int) -> list[Structure]:
    """Return structures of MP-20, or where there are none, rock salts of many elements."""
    path = data_folder() / "mp20_val.csv.gz"
    if path.is_file():
        return [Structure.from_str(str(cif), fmt="cif") for cif in list(read_structures(path))[:count]]
    pairs = [(cation, anion) for cation in SYMBOLS[20:31] for anion in ("O", "S", "F", "Cl", "N", "Se")]
    return [_rock_salt(*pair) for pair in pairs][:count]


def _rock_salt(cation: str, anion: str) -> Structure:
    return Structure.from_spacegroup(225, Lattice.cubic(5), [cation, anion], [[0] * 3, [0.5] * 3])


def _build(known: Entries) -> tuple[ConvexHull, float, float, float]:
    """Return a hull, the seconds it takes, and the megabytes it keeps and needs at most."""
    build = _once(lambda: ConvexHull(*known))
    tracemalloc.start()
    hull = ConvexHull(*known)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return hull, build, kept / 1e6, peak / 1e6


def _difference(hull: ConvexHull, known: Entries, compared: int, seed: int) -> float:
    """Return the largest difference from pymatgen among random compositions of 30 systems of five elements."""
    worst, per_system = 0.0, max(1, compared // 30)
    for system in random_crystals(known, 120, seed + 2).compositions[3::4]:
        inside = known.compositions[:, system == 0].sum(1) == 0
        diagram = PhaseDiagram(as_pymatgen(Entries(known.compositions[inside], known.energies[inside])))
        rng = np.random.default_rng(seed)
        compositions = np.zeros((per_system, N_COLUMNS), np.int64)
        for row in compositions:
            row[rng.choice(np.flatnonzero(system), rng.integers(1, 6), replace=False)] = rng.integers(1, 9)
        compositions[:, system > 0] *= rng.integers(1, 9, (per_system, 5))
        queries = Entries(compositions, compositions.sum(1) * rng.normal(-5, 1, per_system))
        expected = np.array(
            [diagram.get_e_above_hull(q, allow_negative=True) for q in as_pymatgen(queries)], np.float64
        )
        worst = max(worst, float(np.abs(hull.e_above_hull(*queries) - expected).max()))
    return worst


def _once(work: Callable[[], Any]) -> float:
    """Return the wall time in seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    tyro.cli(main)
