import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from benchmarks.metrics.distribution import (
    amd_fingerprint,
    coverage,
    covered,
    distribution,
    divergence,
    vendi,
)
from crystal_env import Crystal, CrystalBatch
from crystal_env.symmetry.canonical import wyckoff_template
from crystal_env.symmetry.normaliser import letter_permutations
from crystal_env.wyckoff import tables

SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"
CSCL = "221-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"


def templates(batch):
    return [wyckoff_template(crystal) for crystal in batch]


def crystals(*made):
    texts = [text.format(a, b, *[length] * 3) for text, a, b, length in made]
    return CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])


SALTS = crystals((SALT, "Na", "Cl", 5.6), (SALT, "K", "Br", 6.6), (SALT, "Li", "F", 4.0), (CSCL, "Cs", "Cl", 4.1))


def test_divergence_is_that_of_scipy_and_zero_for_the_same():
    a, b = np.array([1, 1, 2, 3]), np.array([3, 3, 4])
    expected = jensenshannon(np.bincount(a, minlength=6), np.bincount(b, minlength=6), base=2) ** 2
    assert divergence(a, b, 6) == pytest.approx(expected)
    assert divergence(a, a, 6) == 0
    assert divergence(a[:2], b[:2], 6) == 1


def test_effective_number_of_equal_and_of_different_crystals():
    assert vendi(np.array([1.0])) == 1
    assert vendi(np.full(4, 0.25)) == pytest.approx(4)
    known = distribution(SALTS, SALTS)
    fractions = SALTS.composition() / np.linalg.norm(SALTS.composition(), axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(fractions @ fractions.T / 4)
    entropy = -sum(p * np.log(p) for p in eigenvalues if p > 1e-12)
    assert known["vendi_elements"] == pytest.approx(np.exp(entropy))
    assert known["vendi_templates"] == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_templates_ignore_elements_and_are_new_to_the_reference():
    found = distribution(SALTS, SALTS[:1])
    assert (found["templates"], found["new_template_fraction"]) == (2, 0.5)
    same = distribution(SALTS, SALTS)
    assert same["jsd_space_groups"] == same["jsd_elements"] == same["new_template_fraction"] == 0
    assert "jsd_elements" not in distribution(SALTS, SALTS[:0])
    assert distribution(SALTS[:0], SALTS) == {}


def test_template_depends_on_neither_setting_nor_elements():
    lattice = "X-5.0-5.0-5.0-90-90-90"
    texts = ["221-a-{}-0-0-0-b-{}-1/2-1/2-1/2-c-{}-0-1/2-1/2-", "221-a-{}-0-0-0-b-{}-1/2-1/2-1/2-d-{}-1/2-0-0-"]
    orders = [("Na", "K", "O"), ("K", "Na", "O"), ("O", "K", "Na")]
    made = [Crystal.from_string(text.format(*order) + lattice) for text in texts for order in orders]
    assert templates(CrystalBatch.from_crystals(made)) == ["221-abc"] * 6


def test_templates_are_the_letters_of_keys_where_all_elements_are_one():
    rng, batch = np.random.default_rng(0), CrystalBatch.empty(76)
    batch.G[:] = np.repeat(np.arange(3, 231, 6), 2)
    batch.W[:, :6] = rng.integers(1, tables().n_letters[batch.G][:, None] + 1, (76, 6))
    batch.A[:, :6] = 1
    other = CrystalBatch(batch.G, batch.W.copy(), np.where(batch.W > 0, 8, 0), batch.XYZ, batch.L)
    for row, G in enumerate(batch.G):
        other.W[row, :6] = rng.permutation(rng.choice(letter_permutations(G))[batch.W[row, :6]])
    keys = [crystal.key().split("-") for crystal in batch]
    assert templates(batch) == [f"{key[0]}-{''.join(key[1::2])}" for key in keys]
    assert templates(other) == templates(batch)


def test_rows_that_are_no_crystals_change_nothing():
    collapsed, gas = crystals((SALT, "Na", "Cl", 0.01), (SALT, "Na", "Cl", 200.0))
    odd = CrystalBatch.concatenate([SALTS, CrystalBatch.empty(2)])
    assert distribution(odd, SALTS) == distribution(SALTS, SALTS)
    assert distribution(CrystalBatch.empty(2), SALTS) == {}
    numbers = distribution(CrystalBatch.from_crystals([collapsed, gas]), SALTS)
    assert np.isfinite(list(numbers.values())).all()
    assert np.isfinite(amd_fingerprint(CrystalBatch.from_crystals([collapsed, gas]))).all()
    assert coverage(CrystalBatch.from_crystals([collapsed, gas]), SALTS, amd_fingerprint, 0.1) == (0, 0)


def test_fingerprint_is_that_of_the_crystal_and_not_of_its_setting():
    other = crystals((SALT, "Cl", "Na", 5.6), (SALT, "Na", "Cl", 5.7))
    mine = amd_fingerprint(crystals((SALT, "Na", "Cl", 5.6)))[0]
    prints = amd_fingerprint(other)
    assert prints[0] == pytest.approx(mine)
    assert np.linalg.norm(prints[1] - mine) > 0.01
    nearest = [2.8] * 6 + [2.8 * 2**0.5] * 12 + [2.8 * 3**0.5] * 6
    assert mine[:24] * 24**0.5 == pytest.approx(nearest)


def test_coverage_counts_both_ways():
    recall, precision = coverage(SALTS[:1], SALTS, amd_fingerprint, 1e-6)
    assert (recall, precision) == (0.25, 1)
    assert coverage(SALTS[:0], SALTS, amd_fingerprint, 1.0) == (0, 0)
    found = covered(SALTS, SALTS, SALTS[1:])
    assert (found["coverage_recall"], found["coverage_precision"]) == (1, 1)
    assert covered(SALTS[:1], SALTS, SALTS)["coverage_recall"] == 0.25


def test_absurd_cells_cost_no_time():
    flat = crystals((SALT, "Na", "Cl", 0.01), (SALT, "Na", "Cl", 200.0))
    assert (amd_fingerprint(flat)[0, :24] == 0).all()
    assert (amd_fingerprint(flat)[1, :24] > 1).all()
