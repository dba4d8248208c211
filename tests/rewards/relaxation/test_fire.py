"""Batched FIRE goes to the minima that ASE's own optimiser finds, and the projection keeps every symmetry."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from crystal_env.crystal import Crystal
from rewards.potentials.ase import ASEPotential
from rewards.relaxation.fire import FireState, relax
from rewards.relaxation.symmetry_projection import symmetry_projection

EMT_POTENTIAL = ASEPotential(EMT, n_jobs=1)
STRINGS = (
    "62-b-Ti-0-0-1/2-c-Sr-0.03-1/4-0.99-c-O-0.49-1/4-0.07-d-O-0.29-0.04-0.71-X-5.5-7.9-5.6-90-90-90",
    "166-a-Bi-0-0-0-c-Te-0-0-0.21-X-4.4-4.4-30-90-90-120",
    "14-e-Zr-0.27-0.04-0.21-e-O-0.07-0.33-0.34-X-5.2-5.2-5.4-90-99-90",
    "227-a-Mg-1/8-1/8-1/8-d-Al-1/2-1/2-1/2-e-O-0.26-0.26-0.26-X-8.1-8.1-8.1-90-90-90",
    "2-i-Cu-0.1-0.2-0.3-X-3-3.5-4-80-95-100",
)


def test_minima_are_those_of_ases_own_optimiser():
    states, expected = [], []
    for seed, symbol in enumerate(("Cu", "Al", "Ni")):
        atoms = bulk(symbol, cubic=True) * (1, 1, 2)
        atoms.rattle(0.05, seed=seed)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * np.random.default_rng(seed).normal(size=(3, 3))), True)
        states.append(FireState(atoms.copy()))
        atoms.calc = EMT()
        FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=500)
        expected.append((atoms.get_potential_energy(), atoms.get_volume()))
    relax(states, EMT_POTENTIAL, fmax=0.005, steps=500, seconds=100)
    assert all(state.converged for state in states)
    assert [state.energy for state in states] == pytest.approx([e for e, _ in expected], abs=1e-3)
    assert [state.atoms.get_volume() for state in states] == pytest.approx([v for _, v in expected], rel=1e-3)


def test_a_batch_goes_the_way_that_each_goes_alone():
    def made():
        atoms = [bulk(symbol, a=a, cubic=True) for symbol, a in (("Cu", 3.8), ("Au", 3.9), ("Pt", 4.0))]
        for seed, one in enumerate(atoms):
            one.rattle(0.1, seed=seed)
        return [FireState(one) for one in atoms]

    together, alone = made(), made()
    relax(together, EMT_POTENTIAL, fmax=0.02, steps=60, seconds=100)
    for state in alone:
        relax([state], EMT_POTENTIAL, fmax=0.02, steps=60, seconds=100)
    assert [w.steps for w in together] == [w.steps for w in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.atoms.positions, other.atoms.positions)


def test_a_structure_that_fails_on_the_way_stops_alone():
    states = [FireState(bulk("Cu", a=3.8)), FireState(bulk("Fe"))]
    relax(states, EMT_POTENTIAL, fmax=0.01, steps=50, seconds=100)
    assert states[0].converged
    assert "NotImplementedError" in states[1].failure


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
