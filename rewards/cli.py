"""The commands of this package: ``hull build``, ``hull info`` and ``hull check``."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional
from tyro.extras import subcommand_cli_from_dict

from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import load_crystals


def hull_build(
    paths: Positional[tuple[Path, ...]],
    out: Path,
    potential: Literal["chgnet"] = "chgnet",
    reference_set: str = "",
    date: str = "",
    n_jobs: int | None = None,
) -> None:
    """Build a hull from files of structures and a potential, and write it to a file.

    Interrupted, it goes on where it stopped when called again: finished energies stay in the cache folder.

    Args:
        paths: CSV files with a column ``cif``, folders of CIF files, or anything ASE reads.
        out: the npz file to write.
        potential: the energy model.
        reference_set: name of the structures, by default the names of the files.
        date: date of the build, by default today.
        n_jobs: processes, by default one per core.
    """
    from rewards.hull import ConvexHull

    crystals = CrystalBatch.concatenate([load_crystals(path, n_jobs=n_jobs).crystals for path in paths])
    if not len(crystals):
        raise ValueError("paths hold no structure")
    try:
        hull = ConvexHull.from_structures(
            crystals,
            potential,
            reference_set=reference_set or ", ".join(path.name for path in paths),
            date=date or datetime.date.today().isoformat(),
            n_jobs=n_jobs,
            progress=True,
        )
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command goes on from here") from None
    hull.save(out)
    print(f"{out}: {hull!r}")


def hull_info(hull: Positional[str]) -> None:
    """Print what a hull holds and where it comes from.

    Args:
        hull: name of a shipped hull, such as mp20-chgnet, or a file.
    """
    from dataclasses import asdict

    from crystal_env.elements import SYMBOLS
    from rewards.hull import ConvexHull

    loaded = ConvexHull.load(hull)
    missing = [SYMBOLS[z] for z in sorted({*range(1, len(SYMBOLS))} - set(loaded.elements()))]
    print(f"formulas: {len(loaded)}\nelements: {len(loaded.elements())}\nunknown elements: {' '.join(missing)}")
    for name, value in asdict(loaded.provenance).items():
        print(f"{name}: {value}")


def hull_check(
    paths: Positional[tuple[Path, ...]],
    hull: str = "mp20-chgnet",
    potential: Literal["chgnet"] = "chgnet",
    threshold: float = 0.1,
    n_jobs: int | None = None,
) -> None:
    """Compare a potential on its hull with the column ``e_above_hull`` of CSV files, and print the errors.

    Args:
        paths: CSV files with the columns ``cif`` and ``e_above_hull`` (eV/atom, may be empty).
        hull: name of a shipped hull, or a file.
        potential: the energy model, the one of the hull.
        threshold: highest energy above the hull in eV/atom that counts as stable.
        n_jobs: processes, by default one per core.
    """
    from rewards.check import compare
    from rewards.energies import crystal_energies
    from rewards.hull import ConvexHull
    from rewards.potentials import load_potential

    loaded = ConvexHull.load(hull)
    model = load_potential(potential)
    loaded.check_scale(model)
    parts = [_labelled(path, n_jobs) for path in paths]
    crystals = CrystalBatch.concatenate([crystals for crystals, _ in parts])
    labels = np.concatenate([np.zeros(0), *(labels for _, labels in parts)])
    energies = crystal_energies(crystals, model, n_jobs=n_jobs, progress=True).total
    result = compare(loaded.e_above_hull(crystals.composition(), energies), labels, threshold)
    print(f"crystals with a label and an energy: {result.n} of {len(crystals)}")
    print(f"mean absolute error:   {result.mean_error:.4f} eV/atom")
    print(f"median absolute error: {result.median_error:.4f} eV/atom")
    print(f"bias:                  {result.bias:+.4f} eV/atom")
    print(f"agreement at {threshold:g} eV/atom: {result.agreement:.2%}")
    print(f"stable only here: {result.false_stable}, stable only by the labels: {result.false_unstable}")


def _labelled(path: Path, n_jobs: int | None) -> tuple[CrystalBatch, NDArray[np.float64]]:
    import pandas as pd

    table = pd.read_csv(path, keep_default_na=False)  # the formula NaN is sodium nitride
    if "e_above_hull" not in table:
        raise ValueError(f"{path} needs a column 'e_above_hull', it has {list(table.columns)}")
    labels = pd.to_numeric(table["e_above_hull"], errors="coerce").to_numpy(np.float64)
    tokens = load_crystals(path, n_jobs=n_jobs)
    return tokens.crystals, labels[tokens.index]


COMMANDS: dict[str, Any] = {"build": hull_build, "info": hull_info, "check": hull_check}
"""The sub-commands of ``crystalgen hull``."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one of the commands, as ``python -m rewards.cli build ...`` does."""
    subcommand_cli_from_dict(COMMANDS, args=args, description=__doc__)


if __name__ == "__main__":
    main()
