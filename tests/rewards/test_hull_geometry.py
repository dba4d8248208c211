import numpy as np
import pytest

from rewards.hull_geometry import facet_potentials, lowest_energy


@pytest.mark.parametrize("n_elements", [2, 3, 4, 5])
def test_facets_and_linear_programs_give_the_same_energies(n_elements):
    rng = np.random.default_rng(n_elements)
    for n_compounds in (1, 2, 10, 40):
        compounds = rng.dirichlet(np.ones(n_elements), n_compounds)
        formation = -rng.random(n_compounds)
        potentials = facet_potentials(compounds, formation)
        points = rng.dirichlet(np.ones(n_elements), 20)
        expected = [lowest_energy(point, compounds, formation) for point in points]
        np.testing.assert_allclose((points @ potentials.T).max(1), expected, atol=1e-9)


def test_binary_hull_is_the_lower_envelope():
    compounds, formation = np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([-1.0, -0.2])
    potentials = facet_potentials(compounds, formation)
    points = np.array([[0.5, 0.5], [0.25, 0.75], [0.75, 0.25], [1, 0], [0, 1]])
    np.testing.assert_allclose((points @ potentials.T).max(1), [-1, -0.5, -0.5, 0, 0], atol=1e-12)


def test_without_compounds_the_hull_is_the_plane_of_the_elements():
    assert facet_potentials(np.zeros((0, 3)), np.zeros(0)).tolist() == [[0, 0, 0]]


def test_compounds_on_one_plane_are_no_difficulty():
    compounds = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3], [0.25, 0.25, 0.5]])
    potentials = facet_potentials(compounds, np.full(5, -1.0))
    assert (compounds @ potentials.T).max(1) == pytest.approx(np.full(5, -1.0))
