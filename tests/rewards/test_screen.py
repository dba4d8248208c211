import numpy as np
import pytest

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.dataset import read_structures
from rewards.screen import Screen, cell_thickness


def iron(a: float) -> Crystal:
    return Crystal.from_string(f"229-a-Fe-0-0-0-X-{a}-{a}-{a}-90-90-90")


def test_known_crystals_pass(crystals):
    assert list(Screen()(crystals)) == [None] * 5


def test_every_limit_gives_its_reason():
    crystals = [
        iron(2.87),
        iron(1.5),
        iron(9.0),
        Crystal.from_string("221-c-O-0-1/2-1/2-d-O-1/2-0-0-X-4-4-4-90-90-90"),
        Crystal.from_string("1-a-H-0-0-0-a-H-0.1-0-0-X-4-4-4-90-90-90"),
        Crystal.from_string("1-a-Fe-0-0-0-X-10-10-0.5-90-90-90"),
        Crystal.from_string("229-l-H-0.1-0.2-0.3-l-H-0.4-0.2-0.3-l-H-0.1-0.4-0.45-X-20-20-20-90-90-90"),
        Crystal.from_string("230-h-H-0.1-0.2-0.3-h-H-0.4-0.2-0.3-h-H-0.1-0.4-0.45-X-20-20-20-90-90-90"),
    ]
    reasons = Screen(max_atoms=140)(CrystalBatch.from_crystals(crystals))
    assert reasons[0] is None
    assert reasons[1] == "1.69 Å^3 per atom, allowed are 2 to 300"
    assert reasons[2] == "364 Å^3 per atom, allowed are 2 to 300"
    assert reasons[3] is None
    assert reasons[4] == "two atoms are 0.4 Å apart, at least 0.5 is needed"
    assert reasons[5] == "the primitive cell is 0.5 Å thin, at least 1 is needed"
    assert reasons[6] == "144 atoms in the primitive cell, allowed are 1 to 140"
    assert reasons[7] == "144 atoms in the primitive cell, allowed are 1 to 140"


def test_crystal_without_atoms_or_cell_is_rejected():
    assert "0 atoms" in Screen()(CrystalBatch.empty(1))[0]
    assert Screen()(CrystalBatch.empty()).shape == (0,)


def test_thickness_is_the_shortest_distance_of_opposite_faces(crystals):
    lattice = np.array([atoms.cell.array for atoms in crystals.to_atoms()])
    reciprocal = np.linalg.inv(lattice).transpose(0, 2, 1)
    np.testing.assert_allclose(cell_thickness(crystals), 1 / np.linalg.norm(reciprocal, axis=-1).max(1))


def test_flat_skewed_cell_is_rejected_without_a_search():
    skewed = Crystal.from_string("2-a-Fe-0-0-0-X-60-60-60-0.6-0.6-0.6")
    assert "thin" in Screen(min_volume=0)(skewed.to_batch())[0]


def test_crystals_of_mp20_pass(data_folder):
    sources = list(read_structures(data_folder / "mp20_val.csv.gz"))[::5]
    crystals = CrystalBatch.from_structures(sources)
    assert len(crystals) == 1487
    assert set(Screen()(crystals)) == {None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_distance": -1}, "min_distance must be a finite number of at least 0, got -1"),
        ({"min_volume": 5.0, "max_volume": 4.0}, "max_volume must be a finite number above 5, got 4.0"),
        ({"max_atoms": 0}, "max_atoms must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_limits_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Screen(**arguments)
