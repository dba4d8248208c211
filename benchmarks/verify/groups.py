"""Random masked episodes in all 230 space groups, with the symmetry of their crystals checked against spglib.

Run ``python -m benchmarks.verify.groups``. Every crystal must be one of the grammar. Of every crystal, the operations
of its group, as spglib lists them, must leave the metric of the lattice unchanged, and of a sample without overlapping
atoms they must reproduce the multiplicities and be among the operations that spglib detects in the decoded structure,
so that the detected group is the requested one or a supergroup.
"""

import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import spglib
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from crystal_env import Crystal, CrystalBatch, Phase, Vocabulary, sample_masked, tables
from crystal_env.geometry import lattice_vectors
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.grammar.state import CrystalStates

_MIN_DISTANCE = 0.5
_SYMPREC = 1e-3


class Counts(NamedTuple):
    """Crystals of one space group: sampled, symmetry detected, overlapping, exactly ``G``, wrong."""

    sampled: int
    detected: int
    overlapping: int
    exact: int
    wrong: int


def roll_out(group: int, episodes: int, seed: int, bins: int = 960) -> CrystalBatch:
    """Run masked random episodes in parallel until all have ended.

    Raises:
        RuntimeError: if an allowed action is refused, or the longest episode takes too many decisions.
    """
    rng = np.random.default_rng([seed, group])
    states = CrystalStates(episodes, Vocabulary(bins))
    rows = np.arange(episodes)
    states.reset(rows, compile_grammar(constraints(space_group=group)), np.full(episodes, group))
    for _ in range(states.vocabulary.max_decisions):
        open_ = np.flatnonzero(states.phase != Phase.DONE)
        if not states.step(open_, sample_masked(states.masks[open_], rng)).all():
            raise RuntimeError(f"an allowed action was refused in group {group}")
    if (states.phase != Phase.DONE).any():
        raise RuntimeError(f"an episode in group {group} did not end")
    return states.crystals(rows)


def check_group(group: int, episodes: int, detected: int, seed: int = 0) -> Counts:
    """Run episodes in one group and check their crystals.

    Raises:
        ValueError: if a crystal is not one of the grammar.
    """
    crystals = roll_out(group, episodes, seed)
    for crystal in crystals:
        Crystal(crystal.G, crystal.W, crystal.A, crystal.XYZ, crystal.L)
    rotations, translations = operations(group)
    lattice = lattice_vectors(crystals.L)
    metric = lattice @ lattice.transpose(0, 2, 1)
    turned = np.einsum("oij,bjk,olk->boil", rotations.transpose(0, 2, 1), metric, rotations.transpose(0, 2, 1))
    scale = np.sqrt(np.einsum("bii,bjj->bij", metric, metric))[:, None]
    wrong = int((np.abs(turned - metric[:, None]) > 1e-9 * scale).any((1, 2, 3)).sum())
    apart = crystals.min_distance(_MIN_DISTANCE) >= _MIN_DISTANCE
    sample = crystals[np.flatnonzero(apart)[:detected]]
    groups = [_detected(crystal, rotations, translations) for crystal in sample]
    exact = sum(number == group for number in groups)
    wrong += sum(number is None for number in groups)
    return Counts(episodes, len(sample), int((~apart).sum()), exact, wrong)


@lru_cache(maxsize=230)
def operations(group: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return rotations (n, 3, 3) and translations (n, 3) of a group in the setting of the tables, from spglib."""
    with warnings.catch_warnings():  # spglib announces another way to report errors
        warnings.simplefilter("ignore", DeprecationWarning)
        kinds: list[Any] = [spglib.get_spacegroup_type(hall) for hall in range(1, 531)]
    settings = {kinds[hall - 1].choice: hall for hall in range(530, 0, -1) if kinds[hall - 1].number == group}
    hall = settings.get("2", settings.get("H", min(settings.values())))
    found: Any = spglib.get_symmetry_from_database(hall)
    return found["rotations"].astype(np.int64), found["translations"]


def _detected(crystal: Crystal, rotations: NDArray[np.int64], translations: NDArray[np.float64]) -> int | None:
    """Return the group that spglib detects, None if it lacks an operation or a multiplicity is another."""
    images = np.einsum("oij,nj->noi", rotations, crystal.XYZ) + translations
    distinct = [len(np.unique(np.rint(points * 960 * 24).astype(np.int64) % (960 * 24), axis=0)) for points in images]
    if distinct != tables().multiplicity[crystal.G, crystal.W].tolist():
        return None
    atoms = crystal.to_batch().expand()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cell: Any = (atoms.lattice[0], atoms.frac, atoms.numbers)
        dataset = spglib.get_symmetry_dataset(cell, symprec=_SYMPREC)
    if dataset is None:
        return None
    rotation_matches = (rotations[:, None] == dataset.rotations[None]).all((2, 3))
    shift = translations[:, None] - dataset.translations[None]
    lengths = np.linalg.norm(np.einsum("odi,ij->odj", shift - np.rint(shift), atoms.lattice[0]), axis=2)
    present = (rotation_matches & (lengths < 10 * _SYMPREC)).any(1)
    return int(dataset.number) if present.all() else None


def main(episodes: int = 2000, detected: int = 20, seed: int = 0) -> None:
    """Check all groups and print the sums.

    Args:
        episodes: Masked random episodes in each group.
        detected: Crystals of each group whose symmetry is detected.
        seed: Seed of the episodes.
    """
    results = [check_group(group, episodes, detected, seed) for group in tqdm(range(1, 231), desc="space groups")]
    total = Counts(*(sum(column) for column in zip(*results, strict=True)))
    print(f"{total.sampled} episodes in 230 groups, all ended with a crystal of the grammar")
    print(f"{total.overlapping} have atoms closer than {_MIN_DISTANCE} Å and were not compared further")
    print(f"{total.detected} compared: {total.exact} have the requested group, ", end="")
    print(f"{total.detected - total.exact - total.wrong} a supergroup, {total.wrong} are wrong")
    if total.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)
