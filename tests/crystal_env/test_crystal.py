import dataclasses

import numpy as np
import pytest
from ase import Atoms
from pymatgen.core import Composition, Element, Structure

from crystal_env.crystal import Crystal, CrystalBatch, as_batch
from crystal_env.wyckoff import N_SLOTS

VALID = {"G": 225, "W": [1, 2], "A": [11, 17], "XYZ": [[0, 0, 0], [0.5, 0.5, 0.5]], "L": [5.64] * 3 + [90] * 3}


def equal(first: CrystalBatch, second: CrystalBatch) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("G", "W", "A", "XYZ", "L"))


def test_an_integer_index_gives_a_crystal(batch, perovskite):
    for index in (1, -2, np.int64(1)):
        assert isinstance(batch[index], Crystal)
        assert batch[index] == perovskite
    with pytest.raises(IndexError):
        batch[3]


def test_slices_masks_and_index_arrays_give_batches(batch, wurtzite):
    for index in (slice(2, 3), np.array([False, False, True]), np.array([2]), [2]):
        part = batch[index]
        assert isinstance(part, CrystalBatch)
        assert list(part) == [wurtzite]
    assert len(batch[:0]) == 0


def test_a_batch_iterates_over_its_crystals(batch, rock_salt, perovskite, wurtzite):
    assert list(batch) == [rock_salt, perovskite, wurtzite]
    assert equal(CrystalBatch.from_crystals(iter(batch)), batch)


def test_concatenate_keeps_the_order(batch):
    assert equal(CrystalBatch.concatenate([batch[:1], batch[1:]]), batch)
    assert len(CrystalBatch.concatenate([])) == 0
    assert len(CrystalBatch.from_crystals([])) == 0


def test_save_and_load_give_the_same_batch(batch, tmp_path):
    batch.save(tmp_path / "crystals.npz")
    assert equal(CrystalBatch.load(tmp_path / "crystals.npz"), batch)


def test_load_names_missing_arrays(tmp_path):
    np.savez(tmp_path / "other.npz", G=np.zeros(1), W=np.zeros((1, N_SLOTS)))
    with pytest.raises(ValueError, match=r"lacks the arrays \['A', 'L', 'XYZ'\]"):
        CrystalBatch.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("name", "shape"), [("G", (3, 1)), ("W", (3, 20)), ("A", (2, 21)), ("XYZ", (3, 21, 2)), ("L", (3, 3))]
)
def test_a_batch_refuses_arrays_of_the_wrong_shape(batch, name, shape):
    with pytest.raises(ValueError, match="must have shape"):
        dataclasses.replace(batch, **{name: np.zeros(shape)})


def test_as_batch_takes_crystals_and_batches(batch):
    assert as_batch(batch) is batch
    assert equal(as_batch(list(batch)), batch)


def test_counts_and_compositions_agree_with_pymatgen(mp20):
    for primitive in (True, False):
        structures = mp20.to_structures(primitive)
        assert mp20.n_atoms(primitive).tolist() == [len(s) for s in structures]
        for counts, structure in zip(mp20.composition(primitive), structures, strict=True):
            expected = {Element.from_Z(int(z)): int(counts[z]) for z in np.flatnonzero(counts)}
            assert Composition(expected) == structure.composition


def test_formula_is_the_reduced_formula_of_pymatgen(mp20):
    assert [c.formula for c in mp20] == [s.composition.reduced_formula for s in mp20.to_structures()]


def test_number_of_sites_does_not_count_pads(batch):
    assert batch.n_sites().tolist() == [2, 3, 2]
    assert [c.letters for c in batch] == ["ab", "abc", "bb"]


def test_to_structure_and_to_atoms_hold_the_same_atoms(rock_salt):
    structure, atoms = rock_salt.to_structure(), rock_salt.to_atoms(primitive=False)
    assert isinstance(structure, Structure)
    assert isinstance(atoms, Atoms)
    np.testing.assert_allclose(structure.frac_coords, atoms.get_scaled_positions(), atol=1e-12)
    assert [site.specie.Z for site in structure] == atoms.numbers.tolist()
    assert len(rock_salt.to_atoms()) == 2
    assert atoms.pbc.all()


def test_equal_crystals_have_equal_hashes(rock_salt, perovskite):
    again = Crystal.from_string(str(rock_salt))
    assert again == rock_salt
    assert len({again, rock_salt, perovskite}) == 2
    assert rock_salt != "225-a-Na"


def test_a_crystal_does_not_share_its_arrays():
    W = np.array(VALID["W"])
    crystal = Crystal(**{**VALID, "W": W})
    W[0] = 5
    assert crystal.W.tolist() == [1, 2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        crystal.G = 1


def test_repr_is_short(rock_salt, batch):
    assert repr(rock_salt) == "Crystal(NaCl, G=225, letters='ab')"
    assert repr(batch) == "<CrystalBatch of 3 crystals>"


def test_a_structure_that_cannot_be_represented_stops_the_batch(rock_salt):
    with pytest.raises(ValueError, match="structure 1: no such structure file"):
        CrystalBatch.from_structures([rock_salt.to_structure(), "missing.cif"])


def test_skipped_structures_are_reported_with_index_and_reason(rock_salt, perovskite):
    structures = ["missing.cif", rock_salt.to_structure(), Atoms(pbc=True), perovskite.to_atoms()]
    with pytest.warns(UserWarning, match="skipped structure") as record:
        batch = CrystalBatch.from_structures(structures, on_error="skip")
    assert [c.formula for c in batch] == ["NaCl", "SrTiO3"]
    assert [str(w.message) for w in record] == [
        "skipped structure 0: no such structure file: missing.cif",
        "skipped structure 2: structure is empty: it has no atoms",
    ]
    assert {w.filename for w in record} == {__file__}


def test_a_function_gets_index_and_reason_of_skipped_structures(rock_salt):
    skipped = {}
    batch = CrystalBatch.from_structures(["missing.cif", rock_salt.to_structure()], on_error=skipped.__setitem__)
    assert len(batch) == 1
    assert list(skipped) == [0]
    assert isinstance(skipped[0], ValueError)


def test_files_of_any_name_are_saved_and_other_files_refused(batch, tmp_path):
    batch.save(tmp_path / "crystals")
    assert len(CrystalBatch.load(tmp_path / "crystals")) == len(batch)
    (tmp_path / "words.npz").write_text("no archive")
    for name in ("words.npz", "nothing"):
        with pytest.raises(ValueError, match="is no file of crystals"):
            CrystalBatch.load(tmp_path / name)
