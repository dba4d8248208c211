import itertools
import pickle
import time

import numpy as np
import pytest
from smact.screening import smact_validity

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.elements import SYMBOLS
from rewards.hull.formulas import parse_formula
from rewards.validity import Validity, composition_is_valid


def key(formula: str) -> tuple[tuple[int, int], ...]:
    counts = parse_formula(formula)
    counts //= np.gcd.reduce(counts)
    return tuple((int(z), int(counts[z])) for z in np.flatnonzero(counts))


def smact(formula: str, oxidation_states: str) -> bool:
    return smact_validity(formula, use_pauling_test=True, include_alloys=True, oxidation_states_set=oxidation_states)


def cubic(element: str, a: float) -> Crystal:
    return Crystal.from_string(f"221-a-{element}-0-0-0-X-{a}-{a}-{a}-90-90-90")


def test_known_crystals_are_valid(crystals):
    result = Validity()(crystals[[0, 1, 2, 4]])
    assert result.total.tolist() == [1, 1, 1, 1]
    assert result.success().all()
    assert list(result.failures) == [None] * 4


def test_terms_tell_what_is_wrong(crystals):
    close = Crystal.from_string("1-a-Na-0-0-0-a-Cl-0.1-0-0-X-4-4-4-90-90-90")
    charged = Crystal.from_string("225-a-Na-0-0-0-c-F-1/4-1/4-1/4-X-5.5-5.5-5.5-90-90-90")
    result = Validity()([close, charged, crystals[0]])
    assert result.terms["structural"].tolist() == [0, 1, 1]
    assert result.terms["compositional"].tolist() == [1, 0, 1]
    assert result.total.tolist() == result.terms["success"].tolist() == [0, 0, 1]


def test_images_of_an_atom_count_as_neighbours():
    assert Validity()([cubic("Cu", 0.48), cubic("Cu", 0.52)]).terms["structural"].tolist() == [0, 1]


def test_structural_validity_is_a_brute_force_search(random_cells):
    atoms = random_cells.to_atoms()
    images = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    expected = []
    for a in atoms:
        difference = a.positions[:, None, None] - a.positions[None, :, None] + images @ a.cell.array
        distance = np.linalg.norm(difference, axis=-1)
        expected.append(distance[distance > 1e-6].min() >= 1.2)
    assert 0 < sum(expected) < len(expected)
    assert Validity(min_distance=1.2)(random_cells).terms["structural"].tolist() == expected


@pytest.fixture
def random_cells() -> CrystalBatch:
    rng = np.random.default_rng(0)
    cells = []
    for _ in range(40):
        sites = "".join(f"-a-Na-{x:.6f}-{y:.6f}-{z:.6f}" for x, y, z in rng.random((4, 3)))
        lattice = "-".join(f"{v:.6f}" for v in (*rng.uniform(2, 7, 3), *rng.uniform(70, 110, 3)))
        cells.append(Crystal.from_string(f"1{sites}-X-{lattice}"))
    return CrystalBatch.from_crystals(cells)


@pytest.mark.parametrize("oxidation_states", ["smact14", "icsd16", "icsd24"])
def test_compositional_validity_is_smacts_own(oxidation_states):
    rng = np.random.default_rng(0)
    symbols = np.array(SYMBOLS)[
        [1, 2, 3, 5, 6, 7, 8, 9, 11, 13, 14, 15, 16, 17, 20, 22, 26, 29, 33, 34, 36, 51, 54, 57]
    ]
    formulas = ["NaCl", "SrTiO3", "Fe3O4", "CO", "H2O", "He", "NaHe", "CuAl", "XeF2", "NaO"]
    for k in (2, 3, 4, 5):
        for _ in range(150):
            amounts = rng.integers(1, 7, k)
            chosen = rng.choice(symbols, k, replace=False)
            formulas.append("".join(f"{symbol}{amount}" for symbol, amount in zip(chosen, amounts, strict=True)))
    valid = [composition_is_valid(key(formula), oxidation_states) for formula in formulas]
    assert valid == [smact(formula, oxidation_states) for formula in formulas]
    assert 0 < sum(valid) < len(valid)


def test_compositional_validity_on_mp20_is_smacts_own(mp20, mp20_rows):
    expected = [smact(formula, "smact14") for formula in mp20_rows["formula"]]
    assert Validity()(mp20).terms["compositional"].astype(bool).tolist() == expected


def test_twenty_elements_take_no_longer_than_fifty_milliseconds():
    numbers = [*range(22, 29), *range(40, 47), 7, 15, 16, 17, 34, 35]  # transition metals and anions
    composition = tuple((z, 191 - 9 * i) for i, z in enumerate(numbers))
    composition_is_valid(composition, "icsd16")
    composition_is_valid.cache_clear()
    start = time.process_time()
    composition_is_valid(composition, "icsd16")
    assert time.process_time() - start < 0.05


def test_elements_beyond_smacts_data_are_valid_alone_only():
    assert composition_is_valid(((118, 1),))
    assert not composition_is_valid(((8, 1), (118, 1)))


def test_order_of_crystals_is_kept_and_empty_batch_works(crystals, random_cells):
    mixed = CrystalBatch.concatenate([crystals, random_cells])
    order = np.random.default_rng(0).permutation(len(mixed))
    np.testing.assert_array_equal(Validity()(mixed[order]).total, Validity()(mixed).total[order])
    assert Validity()([]).total.shape == (0,)


def test_cell_without_atoms_or_volume_is_not_valid(crystals):
    flat = Crystal.from_string("2-a-Fe-0-0-0-X-60-60-60-0.06-0.06-0.06")
    result = Validity()(CrystalBatch.concatenate([CrystalBatch.empty(1), crystals[:1], flat.to_batch()]))
    assert result.terms["structural"].tolist() == [0, 1, 0]
    assert result.total.tolist() == [0, 1, 0]


def test_reward_can_be_pickled(crystals):
    assert pickle.loads(pickle.dumps(Validity(0.6, "icsd24")))(crystals).total.shape == (5,)


def test_wrong_arguments_are_value_errors():
    with pytest.raises(ValueError, match="min_distance must be a finite number above 0, got 0"):
        Validity(min_distance=0)
    with pytest.raises(ValueError, match=r"one of \('smact14', 'icsd16', 'icsd24'\), got 'wiki'"):
        Validity(oxidation_states="wiki")
