"""The figure of merit of a dielectric: band gap times total dielectric constant."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult, without_failure
from rewards.distinct import once_per_crystal
from rewards.predict import Model, as_model, predict
from rewards.property import BAND_GAP_MODEL
from rewards.screen import Screen


class DielectricFoM:
    """Band gap in eV times total dielectric constant, as in the paper (arXiv:2504.02367, section III B).

    Terms are ``band_gap`` (eV, negative predictions count as 0), ``dielectric_constant`` and ``success``, 1 from
    ``threshold`` on. A crystal that fails the screen or breaks a model gets ``floor``, the terms 0 and a reason. The
    dielectric constant is a term of crystals without a gap too.

    Args:
        dielectric_model: folder of a matgl model, such as that of ``crystalgen property train``, or a callable from a
            list of ASE atoms to the total dielectric constant (B,) or to the six components (B, 6) of its tensor in
            the order xx, yy, zz, yz, xz, xy, whose mean eigenvalue is used.
        gap_model: folder or name of a matgl model, or a callable from a list of ASE atoms to gaps (B,) in eV.
        state: the fidelity of the gap: 0 PBE, 1 GLLB-SC, 2 HSE, 3 SCAN.
        threshold: figure of merit in eV that counts as success.
        floor: the lowest total, also that of a crystal that cannot be scored.
        max_dielectric: largest dielectric constant that is accepted, by default any. The paper's training data end at
            100; a value beyond is an extrapolation, and the crystal counts as one that cannot be scored.
        screen: limits that a crystal must meet before a model runs.

    Raises:
        ValueError: if a model is not a model, ``max_dielectric`` is not positive, or a number is not finite.
    """

    def __init__(
        self,
        dielectric_model: "str | Path | Model",
        gap_model: "str | Path | Model" = BAND_GAP_MODEL,
        state: int = 0,
        threshold: float = 100.0,
        floor: float = 0.0,
        max_dielectric: float | None = None,
        screen: Screen | None = None,
    ) -> None:
        limit = max_dielectric
        self.max_dielectric = None if limit is None else finite_number("max_dielectric", limit, above=0)
        self.threshold = finite_number("threshold", threshold)
        self.floor = finite_number("floor", floor)
        self.dielectric_model = as_model(dielectric_model)
        self.gap_model = as_model(gap_model, state=state) if isinstance(gap_model, str | Path) else as_model(gap_model)
        self.screen = screen or Screen()

    @once_per_crystal
    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        """Score B crystals; see the class for the terms."""
        gaps, failures = predict(self.gap_model, crystals, self.screen)
        rows = without_failure(failures)
        gap, dielectric, total = np.zeros(len(crystals)), np.zeros(len(crystals)), np.full(len(crystals), self.floor)
        gap[rows] = np.maximum(gaps[rows, 0], 0.0)
        if len(rows):
            outputs, failures[rows] = predict(self.dielectric_model, crystals[rows], None)
            dielectric[rows] = dielectric_constant(outputs)
        for row in np.flatnonzero(dielectric > (np.inf if self.max_dielectric is None else self.max_dielectric)):
            failures[row] = f"dielectric constant {dielectric[row]:.4g}, accepted are up to {self.max_dielectric:g}"
        scored = np.zeros(len(crystals), bool)
        scored[without_failure(failures)] = True
        gap, dielectric = np.where(scored, gap, 0.0), np.where(scored, dielectric, 0.0)
        total[scored] = np.maximum(gap * dielectric, self.floor)[scored]
        terms = {
            "band_gap": gap,
            "dielectric_constant": dielectric,
            "success": (scored & (total >= self.threshold)).astype(np.float64),
        }
        return RewardResult(total, terms, failures)


def dielectric_constant(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the dielectric constants (B,) of outputs (B, 1), or the mean eigenvalues of tensors (B, 6).

    The six components are xx, yy, zz, yz, xz, xy.

    Raises:
        ValueError: if there are neither one nor six numbers a crystal.
    """
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    if outputs.shape[1] != 6:
        raise InputError(f"a dielectric model must give 1 or 6 numbers a crystal, got {outputs.shape[1]}")
    tensors = outputs[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    known, mean = np.isfinite(outputs).all(1), np.full(len(outputs), np.nan)
    mean[known] = np.linalg.eigvalsh(tensors[known]).mean(1)
    return mean
