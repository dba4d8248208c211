import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from crystal_env.crystal import Crystal
from crystal_env.geometry import lattice_vectors
from crystal_env.render import bonding


def surroundings(crystal: Crystal) -> bonding.Atoms:
    return bonding.atoms_around_cell(crystal, lattice_vectors(crystal.L[None])[0])


def test_atoms_on_faces_edges_and_corners_are_repeated(rock_salt):
    atoms = surroundings(rock_salt)
    assert np.bincount(atoms.numbers[atoms.core])[[11, 17]].tolist() == [14, 13]
    assert atoms.interior.sum() == 1


def test_polyhedra_are_the_coordination_of_the_cations(perovskite):
    atoms = surroundings(perovskite)
    (centre, ligands), *others = bonding.find_polyhedra(atoms, bonding.find_neighbours(atoms))
    assert not others
    assert atoms.numbers[centre] == 22
    assert atoms.numbers[ligands].tolist() == [8] * 6


def test_bonds_join_nearest_neighbours(rock_salt):
    atoms = surroundings(rock_salt)
    bonds = np.array(bonding.find_bonds(atoms, bonding.find_neighbours(atoms), atoms.core))
    lengths = np.linalg.norm(atoms.positions[bonds[:, 0]] - atoms.positions[bonds[:, 1]], axis=1)
    np.testing.assert_allclose(lengths, 2.82)
    assert len(bonds) == 54  # edges of a 3 x 3 x 3 net


def test_coordination_agrees_with_neighbour_lists_of_ase(wurtzite):
    atoms = surroundings(wurtzite)
    found = {len(partners) for partners in bonding.find_neighbours(atoms).values()}
    counts = np.bincount(neighbor_list("i", wurtzite.to_atoms(), 2.2))
    assert found == set(counts.tolist()) == {4}


def test_planar_ligands_are_found_and_metals_do_not_bond_to_metals():
    atoms = surroundings(Crystal.from_string("123-a-Pt-0-0-0-f-O-0-1/2-0-X-4-4-5-90-90-90"))
    assert not bonding.find_polyhedra(atoms, bonding.find_neighbours(atoms))  # none is complete in the cell
    alloy = surroundings(Crystal.from_string("221-a-Cu-0-0-0-b-Zn-1/2-1/2-1/2-X-3-3-3-90-90-90"))
    assert set(map(len, bonding.find_neighbours(alloy).values())) != {0}  # in a metal there is nothing else to show
    salt = surroundings(Crystal.from_string("221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.5-3.5-3.5-90-90-90"))
    for centre, partners in bonding.find_neighbours(salt).items():
        if salt.numbers[centre] != 8:
            assert set(salt.numbers[partners].tolist()) <= {8}


@pytest.mark.parametrize("length", [0.3, 1.0, 200.0])
def test_surroundings_stay_bounded(length):
    crystal = Crystal(1, [1], [55], [[0.1, 0.2, 0.3]], [length] * 3 + [80.0, 95.0, 100.0])
    atoms = surroundings(crystal)
    assert atoms.core.sum() == 1
    assert len(atoms.numbers) < 40_000
