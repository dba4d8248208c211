"""Relaxation finds the minimum that a scan of energies finds and keeps the symmetry; one bad crystal harms no other."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT

from crystal_env.crystal import Crystal, CrystalBatch
from rewards.potentials.chgnet import CHGNetPotential
from rewards.relaxation.relax import Relaxation

WURTZITE = "186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.382-X-3.25-3.25-5.21-90-90-120"


def rock_salt(a):
    return Crystal.from_string(f"225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90")


def copper(a):
    return Crystal.from_string(f"225-a-Cu-0-0-0-X-{a}-{a}-{a}-90-90-90")


def energies(crystals):
    return CHGNetPotential().energies(CrystalBatch.from_crystals(crystals).to_atoms()).total


def minimum(x, y):
    """Return where a cubic through all points has its minimum."""
    fit = np.polynomial.Polynomial.fit(x, y, 3)
    roots = fit.deriv().roots().real
    return roots[np.argmin(np.abs(roots - x[np.argmin(y)]))]


def test_strained_rock_salt_relaxes_to_the_minimum_of_a_scan():
    lengths = np.linspace(5.6, 5.8, 21)
    expected = minimum(lengths, energies(map(rock_salt, lengths)))
    crystals = CrystalBatch.from_crystals(rock_salt(factor * expected) for factor in (0.95, 1.05))
    relaxed, failures = Relaxation(fmax=0.005)(crystals)
    assert list(failures) == [None, None]
    assert relaxed.L[:, 0] == pytest.approx(expected, rel=1e-3)
    assert [crystal.key() for crystal in relaxed] == [rock_salt(5).key()] * 2


def test_free_numbers_reach_the_minimum_in_the_space_group():
    start = Crystal.from_string(WURTZITE)
    strained = dataclasses.replace(start, L=start.L * [1.04, 1.04, 0.97, 1, 1, 1])
    relaxed, failures = Relaxation(fmax=0.005)(strained.to_batch())
    assert list(failures) == [None]
    crystal = relaxed[0]
    assert crystal.key() == start.key()

    def moved(length=0.0, height=0.0, z=0.0):
        L, XYZ = np.array([length, length, height, 0, 0, 0]), np.array([[0, 0, 0], [0, 0, z]])
        return dataclasses.replace(crystal, L=crystal.L + L, XYZ=crystal.XYZ + XYZ)

    for name, most in (("length", 0.06), ("height", 0.1), ("z", 0.01)):
        sizes = np.linspace(-most, most, 7)
        assert minimum(sizes, energies([moved(**{name: size}) for size in sizes])) == pytest.approx(0, abs=0.1 * most)
    assert np.linalg.norm(crystal.L[:3] - strained.L[:3]) > 0.1


class CrookedEMT(EMT):
    """Effective medium theory with forces and stresses that break every symmetry."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        rng = np.random.default_rng(0)
        self.results["forces"] = self.results["forces"] + rng.normal(size=(len(self.atoms), 3))
        self.results["stress"] = self.results["stress"] + 0.01 * rng.normal(size=6)


def test_forces_that_break_the_symmetry_do_not():
    crystals = [Crystal.from_string("221-a-Au-0-0-0-c-Cu-0-1/2-1/2-X-3.9-3.9-3.9-90-90-90"), copper(3.8)]
    relaxed, failures = Relaxation(CrookedEMT(), steps=10)(CrystalBatch.from_crystals(crystals))
    assert list(failures) == [None, None]
    assert [crystal.key() for crystal in relaxed] == [crystal.key() for crystal in crystals]
    assert (np.abs(relaxed.L[:, 0] - [3.9, 3.8]) > 0.01).all()


def test_a_crystal_that_breaks_is_unchanged_with_a_reason():
    americium = Crystal.from_string("229-a-Am-0-0-0-X-4-4-4-90-90-90")
    collapsed = rock_salt(1.0)
    crystals = CrystalBatch.from_crystals([americium, rock_salt(5.9), collapsed, copper(3.8)])
    relaxed, failures = Relaxation()(crystals)
    assert "atomic number 95" in failures[0]
    assert "Å^3 per atom" in failures[2]
    assert [failures[1], failures[3]] == [None, None]
    assert [relaxed[0], relaxed[2]] == [americium, collapsed]
    for row in (1, 3):
        alone = Relaxation()(crystals[row : row + 1]).crystals[0]
        assert np.allclose(relaxed.L[row], alone.L, atol=1e-4)
        assert energies([relaxed[row]])[0] < energies([crystals[row]])[0] - 0.01


def test_time_and_steps_are_limited():
    crystals = rock_salt(6.2).to_batch()
    relaxed, failures = Relaxation(seconds=1e-9)(crystals)
    assert relaxed[0] == crystals[0]
    assert failures[0] == "TimeoutError: the relaxation takes more than 1e-09 s"
    steps = [Relaxation(fmax=1e-9, steps=n)(crystals) for n in (1, 5)]
    assert [result.failures[0] for result in steps] == [None, None]
    assert 6.2 > steps[0].crystals.L[0, 0] > steps[1].crystals.L[0, 0]


class CountingEMT(EMT):
    """ASE's effective medium theory, which counts its calculations."""

    calls = 0

    def calculate(self, *args, **kwargs):
        type(self).calls += 1
        return super().calculate(*args, **kwargs)


def test_any_ase_calculator_relaxes_equal_crystals_once():
    lengths = np.linspace(3.5, 3.7, 21)
    scan = [atoms.get_potential_energy() for atoms in _with(EMT(), map(copper, lengths))]
    one, four = (CrystalBatch.from_crystals([copper(3.8)] * n) for n in (1, 4))
    relax = Relaxation(CountingEMT(), fmax=0.001)
    first = relax(one)
    calls, CountingEMT.calls = CountingEMT.calls, 0
    relaxed, failures = relax(four)
    assert CountingEMT.calls == calls > 1
    assert list(failures) == [None] * 4
    assert relaxed.L[:, 0] == pytest.approx(first.crystals.L[0, 0], abs=1e-12)
    assert relaxed.L[0, 0] == pytest.approx(minimum(lengths, scan), rel=1e-3)


def _with(calculator, crystals):
    for atoms in CrystalBatch.from_crystals(crystals).to_atoms():
        atoms.calc = calculator
        yield atoms


def test_no_crystals_are_relaxed_to_none():
    relaxed, failures = Relaxation()(CrystalBatch.empty())
    assert (len(relaxed), len(failures)) == (0, 0)


def test_library_settings_are_unchanged_and_nothing_printed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    crystals = CrystalBatch.from_crystals([rock_salt(6.0), Crystal.from_string("229-a-Am-0-0-0-X-4-4-4-90-90-90")])
    expected = Relaxation()(crystals).crystals.L
    torch.set_default_dtype(torch.float64)
    try:
        states = torch.get_rng_state(), torch.get_num_threads()
        with torch.inference_mode():
            found = Relaxation()(crystals).crystals.L
            assert torch.is_inference_mode_enabled()
        assert torch.get_default_dtype() == torch.float64
        assert torch.equal(torch.get_rng_state(), states[0])
        assert torch.get_num_threads() == states[1]
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.allclose(found, expected, atol=1e-4)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [("fmax", 0.0), ("steps", 0), ("seconds", float("nan")), ("potential", "chgnt"), ("potential", None)],
)
def test_settings_that_are_impossible_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        Relaxation(**{name: value})
