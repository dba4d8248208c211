import numpy as np
import pytest
from ase.geometry import cellpar_to_cell
from ase.neighborlist import neighbor_list
from pymatgen.core import Structure

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.geometry import angle_volume, lattice_vectors
from crystal_env.wyckoff import tables


def atoms_of(structure: Structure) -> set[tuple[int, ...]]:
    points = np.rint(structure.frac_coords * 1e5).astype(int) % 100_000
    return {(site.specie.Z, *point) for site, point in zip(structure, points.tolist(), strict=True)}


@pytest.fixture(scope="module")
def one_of_each_group(random_crystal) -> CrystalBatch:
    rng = np.random.default_rng(1)
    return CrystalBatch.from_crystals(random_crystal(G, rng) for G in range(1, 231))


def test_lattice_vectors_are_those_of_ase(one_of_each_group):
    expected = [cellpar_to_cell(L) for L in one_of_each_group.L]
    np.testing.assert_allclose(lattice_vectors(one_of_each_group.L), expected, atol=1e-10)


def test_orthogonal_cells_have_exact_zeros():
    vectors = lattice_vectors(np.array([[3.0, 4.0, 5.0, 90.0, 90.0, 90.0]]))
    assert (vectors[0] == np.diag([3.0, 4.0, 5.0])).all()


def test_angle_volume_is_the_squared_volume_of_the_unit_cell():
    angles = np.array([[90.0, 90.0, 90.0], [60.0, 70.0, 80.0], [100.0, 110.0, 90.0]])
    cells = [cellpar_to_cell([1, 1, 1, *a]) for a in angles]
    np.testing.assert_allclose(angle_volume(angles), np.linalg.det(cells) ** 2)
    assert angle_volume(np.array([120.0, 120.0, 125.0])) < 0


def test_expand_applies_spglibs_operations_to_every_site(one_of_each_group, spglib_operations):
    for crystal in one_of_each_group:
        atoms = crystal.to_batch().expand()
        rotations, translations = spglib_operations(crystal.G)
        expected = set()
        for element, site in zip(crystal.A, crystal.XYZ, strict=True):
            images = np.rint((rotations @ site + translations) * 1e5).astype(int) % 100_000
            expected |= {(int(element), *image) for image in images.tolist()}
        found = np.rint(atoms.frac * 1e5).astype(int) % 100_000
        assert {(int(z), *point) for z, point in zip(atoms.numbers, found.tolist(), strict=True)} == expected, crystal
        assert atoms.counts.tolist() == [len(expected)], crystal


def test_expand_marks_the_representative_of_every_orbit(one_of_each_group):
    atoms = one_of_each_group.expand()
    assert atoms.is_site.sum() == one_of_each_group.n_sites().sum()
    sites = np.concatenate([crystal.XYZ for crystal in one_of_each_group])
    difference = atoms.frac[atoms.is_site] - sites
    np.testing.assert_allclose(difference, np.rint(difference), atol=1e-9)


def test_primitive_cells_hold_the_same_crystal(one_of_each_group):
    conventional, primitive = one_of_each_group.expand(), one_of_each_group.expand(primitive=True)
    centring = tables().n_centring[one_of_each_group.G]
    assert (primitive.counts * centring == conventional.counts).all()
    volume = np.abs(np.linalg.det(conventional.lattice)), np.abs(np.linalg.det(primitive.lattice))
    np.testing.assert_allclose(volume[0], volume[1] * centring)
    for crystal in one_of_each_group[tables().n_centring[one_of_each_group.G] > 1]:
        supercell = crystal.to_structure(primitive=True)
        supercell.make_supercell(np.rint(np.linalg.inv(tables().primitive_vectors[crystal.G])))
        conventional = crystal.to_structure()
        np.testing.assert_allclose(supercell.lattice.matrix, conventional.lattice.matrix, atol=1e-9)
        assert atoms_of(supercell) == atoms_of(conventional), crystal


def test_volume_per_atom_agrees_with_pymatgen(one_of_each_group):
    expected = [s.volume / len(s) for s in one_of_each_group.to_structures(primitive=True)]
    np.testing.assert_allclose(one_of_each_group.volume_per_atom(), expected, rtol=1e-9)


def test_min_distance_agrees_with_neighbour_lists_of_ase(one_of_each_group):
    cutoff = 3.0
    expected = [min([cutoff, *neighbor_list("d", atoms, cutoff)]) for atoms in one_of_each_group.to_atoms()]
    np.testing.assert_allclose(one_of_each_group.min_distance(cutoff), expected, atol=1e-9)


def test_min_distance_of_real_crystals_agrees_with_pymatgen(mp20):
    crystals = mp20[:60]
    expected = []
    for structure in crystals.to_structures():
        distances = structure.get_neighbor_list(4.0)[3]
        expected.append(min([4.0, *distances]))
    np.testing.assert_allclose(crystals.min_distance(4.0), expected, atol=1e-9)


def test_min_distance_sees_the_images_of_a_single_atom():
    crystal = Crystal.from_string("221-a-Po-0-0-0-X-2.5-2.5-2.5-90-90-90")
    assert crystal.to_batch().min_distance(3.0).tolist() == [2.5]
    flat = Crystal.from_string("2-a-Po-0-0-0-X-6-1.5-7-90-90-90")
    assert flat.to_batch().min_distance(3.0).tolist() == [1.5]


def test_min_distance_of_strongly_skewed_cells_agrees_with_ase():
    L = np.array([6.0, 7.0, 8.0, 40.0, 45.0, 30.0])
    crystal = Crystal(1, [1, 1], [11, 17], [[0.1, 0.2, 0.3], [0.6, 0.5, 0.7]], L)
    expected = min([5.0, *neighbor_list("d", crystal.to_atoms(), 5.0)])
    assert crystal.to_batch().min_distance(5.0)[0] == pytest.approx(expected, abs=1e-9)


def test_min_distance_does_not_look_beyond_the_cutoff(rock_salt):
    assert rock_salt.to_batch().min_distance(2.0).tolist() == [2.0]
    assert rock_salt.to_batch().min_distance(3.0)[0] == pytest.approx(2.82)


def test_empty_batches_have_no_atoms_and_no_distances():
    empty = CrystalBatch.empty()
    assert len(empty.min_distance()) == len(empty.volume_per_atom()) == len(empty.expand().numbers) == 0
