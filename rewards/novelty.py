"""Novelty against a reference set."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crystal_env.arguments import integer
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.errors import MissingFileError
from crystal_env.reward import RewardResult, without_failure
from rewards.matching import Reference
from rewards.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

_NAMED = {"mp20": ("mp20_train.csv.gz", "mp20_val.csv.gz")}


class Novelty:
    """1 for a crystal whose structure is not in the reference set, else 0.

    Structures are the same by pymatgen's ``StructureMatcher`` with its defaults among equal reduced formulas, whatever
    their space groups. Terms are ``novel`` and ``success``, 1 or 0 each. A crystal that fails the screen gets 0 and a
    reason: otherwise unphysical cells would be the easiest way to novelty.

    Args:
        reference: crystals; an npz file of `CrystalBatch.save`; a file of structures that
            `crystal_env.dataset.load_crystals` takes; or ``"mp20"``, the files of MP-20 for training and validation in
            the data folder. Files are read with the first batch, once per process.
        screen: limits that a crystal must meet.
        n_jobs: processes that compare structures, None for one per core.

    Raises:
        ValueError: if there is no such file, or ``n_jobs`` is not positive.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> in_p1 = Crystal.from_structure(rock_salt.to_structure())
        >>> Novelty(rock_salt.to_batch())([in_p1]).total
        array([0.])
    """

    floor: ClassVar[float] = 0.0
    """The lowest total."""

    def __init__(
        self, reference: CrystalBatch | str | Path, screen: Screen | None = None, n_jobs: int | None = 1
    ) -> None:
        self.n_jobs = None if n_jobs is None else integer("n_jobs", n_jobs, least=1)
        self._given = Reference(reference) if isinstance(reference, CrystalBatch) else None
        self._files = () if isinstance(reference, CrystalBatch) else _files(reference)
        self.screen = screen or Screen()

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals; see the class for the terms."""
        crystals = as_batch(crystals)
        failures, novel = self.screen(crystals), np.zeros(len(crystals))
        rows = without_failure(failures)
        if len(rows):
            novel[rows] = ~self.reference.contains(crystals[rows], n_jobs=self.n_jobs)
        return RewardResult(novel, {"novel": novel.copy(), "success": novel.copy()}, failures)

    @property
    def reference(self) -> Reference:
        """The reference set."""
        return self._given or _read(self._files)


def _files(reference: str | Path) -> tuple[str, ...]:
    names = _NAMED.get(str(reference))
    files = [data_folder() / name for name in names] if names else [Path(reference)]
    for file in files:
        if not file.exists():
            raise MissingFileError(f"reference must be crystals, {sorted(_NAMED)} or a file, there is no {str(file)!r}")
    return tuple(str(file) for file in files)


@lru_cache(maxsize=4)
def _read(files: tuple[str, ...]) -> Reference:
    """Read files once per process; a reward holds only their names, so that copies and pickles stay small."""
    batches = [
        CrystalBatch.load(file) if file.endswith(".npz") else load_crystals(file, progress=False).crystals
        for file in files
    ]
    return Reference(CrystalBatch.concatenate(batches))
