"""Crystals as files: one CIF each, a table of all, and the batch itself."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.reward import RewardResult


def write_samples(
    folder: Path,
    crystals: CrystalBatch,
    result: RewardResult | None = None,
    numbers: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write crystals into a folder: ``cif/*.cif``, ``crystals.csv`` and ``crystals.npz``.

    Args:
        folder: made where there is none; files of an earlier call are replaced.
        crystals: B crystals, the CIF files being numbered in their order.
        result: their scores; its terms become columns.
        numbers: name -> (B,) further columns.
    """
    from pymatgen.io.cif import CifWriter

    (folder / "cif").mkdir(parents=True, exist_ok=True)
    for old in (folder / "cif").glob("*.cif"):
        old.unlink()
    columns: dict[str, Any] = dict(numbers or {})
    if result is not None:
        columns = {"reward": result.total, **result.terms, "failure": result.failures, **columns}
    width = len(str(max(len(crystals) - 1, 0)))
    with (folder / "crystals.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", "formula", "space_group", "letters", *columns, "crystal"])
        for row, crystal in enumerate(crystals):
            values = ["" if values[row] is None else values[row] for values in columns.values()]
            table.writerow([row, crystal.formula, crystal.G, crystal.letters, *values, str(crystal)])
            cif = str(CifWriter(crystal.to_structure(), symprec=None))
            (folder / "cif" / f"{row:0{width}}-{crystal.formula}.cif").write_text(cif)
    crystals.save(folder / "crystals.npz")
