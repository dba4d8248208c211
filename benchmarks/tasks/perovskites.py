"""All cubic perovskites ABX3 of a published table: an exact oracle with a known optimum.

Castelli et al., Energy Environ. Sci. 5, 5814 (2012), computed the heats of formation of 18,928 cubic perovskites. The
table is not part of this project; it comes as ``formula,target`` rows, in eV a cell of five atoms.
"""

import csv
import gzip
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.dataset import data_folder
from crystal_env.elements import SYMBOLS, atomic_number
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult

if TYPE_CHECKING:
    from crystal_env.crystal import Crystal

FILE = "perovskite_castelli_18928.csv.gz"
METALS = tuple(
    "Ag Al As Au B Ba Be Bi Ca Cd Co Cr Cs Cu Fe Ga Ge Hf Hg In Ir K La Li Mg Mn Mo Na Nb Ni Os Pb Pd Pt Rb Re Rh Ru "
    "Sb Sc Si Sn Sr Ta Te Ti Tl V W Y Zn Zr".split()
)
"""The 52 elements on the sites A and B."""

_ENTRIES = 2756  # 52 · 53 / 2 pairs of metals, each with O3 and with N3
_FLOOR = -5.0  # eV, below all entries

Composition = tuple[tuple[int, int], ...]


class PerovskiteTable:
    """Minus the heat of formation of ABX3 with X = O or N in eV a cell, looked up.

    The table does not say which metal is on which site, and has two numbers for most pairs: the lower one counts. Terms
    are ``heat_of_formation`` and ``success``, 1 up to ``threshold``. Only the composition matters; one that is not in
    the table gets the floor of -5 and a reason.

    Args:
        path: the table, by default ``perovskite_castelli_18928.csv.gz`` in the folder $CRYSTALGEN_DATA.
        threshold: highest heat of formation in eV of a success.

    Raises:
        ValueError: if there is no such file, or it is another table.
    """

    floor = _FLOOR

    def __init__(self, path: str | Path | None = None, threshold: float = -0.3) -> None:
        self.heats = read_table(Path(path) if path else data_folder() / FILE)
        self.threshold = float(threshold)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        found = [self.heats.get(composition) for composition in compositions(as_batch(crystals))]
        known = np.array([heat is not None for heat in found], bool)
        heat = np.array([-_FLOOR if heat is None else heat for heat in found], np.float64)
        failures = np.array([*("not in the table" if heat is None else None for heat in found), None], object)[:-1]
        terms = {"heat_of_formation": heat, "success": (known & (heat <= self.threshold)).astype(np.float64)}
        return RewardResult(-heat, terms, failures)

    @property
    def best(self) -> float:
        """The highest total of all compositions."""
        return -min(self.heats.values())


def compositions(crystals: CrystalBatch) -> list[Composition]:
    """Return pairs of atomic number and amount of B crystals, without common factors."""
    counts = crystals.composition()
    counts //= np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
    return [tuple((int(z), int(row[z])) for z in row.nonzero()[0]) for row in counts]


@cache
def read_table(path: Path) -> dict[Composition, float]:
    """Return composition -> lowest heat of formation in eV of the ABX3 of a table, X = O or N.

    Raises:
        ValueError: if there is no such file, or it is not the table of 18,928 perovskites.
    """
    if not path.is_file():
        raise InputError(
            f"path {path} does not exist: give the table of perovskites to `crystalgen benchmark data FILE`, a CSV "
            "file with the columns formula and target (eV a cell), such as matminer's dataset matbench_perovskites"
        )
    heats: dict[Composition, float] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = csv.DictReader(file)
        if not {"formula", "target"} <= set(rows.fieldnames or ()):
            raise InputError(f"path {path} must have the columns formula and target, got {rows.fieldnames}")
        for row in rows:
            parts = [(symbol, int(n or 1)) for symbol, n in re.findall(r"([A-Z][a-z]?)(\d*)", row["formula"])]
            if sorted(n for _, n in parts) in ([1, 1, 3], [2, 3]) and {s for s, n in parts if n == 3} <= {"O", "N"}:
                key = tuple(sorted((atomic_number(symbol), n) for symbol, n in parts))
                heats[key] = min(heats.get(key, np.inf), float(row["target"]))
    metals = {SYMBOLS[z] for key in heats for z, n in key if n < 3}
    if len(heats) != _ENTRIES or metals != set(METALS):
        raise InputError(
            f"path {path} must hold {_ENTRIES} compositions ABX3 of {len(METALS)} metals with O or N, got {len(heats)} "
            f"of {len(metals)}"
        )
    return heats
