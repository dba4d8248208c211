"""Crystals with impossible contacts are sampled again, and nothing else changes."""

import numpy as np
import pytest

from agents import CrystalFormer
from agents.search.rejection import sample_accepted
from crystal_env import Crystal
from crystal_env.elements import covalent_radii

MODEL = CrystalFormer.from_pretrained("mp20")


def closest(crystal: Crystal) -> float:
    """The shortest contact by ASE's distances."""
    atoms = crystal.to_atoms() * (3, 3, 3)
    distances = atoms.get_all_distances(mic=True)
    np.fill_diagonal(distances, np.inf)
    radii = covalent_radii()[atoms.numbers]
    return float((distances / (radii[:, None] + radii)).min())


def test_contacts_are_those_of_ase():
    crystals = MODEL.sample([225, 62, 14, 1, 166, 2], seed=1, temperature=1.0)
    expected = [min(closest(crystal), 1.2) for crystal in crystals]
    np.testing.assert_allclose(crystals.min_contact(1.2), expected, rtol=1e-6)


def test_only_what_is_too_close_is_sampled_again():
    groups = np.tile([1, 2, 14, 62, 225], 12)
    plain = MODEL.sample(groups, seed=4, temperature=1.0)
    passed = plain.min_contact(0.65) >= 0.65
    accepted = sample_accepted(MODEL, groups, seed=4, temperature=1.0)
    assert 0 < passed.sum() < len(groups)
    assert (groups == accepted.crystals.G).all()
    for name in ("W", "A", "XYZ", "L"):
        ours, theirs = getattr(accepted.crystals, name), getattr(plain, name)
        np.testing.assert_array_equal(ours[passed], theirs[passed])
    assert accepted.failed == (accepted.crystals.min_contact(0.65) < 0.65).sum() < (~passed).sum() / 2
    assert accepted.sampled >= len(groups) + (~passed).sum()


def test_a_contact_that_is_out_of_reach_ends_after_the_tries():
    accepted = sample_accepted(MODEL, [225, 1], seed=0, min_contact=50.0, tries=3)
    assert (accepted.sampled, accepted.failed, len(accepted.crystals)) == (6, 2, 2)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^min_contact must"):
        sample_accepted(MODEL, [225], min_contact=0)
    with pytest.raises(ValueError, match=r"^tries must"):
        sample_accepted(MODEL, [225], tries=0)
