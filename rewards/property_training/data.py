"""Tables of structures and targets for a property model."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import load_crystals
from crystal_env.errors import InputError
from crystal_env.files import read_table


class PropertyData(NamedTuple):
    """N crystals with k targets.

    Attributes:
        crystals: N crystals.
        targets (N, k): their targets.
        names: names (N,) of the rows, for tables.
        left_out: reason -> number of rows left out.
    """

    crystals: CrystalBatch
    targets: NDArray[np.float64]
    names: list[str]
    left_out: dict[str, int]


def load_property_data(
    structures: Sequence[Path],
    targets: Sequence[str],
    table: Path | None = None,
    key: str = "material_id",
    low: float = -np.inf,
    high: float = np.inf,
) -> PropertyData:
    """Read structures and their targets.

    Args:
        structures: CSV files with a column ``cif``.
        targets: names of the columns with targets.
        table: a CSV file with the targets, joined by the column ``key``; by default the files of structures have them.
        key: the common column, used as the name of a row.
        low: lowest target; rows with a lower one are left out (appendix D of the paper: -10).
        high: highest target; rows with a higher one are left out (appendix D of the paper: 100).

    Raises:
        ValueError: if a file or a column is missing, or nothing is left.
    """
    import pandas as pd

    wanted = None if table is None else read_table(table, [key, *targets]).drop_duplicates(key).set_index(key)
    left_out = dict.fromkeys(("no structure", "no target", "outside the range"), 0)
    parts, values = [], []
    names: list[str] = []
    for path in structures:
        rows = read_table(path, ["cif", *([key] if table else targets)])
        tokens = load_crystals(path)
        left_out["no structure"] += len(tokens.skipped)
        kept = rows.iloc[tokens.index]
        source = kept if wanted is None else wanted.reindex(kept[key])
        numbers = np.column_stack([pd.to_numeric(source[t], errors="coerce").to_numpy(np.float64) for t in targets])
        known = np.isfinite(numbers).all(1)
        inside = known & (numbers >= low).all(1) & (numbers <= high).all(1)
        left_out["no target"] += int((~known).sum())
        left_out["outside the range"] += int((known & ~inside).sum())
        parts.append(tokens.crystals[inside])
        values.append(numbers[inside])
        names += (
            kept[key].astype(str)[inside].tolist() if key in kept else [f"{path.name}:{i}" for i in kept.index[inside]]
        )
    if not names:
        raise InputError(f"no row of {', '.join(map(str, structures))} has {', '.join(targets)}: {left_out}")
    return PropertyData(CrystalBatch.concatenate(parts), np.concatenate(values), names, left_out)


def split(size: int, fractions: tuple[float, float, float], seed: int) -> tuple[NDArray[np.int64], ...]:
    """Return the rows of training, validation and test, in proportion to three numbers.

    Raises:
        ValueError: if they are not three non-negative finite numbers with a positive first, or a part stays empty.
    """
    if len(fractions) != 3 or not np.isfinite(fractions).all() or min(fractions) < 0 or not fractions[0] > 0:
        raise InputError(f"split must be three proportions such as 8 1 1, got {fractions}")
    order = np.random.default_rng(seed).permutation(size)
    ends = np.rint(np.cumsum(fractions) / sum(fractions) * size).astype(int)
    parts = tuple(np.sort(part) for part in np.split(order, ends[:2]))
    if any(not len(part) for part, fraction in zip(parts, fractions, strict=True) if fraction > 0):
        ratio = ":".join(f"{fraction:g}" for fraction in fractions)
        raise InputError(f"{size} structures are too few to be split {ratio}")
    return parts
