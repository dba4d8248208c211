"""How far potentials can be trusted: energies and stability of structures that DFT has computed.

Run ``python -m benchmarks.verify.potentials FILE``, where FILE holds structures with total energies of uncorrected PBE
with the Materials Project's settings, in any format of ASE. The energies get the MP2020 corrections; energies above the
hull are those above a hull of DFT energies, built from the Materials Project's formation energies in
``$CRYSTALGEN_DATA`` unless ``--hull`` names one. On one hull the error of an energy above the hull is that of the
energy per atom; ``NAME@HULL`` evaluates a potential on another hull, such as ``chgnet@mp20-chgnet``, CHGNet with the
shipped hull of its own energies.

Times are processor times of one thread. Energies are kept in the folder ``--out``, from which the same command
resumes.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

from benchmarks.metrics.intervals import rate
from benchmarks.metrics.sample import STABLE
from crystal_env.dataset import data_folder
from crystal_env.errors import InputError, MissingFileError
from crystal_env.files import atomic_write
from rewards import ConvexHull, load_potential
from rewards.hull.file_format import DFT, Provenance
from rewards.hull.formulas import N_COLUMNS
from rewards.hull.sources import read_formation_energies
from rewards.potentials import MP2020, Potential
from rewards.potentials.mp2020 import corrections

if TYPE_CHECKING:
    from ase import Atoms

NEAR = 0.3
"""Energy above the hull in eV/atom, by DFT, up to which a structure counts as near the hull."""

_POTENTIALS = ("chgnet@mp20-chgnet", "chgnet", "sevennet-0+MP2020", "sevennet-l3i5+MP2020")
_HULL, _ELEMENTS = "mp_hull_reference.csv.gz", "mp_elemental_reference_entries_2023-02-07.json.gz"
_F_BLOCK = [*range(57, 72), *range(89, 104)]  # lanthanides and actinides
_CHUNK = 250  # structures between two writes


class Reference(NamedTuple):
    """N structures that DFT has computed.

    Attributes:
        atoms: the structures.
        compositions (N, 119): atoms per element, column 0 unused.
        energies (N,): corrected total energies in eV.
        hull: a hull of corrected DFT energies.
        e_above_hull (N,): energies above it in eV/atom.
    """

    atoms: "list[Atoms]"
    compositions: NDArray[np.int64]
    energies: NDArray[np.float64]
    hull: ConvexHull
    e_above_hull: NDArray[np.float64]


class Trust(NamedTuple):
    """Errors of a potential against DFT; energies are in eV/atom, stable is at most 0.1 above the hull.

    Attributes:
        n: structures with an energy; those without count as unstable.
        energy: mean absolute error of energies.
        e_above_hull: that of energies above the hull.
        near, near_f: the same of structures near the hull, and of those of them with lanthanides or actinides.
        bias: mean error of energies above the hull of structures near the hull.
        true_stable, false_stable: rates of stable by the potential among stable and unstable by DFT.
        precision: rate of stable by DFT among stable by the potential.
    """

    n: int
    energy: float
    e_above_hull: float
    near: float
    near_f: float
    bias: float
    true_stable: dict[str, Any]
    false_stable: dict[str, Any]
    precision: dict[str, Any]


def read_reference(path: Path, hull: ConvexHull) -> Reference:
    """Read structures with uncorrected DFT energies; those that cannot be corrected or have no hull are left out.

    Raises:
        ValueError: if there is no such file, a structure has no energy, or none is left.
    """
    import ase.io

    if not path.is_file():
        raise MissingFileError(f"path must lead to a file of structures with energies, and {path} is none")
    atoms = list(ase.io.iread(path))
    if any(one.calc is None or "energy" not in one.calc.results for one in atoms):
        raise InputError(f"every structure of {path} must have an energy")
    energies = np.array([one.get_potential_energy() for one in atoms]) + corrections(atoms)[0]
    compositions = np.array([np.bincount(one.numbers, minlength=N_COLUMNS) for one in atoms])
    e_above_hull = hull.e_above_hull(compositions, energies)
    rows = np.flatnonzero(np.isfinite(e_above_hull))
    if not len(rows):
        raise InputError(f"no structure of {path} has an energy above the hull")
    kept = [atoms[row] for row in rows]
    return Reference(kept, compositions[rows], energies[rows], hull, e_above_hull[rows])


def trust(reference: Reference, energies: NDArray[np.float64], hull: ConvexHull) -> Trust:
    """Return the errors of a potential's total energies (N,) in eV, NaN where it has none, with a hull on its scale."""
    sizes, truth = reference.compositions.sum(1), reference.e_above_hull
    found = hull.e_above_hull(reference.compositions, energies)
    scored = np.isfinite(found)
    error, near = found - truth, scored & (truth <= NEAR)
    near_f = near & (reference.compositions[:, _F_BLOCK] > 0).any(1)
    stable, labelled = found <= STABLE, truth <= STABLE
    both = (stable & labelled).sum()
    return Trust(
        n=int(scored.sum()),
        energy=_mean_abs((energies - reference.energies)[scored] / sizes[scored]),
        e_above_hull=_mean_abs(error[scored]),
        near=_mean_abs(error[near]),
        near_f=_mean_abs(error[near_f]),
        bias=float(error[near].mean()) if near.any() else np.nan,
        true_stable=rate(both, labelled.sum()),
        false_stable=rate((stable & ~labelled).sum(), (~labelled).sum()),
        precision=rate(both, stable.sum()),
    )


def timed_energies(
    potential: Potential, atoms: "Sequence[Atoms]", path: Path | None = None
) -> tuple[NDArray[np.float64], float]:
    """Return total energies (N,) in eV and the processor time in s that they took; finished ones are kept in a file."""
    import torch

    total, seconds = np.zeros(0), 0.0
    if path is not None and path.is_file():
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            total, seconds = file["total"], float(file["seconds"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if len(total) < len(atoms):
            potential.energies(atoms[:1])  # loads the model
        for start in range(len(total), len(atoms), _CHUNK):
            begin = time.process_time()
            total = np.append(total, potential.energies(atoms[start : start + _CHUNK]).total)
            seconds += time.process_time() - begin
            if path is not None:
                atomic_write(path, partial(np.savez, allow_pickle=False, total=total, seconds=seconds))
    finally:
        torch.set_num_threads(threads)
    return total[: len(atoms)], seconds


def mp_hull() -> ConvexHull:
    """Return the hull of the Materials Project's corrected DFT energies in the data folder."""
    files = data_folder() / _HULL, data_folder() / _ELEMENTS
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise MissingFileError(f"hull must name a hull of DFT energies, since there is no {' and no '.join(missing)}")
    return ConvexHull.from_entries(read_formation_energies(*files), Provenance(DFT, scale=MP2020))


def main(
    path: Positional[Path],
    potentials: tuple[str, ...] = _POTENTIALS,
    hull: Path | None = None,
    out: Path | None = None,
) -> None:
    """Compare potentials with DFT, and print a table in Markdown.

    Args:
        path: File of structures with uncorrected DFT energies.
        potentials: Names of potentials on the scale of the hull, or NAME@HULL.
        hull: Hull of DFT energies, by default the Materials Project's.
        out: Folder of computed energies.
    """
    dft = mp_hull() if hull is None else ConvexHull.load(hull)
    reference = read_reference(path, dft)
    _print_reference(path, reference)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    for text in potentials:
        name, _, own = text.partition("@")
        potential, other = load_potential(name), ConvexHull.load(own) if own else dft
        other.check_scale(potential)
        file = None if out is None else out / f"{potential.name}.npz"
        energies, seconds = timed_energies(potential, reference.atoms, file)
        found = trust(reference, energies, other)
        cells = [f"{value:.3f}" for value in (found.energy, found.e_above_hull, found.near, found.near_f)]
        cells += [f"{found.bias:+.3f}", *map(_percent, (found.true_stable, found.false_stable, found.precision))]
        where = f"own ({own})" if own else "DFT"
        print(
            f"| {potential.name} | {where} | {found.n} | {' | '.join(cells)} | {1e3 * seconds / found.n:.1f} |",
            flush=True,
        )


def _print_reference(path: Path, reference: Reference) -> None:
    known = set(reference.hull.formulas())
    formulas = ConvexHull(reference.compositions, reference.energies).formulas()
    new = sum(formula not in known for formula in formulas)
    n, stable, near = len(reference.atoms), reference.e_above_hull <= STABLE, reference.e_above_hull <= NEAR
    print(
        f"{path.name}: {n} structures, {stable.sum()} stable and {near.sum()} within {NEAR} eV/atom of the hull by DFT,"
    )
    print(f"{new} of {len(formulas)} formulas are not in the hull\n")
    columns = [
        "potential",
        "hull",
        "n",
        "MAE energy",
        "MAE E_hull",
        f"E_hull ≤ {NEAR}",
        "with f-block elements",
        "bias",
    ]
    columns += ["true stable, %", "false stable, %", "precision, %", "ms"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def _percent(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{100 * entry['rate']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _mean_abs(values: NDArray[np.float64]) -> float:
    return float(np.abs(values).mean()) if len(values) else np.nan


if __name__ == "__main__":
    tyro.cli(main)
