"""The projection keeps every symmetry, and changes nothing that is symmetric."""

import numpy as np
import pytest

from crystal_env.crystal import Crystal
from rewards.relaxation.fire import FireState
from rewards.relaxation.symmetry_projection import symmetry_projection

STRINGS = (
    "62-b-Ti-0-0-1/2-c-Sr-0.03-1/4-0.99-c-O-0.49-1/4-0.07-d-O-0.29-0.04-0.71-X-5.5-7.9-5.6-90-90-90",
    "166-a-Bi-0-0-0-c-Te-0-0-0.21-X-4.4-4.4-30-90-90-120",
    "14-e-Zr-0.27-0.04-0.21-e-O-0.07-0.33-0.34-X-5.2-5.2-5.4-90-99-90",
    "227-a-Mg-1/8-1/8-1/8-d-Al-1/2-1/2-1/2-e-O-0.26-0.26-0.26-X-8.1-8.1-8.1-90-90-90",
    "2-i-Cu-0.1-0.2-0.3-X-3-3.5-4-80-95-100",
)


@pytest.mark.parametrize("string", STRINGS)
def test_projection_is_idempotent_and_orthogonal(string):
    crystal = Crystal.from_string(string)
    projection, atoms = symmetry_projection(crystal), crystal.to_atoms()
    for rotation in projection.rotations:
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(3):
        a, b = rng.normal(size=(2, len(atoms), 3))
        once = projection.forces(a)
        np.testing.assert_allclose(projection.forces(once), once, atol=1e-12)
        assert (once * b).sum() == pytest.approx((a * projection.forces(b)).sum())
        stress = projection.stress(rng.normal(size=(3, 3)))
        np.testing.assert_allclose(projection.stress(stress), stress, atol=1e-12)


@pytest.mark.parametrize("string", STRINGS)
def test_steps_along_projected_noise_keep_every_operation(string):
    crystal = Crystal.from_string(string)
    state, rng = FireState(crystal.to_atoms(), symmetry_projection(crystal)), np.random.default_rng(0)
    for _ in range(5):
        state.move(state.force(20 * rng.normal(size=(len(state.atoms), 3)), 0.1 * rng.normal(size=(3, 3))))
    after = Crystal.from_structure(state.atoms)
    assert np.abs(state.atoms.positions - crystal.to_atoms().positions).max() > 0.01
    assert after.G == crystal.G
    assert sorted(after.A.tolist()) == sorted(crystal.A.tolist())


def test_fixed_positions_have_no_force_and_cubic_stress_is_a_number():
    perovskite = Crystal.from_string("221-a-Sr-0-0-0-b-Ti-1/2-1/2-1/2-c-O-0-1/2-1/2-X-3.9-3.9-3.9-90-90-90")
    projection, rng = symmetry_projection(perovskite), np.random.default_rng(0)
    assert len(projection.rotations) == 48
    np.testing.assert_allclose(projection.forces(rng.normal(size=(5, 3))), 0, atol=1e-12)
    stress = rng.normal(size=(3, 3))
    np.testing.assert_allclose(projection.stress(stress), np.trace(stress) / 3 * np.eye(3), atol=1e-12)
