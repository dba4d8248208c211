"""The lower convex hull of one chemical system: its facets by qhull, single points by linear programming."""

import numpy as np
from numpy.typing import NDArray

_VERTICAL = 1e-7  # facets this steep are the walls of the simplex


def facet_potentials(compounds: NDArray[np.float64], formation: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the facets of the lower hull as chemical potentials.

    A facet is the plane through its phases. Written by its heights above the k elements, the chemical potentials, its
    height at fractions x (k,) is their dot product, and the hull is the highest of all facets.

    Args:
        compounds: fractions (M, k) of the compounds.
        formation: their formation energies (M,) in eV/atom, all negative. The elements, at zero, need no entry.

    Returns:
        chemical potentials (F, k) in eV/atom, or None if qhull cannot tell the facets.
    """
    from scipy.spatial import ConvexHull, QhullError

    n_elements = compounds.shape[1]
    if not len(compounds):
        return np.zeros((1, n_elements))
    top = np.full((1, n_elements), 1 / n_elements)  # a point above all others closes the hull
    fractions = np.concatenate([np.eye(n_elements), compounds, top])
    heights = np.concatenate([np.zeros(n_elements), formation, [1.0]])
    try:
        equations = ConvexHull(np.column_stack([fractions[:, 1:], heights])).equations
    except QhullError:
        return None
    normal, offset = equations[:, :-1], equations[:, -1:]
    lower = normal[:, -1] < -_VERTICAL
    at_elements = np.column_stack([np.zeros(len(normal)), normal[:, :-1]]) + offset
    potentials: NDArray[np.float64] = -at_elements[lower] / normal[lower, -1:]
    return potentials


def lowest_energy(
    fractions: NDArray[np.float64], compounds: NDArray[np.float64], formation: NDArray[np.float64]
) -> float:
    """Return the lowest formation energy in eV/atom of a mixture of phases with the given fractions (k,).

    The arguments are those of `facet_potentials`.

    Raises:
        ArithmeticError: if the linear program cannot be solved.
    """
    from scipy.optimize import linprog

    phases = np.concatenate([np.eye(len(fractions)), compounds])
    cost = np.concatenate([np.zeros(len(fractions)), formation])
    solution = linprog(cost, A_eq=phases.T, b_eq=fractions, method="highs")
    if not solution.success:
        raise ArithmeticError(f"no energy of the hull at {fractions.tolist()}: {solution.message}")
    return float(solution.fun)
