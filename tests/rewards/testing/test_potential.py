"""The contract tests of potentials on an analytic force field, right and with one fault after the other."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

from rewards.potentials import Energies, Forces
from rewards.testing.reward import check_potential


@dataclass(frozen=True)
class Springs:
    """Atoms that push each other off: the sum of sqrt(Z Z') (1 - (d / 5 Å)^2)^3 over pairs, in eV."""

    fault: str = ""
    name: str = "springs"
    scale: str = "springs"

    def energies(self, atoms):
        found = Springs.forces(self, atoms)
        return Energies(found.total, found.failures)

    def forces(self, atoms):
        total, stress = np.full(len(atoms), np.nan), np.full((len(atoms), 3, 3), np.nan)
        forces, failures = [np.full((len(a), 3), np.nan) for a in atoms], np.full(len(atoms), None, object)
        for row, one in enumerate(atoms):
            if np.isfinite(one.positions).all() and abs(np.linalg.det(one.cell.array)) > 0.1:
                total[row], forces[row], stress[row] = self._one(one)
            else:
                failures[row] = "no structure"
        return Forces(total, forces, stress, failures)

    def _one(self, atoms):
        i, j, d, vectors = neighbor_list("ijdD", atoms, 5.0)
        strength, x = np.sqrt(atoms.numbers[i] * atoms.numbers[j]) / 10, 1 - (d / 5) ** 2
        pull = (-6 / 25 * strength * x**2)[:, None] * vectors  # dE/dd along the vector, by atoms i and j alike
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        stress = np.einsum("na,nb->ab", pull, vectors) / 2 / atoms.get_volume()
        return 0.5 * (strength * x**3).sum(), forces, stress


@dataclass(frozen=True)
class Faulty(Springs):
    """The same with one fault."""

    def energies(self, atoms):
        if self.fault == "changes positions":
            atoms[0].positions += 0.1 if atoms else 0.0
        if self.fault == "raises" and any(not np.isfinite(a.positions).all() for a in atoms):
            raise ValueError("positions")
        total, failures = super().energies(atoms)
        if self.fault == "samples":
            torch.rand(1)
        if self.fault == "silent NaN":
            failures[:] = None
        if self.fault == "reversed":
            return Energies(total[::-1], failures[::-1])
        if self.fault == "one fails all" and any(failures):
            return Energies(np.full(len(total), np.nan), np.full(len(total), "one failed", object))
        if self.fault == "batch":
            total = total + 0.01 * len(atoms) * np.array([len(a) for a in atoms])
        if self.fault == "per atom":
            total = total / np.array([len(a) for a in atoms])
        if self.fault == "first atom":
            total = total + np.array([a.numbers[0] for a in atoms])
        if self.fault == "large cells":
            total = np.array([e * (1 + (len(a) > 1000)) for e, a in zip(total, atoms, strict=True)])
        if self.fault == "positions":
            total = total + np.array([a.positions[0].sum() for a in atoms])
        return Energies(total, failures)

    def forces(self, atoms):
        total, forces, stress, failures = super().forces(atoms)
        if self.fault == "raises with forces" and any(failures):
            raise RuntimeError("no forces")
        if self.fault == "sign of forces":
            forces = [-f for f in forces]
        if self.fault == "stress in GPa":
            stress = stress * 160.2
        if self.fault == "sign of stress":
            stress = -stress
        if self.fault == "Voigt stress":
            stress = stress.reshape(-1, 9)[:, [0, 4, 8, 5, 2, 1]]
        if self.fault == "energy with forces":
            total = total + 1.0
        return Forces(total, forces, stress, failures)


def test_a_force_field_that_is_right_passes():
    check_potential(Springs())


FAULTS = {
    "changes positions": "inputs: the potential changed structure 0",
    "raises": "never raises: ValueError: positions",
    "samples": "global state: .* torch's random state",
    "silent NaN": "form: structure 5 has energy nan and None",
    "reversed": "order",
    "one fails all": "isolation",
    "batch": "batch equals singles",
    "per atom": "conventional cell|supercell",
    "first atom": "conventional cell|supercell",
    "positions": "supercell|atom order|origin shift|repeat",
    "large cells": "large cell",
    "raises with forces": "never raises: RuntimeError: no forces",
    "sign of forces": "forces: they differ",
    "stress in GPa": "stress: they differ",
    "sign of stress": "stress: they differ",
    "Voigt stress": "form: stress has shape",
    "energy with forces": "forces: with forces the energies differ",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_potential_is_caught_with_the_name_of_its_promise(fault):
    with pytest.raises(AssertionError, match=f"^({FAULTS[fault]})"):
        check_potential(Faulty(fault))


def test_forces_that_are_no_derivatives_can_be_allowed():
    check_potential(Faulty("sign of forces"), conservative=False)
