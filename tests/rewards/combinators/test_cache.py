import copy
import itertools
import pickle
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents
from crystal_env.reward import RewardResult
from rewards.combinators.cache import Cached, canonical_key, exact_keys
from rewards.validity import Validity


@dataclass
class Volume:
    """The volume per atom; it refuses iron, raises for gold, and counts the crystals it scores."""

    seen: list[int] = field(default_factory=list)

    def __call__(self, crystals: CrystalBatch) -> RewardResult:
        self.seen.append(len(crystals))
        if (crystals.A == 79).any():
            raise RuntimeError("gold")
        volume = crystals.volume_per_atom()
        iron = (crystals.A == 26).any(1)
        failures = np.where(iron, "iron", np.full(len(crystals), None, object))
        return RewardResult(np.where(iron, -5.0, volume), {"twice": 2 * volume, "success": (~iron) * 1.0}, failures)


def assert_equal(first: RewardResult, second: RewardResult) -> None:
    np.testing.assert_allclose(first.total, second.total, rtol=1e-9)
    assert first.terms.keys() == second.terms.keys()
    for name, values in first.terms.items():
        np.testing.assert_allclose(values, second.terms[name], rtol=1e-9)
    assert first.failures.tolist() == second.failures.tolist()


def gold(a: float = 4.08) -> Crystal:
    return Crystal.from_string(f"225-a-Au-0-0-0-X-{a}-{a}-{a}-90-90-90")


def wurtzite(a: float = 3.25, z: float = 0.382) -> Crystal:
    return Crystal.from_string(f"186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-{z}-X-{a}-{a}-5.21-90-90-120")


def test_crystals_are_scored_once_with_terms_and_failures(crystals):
    reward = Volume()
    cached = Cached(reward)
    for _ in range(3):
        assert_equal(cached(crystals), Volume()(crystals))
    assert_equal(cached(crystals[::-1]), Volume()(crystals[::-1]))
    assert reward.seen == [5]
    assert (cached.hits, cached.misses) == (15, 5)


def test_equal_crystals_of_one_batch_are_scored_once(crystals):
    reward = Volume()
    rows = [2, 0, 2, 4, 0, 0]
    assert_equal(Cached(reward)(crystals[rows]), Volume()(crystals[rows]))
    assert reward.seen == [3]


def test_other_settings_hit(mp20):
    reward = Volume()
    cached = Cached(reward)
    expected = cached(mp20)
    for seed in range(3):
        assert_equal(cached(equivalents(mp20, np.random.default_rng(seed))), expected)
    assert reward.seen == [len(mp20)]


def test_other_settings_miss_with_exact_keys(crystals):
    cached = Cached(Volume(), key="exact")
    cached(crystals)
    cached(crystals)
    assert (cached.hits, cached.misses) == (5, 5)
    swapped = Crystal.from_string("225-a-Cl-0-0-0-b-Na-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
    cached([swapped])
    assert cached.misses == 6


@pytest.mark.parametrize("other", [wurtzite(z=0.3822), wurtzite(a=3.2505), wurtzite(a=3.2495, z=0.3818)])
def test_crystals_beyond_the_rounding_have_different_keys(other):
    assert canonical_key(other) != canonical_key(wurtzite())


def test_keys_agree_exactly_where_rounded_coordinates_do():
    """Along a line of crystals the key changes once every step, and never goes back."""
    z = 0.38 + np.arange(400) * 1e-5
    keys = [canonical_key(wurtzite(z=f"{value:.6f}")) for value in z]
    assert len(set(keys)) == 41
    assert sum(a != b for a, b in itertools.pairwise(keys)) == 40
    coarse = [canonical_key(wurtzite(z=f"{value:.6f}"), coordinates=0.01) for value in z]
    assert len(set(coarse)) == 1


def test_lengths_are_rounded_relatively_and_angles_in_radians():
    def key(a=5.0, alpha=80.0):
        return canonical_key(Crystal.from_string(f"2-a-Na-0-0-0-X-{a}-6-7-{alpha}-85-88"), lengths=0.01)

    assert key() == key(a=5.0001) == key(alpha=80.001)
    assert len({key(), key(a=5.06), key(a=4.94), key(alpha=80.6), key(alpha=79.4)}) == 5


def test_coordinates_just_below_a_lattice_vector_wrap():
    def key(x):
        return canonical_key(Crystal.from_string(f"1-a-Na-0-0-0-a-Cl-{x}-0.3-0.6-X-4-5-6-80-85-88"))

    assert key("0.99999999") == key("0.00000001")


def test_crystals_without_a_cell_have_keys_too():
    broken = CrystalBatch.empty(3)
    broken.G[:], broken.W[:, 0], broken.A[:, 0] = 1, 1, 11
    broken.L[:] = [[np.nan] * 6, [0.0] * 6, [3, 3, 3, 10, 10, 150]]
    keys = [canonical_key(crystal) for crystal in broken]
    assert len(set(keys)) == 3
    assert keys == exact_keys(broken)
    cached = Cached(lambda crystals: crystals.L[:, 0], floor=-2.0)
    assert cached(broken).total.tolist() == [-2, 0, 3]


def test_absurd_cells_have_keys_at_once():
    absurd = CrystalBatch.empty(2)
    absurd.G[:], absurd.W[:, 0], absurd.A[:, 0] = 1, 1, 11
    absurd.L[:] = [[3.5e5, 13.8, 6600, 89.5, 95.3, 141.4], [5, 6, 7, 0.02, 0.02, 0.03]]
    start = time.perf_counter()
    assert len({canonical_key(crystal) for crystal in absurd}) == 2
    assert time.perf_counter() - start < 1


def test_failures_are_cached_and_exceptions_are_not(crystals):
    reward = Volume()
    cached = Cached(reward, floor=-1.0)
    batch = CrystalBatch.concatenate([crystals[4:], gold().to_batch()])
    with pytest.warns(RuntimeWarning, match="gold"):
        result = cached(batch)
    assert result.total.tolist() == [-5, -1]
    assert result.terms["success"].tolist() == [0, 0]
    assert result.failures.tolist() == ["iron", "RuntimeError: gold"]
    reward.seen.clear()
    assert cached(batch).failures.tolist() == ["iron", "RuntimeError: gold"]
    assert reward.seen == [1]


def test_crystal_not_seen_for_longest_is_forgotten(crystals):
    reward = Volume()
    cached = Cached(reward, size=3)
    for row in (0, 1, 2, 0, 3):  # 1 is forgotten
        cached(crystals[row : row + 1])
    reward.seen.clear()
    cached(crystals[[0, 2, 3]])
    assert reward.seen == []
    cached(crystals[[1]])
    assert reward.seen == [1]
    assert_equal(cached(crystals), Volume()(crystals))  # more than it can hold


def test_equal_crystals_are_found_without_a_canonical_form(crystals, monkeypatch):
    cached = Cached(Volume())
    cached(crystals)
    monkeypatch.setattr(Crystal, "canonical", None)
    cached(crystals)
    assert cached.hits == 5


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda cached: pickle.loads(pickle.dumps(cached))])
def test_copy_keeps_the_cache_and_is_independent(tmp_path, crystals, duplicate):
    cached = Cached(Validity(), path=tmp_path / "cache.sqlite", name="validity")
    cached(crystals[:3])
    other = duplicate(cached)
    assert_equal(other(crystals), Validity()(crystals))
    assert (cached.hits, cached.misses) == (0, 3)
    assert (other.hits, other.misses) == (3, 5)
    other.close()
    cached.close()


def test_remembered_crystal_costs_far_less_than_a_millisecond(mp20):
    cached = Cached(Volume())
    cached(mp20)
    start = time.perf_counter()
    for _ in range(20):
        cached(mp20)
    assert (time.perf_counter() - start) / (20 * len(mp20)) < 3e-4


def test_wrong_arguments_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match="size must be an integer of at least 1, got 0"):
        Cached(Volume(), size=0)
    with pytest.raises(ValueError, match="key must be one of"):
        Cached(Volume(), key="formula")
    with pytest.raises(ValueError, match="name must be given with path"):
        Cached(Volume(), path=tmp_path / "cache.sqlite")
