"""Properties of crystals against handbooks, and distances between their distributions."""

import numpy as np

from benchmarks.model_card import plots
from crystal_env import Crystal, CrystalBatch

ROCK_SALT = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
PEROVSKITE = Crystal.from_string("221-a-Ti-0-0-0-b-Sr-1/2-1/2-1/2-d-O-1/2-0-0-X-3.9-3.9-3.9-90-90-90")


def batch(*crystals):
    return CrystalBatch.from_crystals(crystals)


def test_numbers_are_those_of_handbooks():
    numbers = plots.numbers(batch(ROCK_SALT, PEROVSKITE))
    np.testing.assert_allclose(numbers["density"], [2.16, 5.13], rtol=0.01)
    np.testing.assert_allclose(numbers["volume_per_atom"], [5.64**3 / 8, 3.9**3 / 5])
    assert numbers["n_atoms"].tolist() == [2, 5]
    assert numbers["n_elements"].tolist() == [2, 3]


def test_distances_are_zero_to_oneself_and_shift_with_the_numbers():
    assert set(plots.distances(batch(ROCK_SALT), batch(ROCK_SALT)).values()) == {0.0}
    apart = plots.distances(batch(ROCK_SALT), batch(PEROVSKITE))
    assert (apart["space_group"], apart["element"]) == (1.0, 1.0)
    assert (apart["n_sites"], apart["n_atoms"]) == (1.0, 3.0)
