"""Crystals to learn from: read, and checked that the environment could build them."""

import csv
from pathlib import Path

import numpy as np
from tqdm import tqdm

from agents.crystalformer.distribution import any_crystal, decision_masks
from agents.crystalformer.likelihood import check_crystals
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import load_crystals
from crystal_env.encoding import ANGLE_BOUNDS, gamma_bounds, lattice_bins
from crystal_env.errors import InputError
from crystal_env.wyckoff import N_SLOTS, tables


def load_training_data(path: str | Path, report: Path | None = None, progress: bool = True) -> CrystalBatch:
    """Return the crystals of a file or folder that the environment could build.

    Args:
        path: what `crystal_env.dataset.read_structures` takes, or an npz file of crystals.
        report: CSV file to write, with the position and the reason of every entry that is left out.
        progress: show a bar with the time left, and what is left out.

    Raises:
        ValueError: if the file cannot be read, holds numbers that are in no table, or no crystal is left.
    """
    path = Path(path)
    if path.suffix == ".npz":
        crystals, index, skipped = CrystalBatch.load(path), None, {}
    else:
        tokenised = load_crystals(path, progress=progress)
        crystals, index, skipped = tokenised.crystals, tokenised.index, dict(tokenised.skipped)
    check_crystals(crystals)
    reasons = impossible(crystals)
    for row, reason in reasons.items():
        skipped[row if index is None else int(index[row])] = reason
    crystals = crystals[np.setdiff1d(np.arange(len(crystals)), list(reasons))]
    if not len(crystals):
        reason = f"; the first of {len(skipped)} was left out because {skipped[min(skipped)]}" if skipped else ""
        raise InputError(f"{path} holds no crystal to learn from{reason}")
    if report is not None:
        with report.open("w", newline="") as file:
            csv.writer(file).writerows([("entry", "reason"), *sorted(skipped.items())])
    if progress and skipped:
        named = f", see {report}" if report is not None else ""
        first = f"the first is entry {min(skipped)}: {skipped[min(skipped)]}"
        tqdm.write(f"{path.name}: {len(skipped)} of {len(skipped) + len(crystals)} entries left out{named}; {first}")
    return crystals


def impossible(crystals: CrystalBatch) -> dict[int, str]:
    """Return row -> reason for the crystals that the environment could not build."""
    rows, sites = np.arange(len(crystals)), crystals.n_sites()
    letters, _ = decision_masks(crystals, any_crystal())
    after = np.arange(N_SLOTS) >= sites[:, None]
    stray = (after & ((crystals.W > 0) | (crystals.A > 0) | crystals.XYZ.any(-1))).any(1)
    wrong = np.flatnonzero(~letters[rows, sites, 0] | stray)
    reasons = dict.fromkeys(wrong.tolist(), "its letters or elements are not possible")
    free, (alpha, beta) = tables().free_lattice[crystals.G], np.clip(crystals.L[:, 3:5], *ANGLE_BOUNDS).T
    low, high = gamma_bounds(alpha, beta).T
    outside = ((lattice_bins(crystals.L, crystals.n_atoms(), 24) < 0) & free).any(1)
    outside |= free[:, 5] & ((crystals.L[:, 5] < low) | (crystals.L[:, 5] > high))
    return reasons | dict.fromkeys(np.flatnonzero(outside).tolist(), "its lattice is out of bounds")
