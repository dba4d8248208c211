"""Batched FIRE reaches the minima that ASE's own optimiser finds."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from rewards.potentials.ase import ASEPotential
from rewards.relaxation.fire import FireState, relax

EMT_POTENTIAL = ASEPotential(EMT, n_jobs=1)


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
