"""The best crystals, with the data to draw and to download them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.scores import FROM_TRACE
from benchmarks.report.folder import Results
from benchmarks.report.samples import group_symbol
from crystal_env import geometry
from crystal_env.crystal import Crystal
from crystal_env.elements import SYMBOLS, covalent_radii
from crystal_env.render.bonding import atoms_around_cell, find_bonds, find_neighbours, find_polyhedra

SHOWN = 6  # browsers draw at most 8 or 16 scenes of WebGL at a time
_ATOM_SCALE = 0.45  # radius of the drawn atom over its covalent radius
_MAX_ATOMS = 400


def best(results: Results) -> list[dict[str, Any]]:
    """Return the best crystals, one of each formula and space group: first those that count in the score, by total.

    Each has ``formula``, ``group``, ``facts`` (name -> text), ``cif`` and ``scene``; see `scene`.
    """
    total = results.column("total")[results.rows]
    order = np.lexsort((-np.nan_to_num(total, nan=-np.inf), ~results.counted[1][results.rows]))
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for i in order:
        crystal = results.crystals[int(i)]
        if (crystal.formula, crystal.G) not in found:
            found[crystal.formula, crystal.G] = _described(results, crystal, int(results.rows[i]))
        if len(found) == SHOWN:
            break
    return list(found.values())


def scene(crystal: Crystal) -> dict[str, Any]:
    """Return the atoms, bonds and cell of a crystal to be drawn, in Å.

    Returns:
        ``elements``: for each its ``symbol``, ``colour``, ``radius`` and the positions of its ``atoms``; ``sticks``:
        halves of bonds as start, end and index of the element; ``cell``: the lattice vectors.
    """
    from ase.data.colors import jmol_colors

    lattice = geometry.lattice_vectors(crystal.L[None])[0]
    atoms = atoms_around_cell(crystal, lattice)
    neighbours = find_neighbours(atoms)
    shown = atoms.core.copy()
    for _, ligands in find_polyhedra(atoms, neighbours):
        shown[ligands] = True
    if shown.sum() > _MAX_ATOMS:
        shown &= atoms.core
    bonds = find_bonds(atoms, neighbours, shown) if shown.sum() <= _MAX_ATOMS else []
    kinds = list(dict.fromkeys(crystal.A[crystal.A > 0].tolist()))
    elements = [
        {
            "symbol": SYMBOLS[z],
            "colour": "#" + "".join(f"{round(255 * c):02x}" for c in jmol_colors[min(z, len(jmol_colors) - 1)]),
            "radius": round(_ATOM_SCALE * float(covalent_radii()[z]), 3),
            "atoms": _plain(atoms.positions[shown & (atoms.numbers == z)]),
        }
        for z in kinds
    ]
    sticks = []
    for pair in bonds:
        middle = atoms.positions[list(pair)].mean(0)
        sticks += [[*_plain(np.stack([atoms.positions[i], middle])), kinds.index(int(atoms.numbers[i]))] for i in pair]
    return {"elements": elements, "sticks": sticks, "cell": _plain(lattice)}


def from_trace(results: Results) -> bool:
    """Return whether the score is of the queries, so that the best need not be among the samples."""
    return results.values["score"]["name"] in FROM_TRACE


def _described(results: Results, crystal: Crystal, row: int) -> dict[str, Any]:
    entry = results.table.iloc[row]
    facts = {"reward": f"{results.column('total')[row]:.4g}"}
    if np.isfinite(energy := results.column("e_above_hull")[row]):
        facts["above the hull"] = f"{energy:.3f} eV/atom"
    for name, label, unit in (
        ("band_gap", "gap", " eV"),
        ("dielectric_constant", "dielectric constant", ""),
        ("bulk_modulus", "bulk modulus", " GPa"),
        ("density", "density", " g/cm³"),
    ):
        if np.isfinite(value := results.column(f"term:{name}")[row]):
            facts[label] = f"{value:.4g}{unit}"
    what, counted = results.counted
    facts["counted as"] = what if counted[row] else f"not {what}"
    return {
        "formula": crystal.formula,
        "group": f"{group_symbol(crystal.G)} ({crystal.G})",
        "seed": int(entry["seed"]),
        "facts": facts,
        "cif": entry["cif"] if isinstance(entry.get("cif"), str) else _cif(crystal),
        "scene": scene(crystal),
    }


def _cif(crystal: Crystal) -> str:
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(crystal.to_structure()))


def _plain(values: NDArray[np.float64]) -> list[Any]:
    rounded: list[Any] = np.round(values, 3).tolist()
    return rounded
