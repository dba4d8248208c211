"""The lower convex hull at single compositions, by a batched simplex method."""

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-10
_SHIFT = 1e-11  # moves points off the faces of simplices, where the method could cycle
_MAX_STEPS = 500


def lowest_energies(
    fractions: NDArray[np.float64], phases: NDArray[np.float64], formation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the lowest formation energies (Q,) in eV/atom of mixtures of phases, one linear program per point.

    Every step of Dantzig's revised simplex method exchanges one phase of the mixture for the one deepest below the
    plane through its phases.

    Args:
        fractions: the points (Q, k), amounts of k elements, which sum to one.
        phases: fractions (Q, k, M) of the compounds of each problem; columns of zeros are padding.
        formation: their formation energies (Q, M) in eV/atom. The elements, at zero, need no entry.

    Raises:
        ArithmeticError: if a problem is not solved in 500 steps.
    """
    n_points, k = fractions.shape
    elements = np.broadcast_to(np.eye(k), (n_points, k, k))
    phases = np.concatenate([elements, phases], axis=2)
    formation = np.concatenate([np.zeros((n_points, k)), formation], axis=1)
    energies = np.zeros(n_points)
    inverse, cost = elements.copy(), np.zeros((n_points, k))
    amounts = fractions + _SHIFT * (1 + np.sqrt(np.arange(2, k + 2)) % 1)
    live = np.arange(n_points)
    for _ in range(_MAX_STEPS):
        potentials = (cost[:, None] @ inverse)[:, 0]  # (Q, k): heights of the plane above the elements
        depth = formation - (potentials[:, None] @ phases)[:, 0]
        enter = depth.argmin(1)
        open_ = depth[np.arange(len(live)), enter] < -_TOLERANCE
        energies[live[~open_]] = (potentials * fractions[live])[~open_].sum(1)
        live = live[open_]
        if not len(live):
            return energies
        if not open_.all():
            phases, formation, inverse, cost, amounts, enter = (
                array[open_] for array in (phases, formation, inverse, cost, amounts, enter)
            )
        rows = np.arange(len(live))
        _exchange(phases[rows, :, enter], formation[rows, enter], inverse, cost, amounts)
    raise ArithmeticError(f"no energy of the hull at {fractions[live[0]].tolist()} in {_MAX_STEPS} steps")


def _exchange(
    phase: NDArray[np.float64],
    energy: NDArray[np.float64],
    inverse: NDArray[np.float64],
    cost: NDArray[np.float64],
    amounts: NDArray[np.float64],
) -> None:
    """Let one phase (Q, k) of the given formation energy (Q,) enter each mixture, in place.

    A mixture is the inverse (Q, k, k) of the matrix whose columns are its phases, their energies (Q, k) and their
    amounts (Q, k).
    """
    rows = np.arange(len(phase))
    direction = (inverse @ phase[:, :, None])[:, :, 0]
    ratio = np.where(direction > _TOLERANCE, amounts / np.maximum(direction, _TOLERANCE), np.inf)
    leave = ratio.argmin(1)
    step = ratio[rows, leave]
    pivot = inverse[rows, leave] / direction[rows, leave, None]
    inverse -= direction[:, :, None] * pivot[:, None]
    inverse[rows, leave] = pivot
    amounts -= step[:, None] * direction
    amounts[rows, leave] = step
    cost[rows, leave] = energy
