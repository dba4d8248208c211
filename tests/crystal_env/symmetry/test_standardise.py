import logging
import warnings

import numpy as np
import pytest
import spglib
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystal_env.crystal import Crystal
from crystal_env.symmetry.standardise import standardise
from crystal_env.wyckoff import tables

TWO_ORIGINS = (48, 50, 59, 68, 70, 85, 86, 88, 125, 126, 129, 130, 133, 134, 137, 138, 141, 142, 201, 203, 222, 224,
               227, 228)  # fmt: skip
RHOMBOHEDRAL = (146, 148, 155, 160, 161, 166, 167)


def structure_from(lattice: np.ndarray, frac: np.ndarray, numbers: np.ndarray) -> Structure:
    return Structure(lattice, numbers.tolist(), frac)


def parsed(cif: str) -> Structure:
    with warnings.catch_warnings():  # pymatgen tells of rounded coordinates
        warnings.simplefilter("ignore", UserWarning)
        return Structure.from_str(cif, fmt="cif")


def spglib_cell(cif: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
    structure = parsed(cif)
    return structure.lattice.matrix, structure.frac_coords, [site.specie.Z for site in structure]


def same_material(first: Structure, second: Structure) -> bool:
    return StructureMatcher(scale=False, ltol=0.01, stol=0.02, angle_tol=0.5).fit(first, second)


@pytest.mark.parametrize("primitive", [True, False])
def test_every_group_is_recovered_with_equivalent_letters(random_crystal, primitive):
    rng = np.random.default_rng(3)
    for G in range(1, 231):
        crystal = random_crystal(G, rng)
        again = Crystal.from_structure(crystal.to_structure(primitive))
        assert again.key() == crystal.key(), crystal


@pytest.mark.parametrize("G", TWO_ORIGINS)
def test_origin_choice_one_becomes_origin_choice_two(random_crystal, G, spglib_operations):
    rng = np.random.default_rng(G)
    crystal = random_crystal(G, rng)
    inversion = next(t for R, t in zip(*spglib_operations(G), strict=True) if (np.eye(3) == -R).all())
    assert not inversion.any()  # origin choice 2 has the inversion centre at the origin
    structure = crystal.to_structure()
    for origin in ([0.25, 0.25, 0.25], [0.125, 0.125, 0.125], [0.25, 0.75, 0.25], rng.random(3)):
        moved = structure.copy()
        moved.translate_sites(range(len(moved)), origin, frac_coords=True)
        again = Crystal.from_structure(moved)
        assert again.key() == crystal.key()
        assert same_material(again.to_structure(primitive=True), crystal.to_structure(primitive=True))


@pytest.mark.parametrize("G", RHOMBOHEDRAL)
def test_rhombohedral_axes_become_hexagonal_ones(random_crystal, G):
    crystal = random_crystal(G, np.random.default_rng(G))
    rhombohedral = crystal.to_structure(primitive=True)
    a, b, c = rhombohedral.lattice.abc
    assert a == pytest.approx(b)
    assert b == pytest.approx(c)
    again = Crystal.from_structure(rhombohedral)
    assert again.L[3:].tolist() == [90, 90, 120]
    np.testing.assert_allclose(again.L[:3], crystal.L[:3], rtol=1e-6)
    assert again.key() == crystal.key()


def test_cell_origin_order_and_orientation_do_not_matter(mp20, disguise):
    rng = np.random.default_rng(4)
    for crystal in mp20[:100]:
        again = Crystal.from_structure(structure_from(*disguise(crystal, rng)))
        assert again.key() == crystal.key(), crystal


def test_noise_below_the_tolerance_does_not_matter(mp20):
    rng = np.random.default_rng(5)
    symprec = 0.02
    for crystal in mp20[:100]:
        atoms = crystal.to_atoms()
        step = rng.normal(size=(len(atoms), 3))
        atoms.positions += 0.25 * symprec * step / np.linalg.norm(step, axis=1, keepdims=True)
        again, expected = (Crystal.from_structure(a, symprec) for a in (atoms, crystal.to_atoms()))
        assert again.key() == expected.key(), crystal


def test_decoded_crystals_are_the_originals(mp20_cifs, mp20):
    for cif, crystal in zip(mp20_cifs[:40], mp20[:40], strict=True):
        original = parsed(cif)
        assert same_material(original, crystal.to_structure()), crystal
        assert same_material(original, crystal.to_structure(primitive=True)), crystal


def test_groups_agree_with_spglib(mp20_cifs, mp20):
    with warnings.catch_warnings():  # spglib announces another way to report errors
        warnings.simplefilter("ignore", DeprecationWarning)
        groups = [spglib.get_symmetry_dataset(spglib_cell(cif), symprec=0.01).number for cif in mp20_cifs[:100]]
    assert np.mean(np.array(groups) == mp20.G[:100]) >= 0.98


def test_primitive_cells_hold_as_many_atoms_as_spglibs(mp20_cifs, mp20):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sizes = [len(spglib.find_primitive(spglib_cell(cif), symprec=0.01)[2]) for cif in mp20_cifs[:100]]
    assert mp20[:100].n_atoms(primitive=True).tolist() == sizes


def test_sites_lie_on_their_letters(mp20):
    T = tables()
    for crystal in mp20:
        R, t = T.projection[crystal.G, crystal.W, :, :3], T.projection[crystal.G, crystal.W, :, 3]
        off = np.einsum("nij,nj->ni", R, crystal.XYZ) + t - crystal.XYZ
        np.testing.assert_allclose(off, np.rint(off), atol=1e-9)


def test_tokenising_twice_changes_nothing(mp20):
    for crystal in mp20[:100]:
        again = Crystal.from_structure(crystal.to_structure())
        assert again.G == crystal.G
        assert again.key() == crystal.key()


def test_all_forms_of_a_structure_give_the_same_crystal(perovskite, tmp_path):
    structure = perovskite.to_structure()
    path = tmp_path / "perovskite.cif"
    structure.to(filename=str(path))
    forms = [structure, perovskite.to_atoms(primitive=False), path, str(path), path.read_text()]
    for crystal in map(Crystal.from_structure, forms):
        assert (crystal.G, crystal.letters, crystal.A.tolist()) == (221, "abc", [38, 22, 8])
        np.testing.assert_allclose(crystal.XYZ, perovskite.XYZ, atol=1e-9)
        np.testing.assert_allclose(crystal.L, perovskite.L, atol=1e-6)


def test_crystals_are_the_same_from_left_handed_cells(mp20):
    for crystal in mp20[:30]:
        atoms = crystal.to_batch().expand(primitive=True)
        order = [1, 0, 2]
        mirrored = structure_from(atoms.lattice[0][order], atoms.frac[:, order], atoms.numbers)
        assert Crystal.from_structure(mirrored).key() == crystal.key()


def cubic(n: int, rng: np.random.Generator) -> Structure:
    return Structure(Lattice.cubic(4.0 * n ** (1 / 3)), ["Na"] * n, rng.random((n, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rng: cubic(21, rng), "structure has 21 inequivalent sites, at most 20 can be represented"),
        (lambda rng: Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]), "structure is disordered"),
        (lambda rng: Atoms(pbc=True, cell=[4, 4, 4]), "structure is empty"),
        (lambda rng: Atoms("Na", [[np.nan, 0, 0]], pbc=True, cell=[4, 4, 4]), "not finite"),
        (lambda rng: Atoms("Na", [[0, 0, 0]], pbc=True, cell=[4, 4, np.inf]), "not finite"),
        (lambda rng: Atoms("Na", pbc=True), "lattice vectors must be 0.1 to 10000.0 Å long"),
        (lambda rng: Atoms("Na", pbc=True, cell=[1e-9, 4, 4]), "lattice vectors must be"),
        (lambda rng: Atoms("Na", pbc=True, cell=[4, 1e12, 4]), "lattice vectors must be"),
        (lambda rng: Atoms("Na", pbc=True, cell=[[4, 0, 0], [0, 4, 0], [4, 4, 1e-9]]), "three lattice vectors"),
        (lambda rng: Atoms("Na", pbc=True, cell=[[4, 0, 0], [4, 0, 0], [0, 0, 4]]), "three lattice vectors"),
        (lambda rng: Atoms("Na2", [[0, 0, 0], [0, 0, 1e-4]], pbc=True, cell=[4, 4, 4]), "overlapping atoms"),
        (lambda rng: Atoms("Na2", [[0, 0, 0], [0, 0, 0]], pbc=True, cell=[4, 4, 4]), "overlapping atoms"),
        (lambda rng: Atoms("NaCl", [[0, 0, 0], [0, 0, 0]], pbc=True, cell=[4, 4, 4]), "overlapping atoms"),
        (lambda rng: Atoms("Na", pbc=[True, True, False], cell=[4, 4, 4]), "periodic along all three axes"),
        (lambda rng: Atoms("X", pbc=True, cell=[4, 4, 4]), "atomic numbers must be 1 to 118"),
        (lambda rng: Structure(Lattice.cubic(4), ["X0+"], [[0, 0, 0]]), "sites that are no elements"),
        (lambda rng: "data_nothing\n_cell_length_a 4\n", "CIF text cannot be read as a structure"),
        (lambda rng: "missing.cif", "no such structure file: missing.cif"),
        (lambda rng: "", "no such structure file"),
        (lambda rng: 3, "must be a pymatgen Structure, ASE Atoms, CIF text or a path, got int"),
        (lambda rng: None, "got NoneType"),
    ],
)
def test_what_cannot_be_represented_is_refused_with_the_reason(make, message):
    with pytest.raises(ValueError, match=message):
        Crystal.from_structure(make(np.random.default_rng(0)))


def test_an_unreadable_file_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "broken.cif"
    path.write_text("this is no CIF")
    with pytest.raises(ValueError, match=r"broken\.cif cannot be read as a structure"):
        Crystal.from_structure(path)


@pytest.mark.parametrize("symprec", [0, -1, float("nan")])
def test_the_tolerance_must_be_positive(rock_salt, symprec):
    with pytest.raises(ValueError, match="symprec must be positive"):
        Crystal.from_structure(rock_salt.to_structure(), symprec)


def test_a_tolerance_as_large_as_the_distances_is_refused(rock_salt):
    with pytest.raises(ValueError, match=r"overlapping atoms: 2\.82 Å apart, less than twice the symprec of 1\.5 Å"):
        Crystal.from_structure(rock_salt.to_structure(), symprec=1.5)


def test_coordinates_far_outside_the_cell_are_brought_back(rock_salt):
    structure = rock_salt.to_structure()
    structure.translate_sites(range(len(structure)), [1e6, -1e6, 1e6], frac_coords=True, to_unit_cell=False)
    assert Crystal.from_structure(structure).key() == rock_salt.key()


def test_twenty_sites_can_be_represented():
    assert len(Crystal.from_structure(cubic(20, np.random.default_rng(1))).W) == 20


def test_tokenising_prints_nothing_and_leaves_the_log_as_it_was(rock_salt, capfd, caplog):
    supercell = rock_salt.to_structure() * (2, 1, 1)
    logger = logging.getLogger("moyo")
    assert not logger.disabled
    Crystal.from_structure(supercell)
    atoms = Atoms("Na2", [[0, 0, 0], [0, 0, 1e-4]], pbc=True, cell=[4, 4, 4])
    with pytest.raises(ValueError, match="overlapping"):
        standardise(atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers, 0.01)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not logger.disabled


CIF = """data_salt
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{group}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""


@pytest.mark.parametrize(
    ("group", "number"),
    [
        ("_symmetry_space_group_name_H-M 'F m -3 m'", 225),
        ("_symmetry_Int_Tables_number 225", 225),
        ("_symmetry_space_group_name_H-M 'P 1'", 221),
        ("", 221),
    ],
)
def test_space_group_of_a_cif_is_applied(group, number):
    assert number == Crystal.from_structure(CIF.format(group=group)).G


@pytest.mark.parametrize("group", ["F m 3 m", "Q q q"])
def test_a_cif_whose_space_group_cannot_be_read_is_no_other_crystal(group):
    with pytest.raises(ValueError, match=f"CIF gives _symmetry_space_group_name_H-M '{group}', but no symmetry"):
        Crystal.from_structure(CIF.format(group=f"_symmetry_space_group_name_H-M '{group}'"))
