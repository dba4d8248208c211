import numpy as np
import pytest
from scipy.optimize import linprog

import rewards.hull.lower_hull
from rewards.hull.lower_hull import lowest_energies


def scipy_energy(point, phases, formation):
    """The same linear program, solved by HiGHS."""
    k = len(point)
    phases, cost = np.column_stack([np.eye(k), phases]), np.concatenate([np.zeros(k), formation])
    return linprog(cost, A_eq=phases, b_eq=point, method="highs").fun


@pytest.mark.parametrize("k", [2, 3, 4, 5, 8])
def test_energies_are_those_of_scipys_linear_programs(k):
    rng = np.random.default_rng(k)
    for n_compounds in (1, 2, 10, 60):
        phases = rng.dirichlet(np.ones(k), (15, n_compounds)).transpose(0, 2, 1)
        formation = -rng.random((15, n_compounds))
        points = rng.dirichlet(np.ones(k), 15)
        expected = [scipy_energy(*problem) for problem in zip(points, phases, formation, strict=True)]
        np.testing.assert_allclose(lowest_energies(points, phases, formation), expected, atol=1e-9)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_points_on_phases_and_ties_are_no_difficulty(k):
    rng = np.random.default_rng(k)
    amounts = rng.integers(0, 4, (40, 30, k)) + np.eye(k, dtype=int)[rng.integers(k, size=(40, 30))]
    phases = (amounts / amounts.sum(2, keepdims=True)).transpose(0, 2, 1)
    formation = -rng.integers(1, 4, (40, 30)) / 4
    points = phases[:, :, 0]
    expected = [scipy_energy(*problem) for problem in zip(points, phases, formation, strict=True)]
    np.testing.assert_allclose(lowest_energies(points, phases, formation), expected, atol=1e-9)


def test_binary_hull_is_the_lower_envelope():
    points = np.array([[0.5, 0.5], [0.25, 0.75], [0.75, 0.25], [1, 0], [0, 1]])
    phases = np.broadcast_to([[0.5, 0.25], [0.5, 0.75]], (5, 2, 2))
    formation = np.broadcast_to([-1.0, -0.2], (5, 2))
    np.testing.assert_allclose(lowest_energies(points, phases, formation), [-1, -0.5, -0.5, 0, 0], atol=1e-9)


def test_without_compounds_the_hull_is_the_plane_of_the_elements():
    assert lowest_energies(np.array([[0.2, 0.3, 0.5]]), np.zeros((1, 3, 0)), np.zeros((1, 0))).tolist() == [0]


def test_solutions_depend_neither_on_the_batch_nor_on_padding():
    rng = np.random.default_rng(0)
    points, phases = rng.dirichlet(np.ones(3), 20), rng.dirichlet(np.ones(3), (20, 12)).transpose(0, 2, 1)
    formation = -rng.random((20, 12))
    together = lowest_energies(points, phases, formation)
    filled = np.pad(phases, ((0, 0), (0, 0), (0, 5))), np.pad(formation, ((0, 0), (0, 5)))
    np.testing.assert_allclose(lowest_energies(points, *filled), together, atol=1e-12)
    alone = [lowest_energies(*(a[i : i + 1] for a in (points, phases, formation)))[0] for i in range(20)]
    np.testing.assert_allclose(alone, together, atol=1e-12)


def test_problem_that_is_not_solved_in_time_is_an_arithmetic_error(monkeypatch):
    monkeypatch.setattr(rewards.hull.lower_hull, "_MAX_STEPS", 1)
    with pytest.raises(ArithmeticError, match=r"at \[0.5, 0.5\] in 1 steps"):
        lowest_energies(np.array([[0.5, 0.5]]), np.array([[[0.5], [0.5]]]), np.array([[-1.0]]))
