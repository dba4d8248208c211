import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.eos import EquationOfState, birchmurnaghan

from crystal_env.crystal import Crystal, CrystalBatch
from rewards.bulk_modulus import BulkModulus, birch_murnaghan
from rewards.potentials.ase import ASEPotential


def copper(a):
    return Crystal.from_string(f"225-a-Cu-0-0-0-X-{a}-{a}-{a}-90-90-90")


def test_fit_returns_the_parameters_of_an_exact_equation_of_state():
    volumes = np.linspace(15, 20, 9)
    energies = np.array([birchmurnaghan(volumes, -3.0, 0.8, 4.5, 17.0), birchmurnaghan(volumes, 1.0, 0.3, 3.0, 16.0)])
    fit = birch_murnaghan(np.array([volumes, volumes]), energies)
    assert fit.volume == pytest.approx([17, 16])
    assert fit.modulus == pytest.approx([0.8, 0.3])
    assert np.isnan(birch_murnaghan(volumes[None], volumes[None]).volume[0])


def test_bulk_modulus_is_that_of_ase_from_any_start():
    scan = []
    for scale in np.linspace(0.98, 1.02, 9):
        atoms = bulk("Cu", a=3.59 * scale)
        atoms.calc = EMT()
        scan.append((atoms.get_volume(), atoms.get_potential_energy()))
    v0, _, modulus = EquationOfState(*zip(*scan, strict=True), eos="birchmurnaghan").fit()
    crystals = CrystalBatch.from_crystals([copper(3.6), copper(3.8), copper(3.4)])
    result = BulkModulus(ASEPotential(EMT, n_jobs=1), target=120)(crystals)
    assert list(result.failures) == [None] * 3
    assert result.terms["bulk_modulus"] == pytest.approx(np.full(3, modulus * 160.21766), rel=0.02)
    assert result.terms["volume_ratio"] * crystals.volume_per_atom() == pytest.approx(np.full(3, v0), rel=0.002)
    assert result.terms["potential_calls"].tolist()[0] == 7
    assert set(result.terms["potential_calls"]) > {7}
    assert result.terms["success"].tolist() == [1, 1, 1]


def test_failures_stay_alone():
    iron = Crystal.from_string("229-a-Fe-0-0-0-X-2.87-2.87-2.87-90-90-90")
    result = BulkModulus(ASEPotential(EMT, n_jobs=1), "mae", target=134, floor=-99)(
        CrystalBatch.from_crystals([iron, copper(3.6), copper(1.5)])
    )
    assert result.total[[0, 2]].tolist() == [-99, -99]
    assert result.total[1] > -10
    assert "NotImplementedError" in result.failures[0]
    assert "Å" in result.failures[2]


@pytest.mark.parametrize(("name", "value"), [("points", 4), ("strain", 0.0), ("strain", 0.5)])
def test_impossible_numbers_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        BulkModulus(**{name: value})
