import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystal_env.crystal import Crystal
from crystal_env.symmetry import normaliser
from crystal_env.symmetry.canonical import prototype, wyckoff_template
from crystal_env.symmetry.standardise import standardise
from crystal_env.wyckoff import tables

HEAVY = [13, 14, 15, 24, 43, 70, 88, 110, 122, 141, 161, 167, 199, 214, 220, 230]


def assert_same(first: Crystal, second: Crystal) -> None:
    """The two settings are one, up to rounding."""
    assert first.G == second.G
    assert first.W.tolist() == second.W.tolist()
    assert first.A.tolist() == second.A.tolist()
    difference = first.XYZ - second.XYZ
    np.testing.assert_allclose(difference, np.rint(difference), atol=1e-4)
    np.testing.assert_allclose(first.L, second.L, atol=1e-3)


def same_material(first: Crystal, second: Crystal) -> bool:
    matcher = StructureMatcher(scale=False, ltol=0.01, stol=0.01, angle_tol=0.1)
    return matcher.fit(first.to_structure(primitive=True), second.to_structure(primitive=True))


def re_set(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """The same crystal after a random map of the normaliser, with random representatives and order of its sites."""
    T, G = tables(), crystal.G
    parts = normaliser.linear_parts(G)
    P = parts[rng.integers(min(len(parts), 200))]
    p, letters = normaliser.maps(G, P)
    which = rng.integers(len(p))
    W = letters[which][crystal.W]
    shift = p[which] + rng.random(3) * normaliser.polar_axes(G)
    rotations, shifts = normaliser.general_operations(G)
    XYZ = []
    for w, site in zip(W, crystal.XYZ, strict=True):
        orbit = rotations @ (P @ site + shift) + shifts / 24
        projected = orbit @ T.projection[G, w, :, :3].T + T.projection[G, w, :, 3]
        on_letter = np.abs(projected - orbit - np.rint(projected - orbit)).max(1) < 1e-9
        point = rng.permutation(projected[on_letter])[0]
        XYZ.append((point - np.floor(point)) % 1)
    order = rng.permutation(len(W))
    order = order[np.argsort(W[order], kind="stable")]
    vectors = np.linalg.inv(P).T @ crystal.to_structure().lattice.matrix
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ vectors.T / np.outer(lengths, lengths))[[1, 0, 0], [2, 2, 1]]
    L = np.concatenate([lengths, np.degrees(np.arccos(cosines))])
    L = np.where(T.lattice_angle[G] > 0, T.lattice_angle[G], L)
    return Crystal(G, W[order], crystal.A[order], np.array(XYZ)[order], L)


def test_rock_salt_is_one_crystal_whichever_ion_is_at_the_origin(rock_salt):
    swapped = Crystal.from_string("225-a-Cl-0-0-0-b-Na-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
    assert rock_salt.key() == swapped.key() == "225-a-Na-b-Cl"
    assert rock_salt.canonical() == swapped.canonical() == rock_salt


def test_rock_salt_and_its_relatives_have_different_keys(rock_salt):
    others = [
        "225-a-Na-0-0-0-c-Cl-1/4-1/4-1/4-X-5.64-5.64-5.64-90-90-90",  # antifluorite
        "216-a-Na-0-0-0-c-Cl-1/4-1/4-1/4-X-5.64-5.64-5.64-90-90-90",  # zinc blende
        "221-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-3.5-3.5-3.5-90-90-90",  # caesium chloride
        "225-a-K-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90",
    ]
    assert len({rock_salt.key(), *(Crystal.from_string(other).key() for other in others)}) == 5


def test_a_key_ignores_coordinates_and_lattice(wurtzite):
    other = Crystal.from_string("186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.4-X-3.5-3.5-5-90-90-120")
    assert other.key() == wurtzite.key()
    assert other.canonical() != wurtzite.canonical()


@pytest.mark.parametrize("G", range(1, 231))
def test_all_settings_of_a_crystal_have_one_key_and_canonical_form(random_crystal, G):
    rng = np.random.default_rng(G)
    crystal = random_crystal(G, rng)
    expected = crystal.canonical()
    for _ in range(3):
        other = re_set(crystal, rng)
        assert other.key() == crystal.key()
        assert wyckoff_template(other) == wyckoff_template(crystal)
        assert prototype(other) == prototype(crystal)
        assert_same(other.canonical(), expected)


@pytest.mark.parametrize("G", [*range(1, 16), *HEAVY])
def test_the_canonical_form_is_the_same_material(random_crystal, G):
    crystal = random_crystal(G, np.random.default_rng(G))
    assert same_material(crystal.canonical(), crystal)


def test_the_canonical_form_of_real_crystals_is_the_same_material(mp20):
    for crystal in mp20[:80]:
        assert same_material(crystal.canonical(), crystal), crystal


def test_the_canonical_form_of_a_canonical_form_is_itself(mp20):
    for crystal in mp20:
        assert_same(crystal.canonical().canonical(), crystal.canonical())
        assert crystal.canonical().key() == crystal.key()


def test_cell_origin_and_orientation_change_neither_key_nor_form(mp20, disguise):
    rng = np.random.default_rng(6)
    keys = forms = 0
    for crystal in mp20:
        again = Crystal(*standardise(*disguise(crystal, rng), symprec=0.01))
        keys += again.key() == crystal.key()
        try:
            assert_same(again.canonical(), crystal.canonical())
            forms += 1
        except AssertionError:
            pass
    assert keys >= 0.995 * len(mp20)
    assert forms >= 0.99 * len(mp20)


def test_axes_of_orthorhombic_cells_are_sorted_where_the_group_allows():
    crystal = Crystal.from_string("47-a-Na-0-0-0-b-Cl-1/2-0-0-X-5-4-3-90-90-90")
    assert str(crystal.canonical()) == "47-a-Na-0-0-0-c-Cl-0-0-0.5-X-3-4-5-90-90-90"
    assert crystal.key() == "47-a-Na-b-Cl"


def test_skewed_monoclinic_and_triclinic_cells_are_reduced():
    skewed = Crystal.from_string("10-a-Na-0-0-0-X-4-7-6.4031242374328485-90-38.65980825409009-90")
    np.testing.assert_allclose(skewed.canonical().L, [4, 7, np.sqrt(17), 90, 104.036243, 90], rtol=1e-6)
    rng = np.random.default_rng(7)
    for _ in range(20):
        lattice = np.eye(3) * 4 + rng.uniform(-2, 2, (3, 3))
        skewed = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]]) @ lattice
        lengths = [Crystal.from_structure(_one_atom(rows)).canonical().L for rows in (lattice, skewed)]
        np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-4)


def _one_atom(lattice: np.ndarray):
    from ase import Atoms

    return Atoms("Na", cell=lattice, pbc=True)


def test_polar_crystals_have_an_atom_at_zero(wurtzite):
    moved = Crystal.from_string("186-b-Zn-1/3-2/3-0.3-b-O-1/3-2/3-0.682-X-3.25-3.25-5.21-90-90-120")
    assert_same(moved.canonical(), wurtzite.canonical())
    assert 0 in wurtzite.canonical().XYZ[:, 2]


def test_mirror_images_count_as_the_same_crystal(random_crystal):
    rng = np.random.default_rng(8)
    for G in (1, 4, 19, 92, 152, 198, 213):
        crystal = random_crystal(G, rng)
        structure = crystal.to_structure()
        mirrored = structure.copy()
        mirrored.lattice = structure.lattice.__class__(structure.lattice.matrix * [-1, 1, 1])
        again = Crystal.from_structure(mirrored)
        if again.G == G:
            assert_same(again.canonical(), crystal.canonical())
        else:  # one of the eleven pairs
            assert (G, again.G) in {(92, 96), (152, 154), (213, 212)}


def test_coordinates_close_to_ties_do_not_tip_the_choice():
    rng = np.random.default_rng(9)
    string = "62-c-Ca-{}-1/4-{}-c-Ti-0.25-1/4-0.5-c-O-0.3-1/4-0.2-d-O-0.2-0.05-0.3-X-5.4-7.6-5.3-90-90-90"
    forms = []
    for _ in range(10):
        x, z = 0.5 + 1e-7 * rng.normal(), 0.5 + 1e-7 * rng.normal()
        forms.append(Crystal.from_string(string.format(x, z)).canonical())
    for form in forms[1:]:
        assert_same(form, forms[0])


def test_templates_and_prototypes_of_known_crystals(rock_salt, perovskite, wurtzite):
    crystals = [rock_salt, perovskite, wurtzite]
    assert [wyckoff_template(crystal) for crystal in crystals] == ["225-ab", "221-abc", "186-bb"]
    assert [prototype(crystal) for crystal in crystals] == ["225-AB-a-b", "221-ABC3-a-b-c", "186-AB-b-b"]
    magnesia = Crystal.from_string("225-a-O-0-0-0-b-Mg-1/2-1/2-1/2-X-4.2-4.2-4.2-90-90-90")
    assert prototype(magnesia) == prototype(rock_salt)


def test_a_template_of_two_prototypes_is_one_template():
    normal, mixed, inverse = (
        Crystal.from_string(f"227-a-{A}-1/8-1/8-1/8-d-{B}-1/2-1/2-1/2-e-{C}-1/4-1/4-1/4-X-8-8-8-90-90-90")
        for A, B, C in (("Mg", "Al", "O"), ("Al", "Mg", "O"), ("Al", "Al", "O"))
    )
    assert len({wyckoff_template(crystal) for crystal in (normal, mixed, inverse)}) == 1
    assert prototype(normal) == prototype(mixed)  # elements are anonymous
    assert [prototype(crystal) for crystal in (normal, inverse)] == ["227-AB2C4-a-d-e", "227-A3B4-ad-e"]


def test_formulas_of_prototypes_are_those_of_pymatgen(mp20):
    for crystal in mp20:
        composition = crystal.to_structure().composition
        assert prototype(crystal).split("-")[1] == composition.anonymized_formula, crystal
