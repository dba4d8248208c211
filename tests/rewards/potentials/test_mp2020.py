import copy
import pickle
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp.sets import MPRelaxSet

from crystal_env.dataset import read_structures
from rewards.potentials import Energies, Forces, Potential
from rewards.potentials.mp2020 import Corrected, _oxidation_states, corrections


def structure(formula, spacing=3.0, close=()):
    """Return atoms of a formula on a grid, the last of the pairs in ``close`` (index, distance) next to the first."""
    species = [symbol for symbol, n in Composition(formula).get_el_amt_dict().items() for _ in range(int(n))]
    side = int(np.ceil(len(species) ** (1 / 3)))
    places = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[: len(species)] * spacing
    for (first, second), distance in close:
        places[second] = places[first] + [distance, 0, 0]
    return Structure(Lattice.cubic(side * spacing), species, places, coords_are_cartesian=True)


SALT = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
MAGNESIA = Structure.from_spacegroup(225, Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
FLUORITE = Structure.from_spacegroup(225, Lattice.cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]])
PEROVSKITE = Structure(Lattice.cubic(3.905), ["Sr", "Ti", *"OOO"], [[0] * 3, [0.5] * 3, *(np.eye(3) * 0.5 + 0.5) % 1])
BLENDE = Structure.from_spacegroup(216, Lattice.cubic(5.41), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]])
WUSTITE = Structure.from_spacegroup(225, Lattice.cubic(4.33), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
PYRITE = Structure.from_spacegroup(205, Lattice.cubic(5.42), ["Fe", "S"], [[0, 0, 0], [0.385, 0.385, 0.385]])
IRON = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])

STRUCTURES = {
    "NaCl": SALT,
    "MgO": MAGNESIA,
    "CaF2": FLUORITE,
    "SrTiO3": PEROVSKITE,
    "peroxide": structure("Li2O2", close=[((2, 3), 1.5)]),
    "superoxide": structure("CsO2", close=[((1, 2), 1.3)]),
    "ozonide": structure("KO3", close=[((1, 2), 1.3), ((1, 3), -1.3)]),
    "hydroxide": structure("LiOH", close=[((1, 2), 0.96)]),
    "hydroperoxide": structure("LiHO2", close=[((2, 1), 0.96), ((2, 3), 1.3)]),
    "ZnS": BLENDE,
    "polysulfide": PYRITE,
    "sulfate": structure("CaSO4", close=[((1, 2), 1.5), ((1, 3), -1.5)]),
    "oxysulfide": structure("La2O2S", close=[((0, 4), 2.5)]),
    "FeO": WUSTITE,
    "CoF2": structure("CoF2"),
    "phosphate": structure("LiFePO4"),
    "metal": IRON,
    "oxygen": structure("O2", close=[((0, 1), 1.2)]),
    "alloy": structure("NiAl"),
    "nitride": structure("Fe4N"),
    "hydride": structure("LaH10"),
    "antimonide with silicon": structure("Mn3SiSbTe"),
    "iodate": structure("NaIO3"),
    "MoS2": structure("MoS2"),
}


def pymatgen_correction(structure):
    """The plain way: an entry with the parameters of `MPRelaxSet`, and pymatgen's corrections."""
    most_electronegative = max(structure.composition.elements, key=lambda element: element.X).symbol
    table = MPRelaxSet.CONFIG["INCAR"]["LDAUU"].get(most_electronegative, {})
    hubbards = {e.symbol: table[e.symbol] for e in structure.composition.elements if e.symbol in table}
    parameters = {
        "run_type": "GGA+U" if hubbards else "GGA",
        "is_hubbard": bool(hubbards),
        "hubbards": hubbards,
    }
    entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheme = MaterialsProject2020Compatibility(check_potcar=False)
        return scheme.process_entries([entry], clean=True, on_error="raise")[0].correction


@pytest.mark.parametrize("name", STRUCTURES)
def test_correction_is_pymatgens(name):
    made = STRUCTURES[name]
    values, failures = corrections([made, AseAtomsAdaptor.get_atoms(made)])
    assert list(failures) == [None, None]
    np.testing.assert_allclose(values, pymatgen_correction(made), atol=1e-12)


def test_corrections_are_the_fitted_energies_times_the_atoms():
    """The fitted energies in eV/atom are those of pymatgen's MP2020Compatibility.yaml."""
    values, _ = corrections([STRUCTURES[name] for name in ("MgO", "peroxide", "superoxide", "FeO", "CoF2", "metal")])
    expected = [4 * -0.687, 2 * -0.465, 2 * -0.161, 4 * (-0.687 - 2.256), 2 * -0.462 - 1.638, 0]
    np.testing.assert_allclose(values, expected, atol=1e-9)


def test_hundreds_of_crystals_of_mp20_get_pymatgens_corrections(data_folder):
    sources = list(read_structures(data_folder / "mp20_val.csv.gz"))[::24][:300]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structures = [Structure.from_str(str(cif), fmt="cif") for cif in sources]
    values, failures = corrections([AseAtomsAdaptor.get_atoms(structure) for structure in structures])
    assert set(failures) == {None}
    np.testing.assert_allclose(values, [pymatgen_correction(structure) for structure in structures], atol=1e-9)
    assert (values != 0).sum() > 100


def test_oxidation_states_are_those_pymatgen_guesses():
    rng = np.random.default_rng(0)
    symbols = "Li Na Ca Fe Mn Cu Ti Re Pd H N O F Cl Br I S Se Te Sb Si P La".split()
    compared = 0
    for _ in range(150):
        amounts = {symbol: int(rng.integers(1, 5)) for symbol in sorted(rng.choice(symbols, 3, replace=False))}
        composition = Composition(amounts).reduced_composition
        formula = tuple(sorted((symbol, int(n)) for symbol, n in composition.get_el_amt_dict().items()))
        if guess := _oxidation_states(formula):
            compared += 1
            assert guess == composition.oxi_state_guesses(max_sites=-20)[0]
    assert compared > 40


def test_corrections_follow_cell_and_order_of_atoms():
    silicide = structure("HfReSi")  # rhenium and silicon are equally electronegative
    for made in (*STRUCTURES.values(), silicide):
        reference = corrections([made])[0][0]
        supercell = made * (2, 1, 1)
        backwards = Structure.from_sites(list(made)[::-1])
        np.testing.assert_allclose(corrections([supercell, backwards])[0], [2 * reference, reference], atol=1e-9)
    assert corrections([silicide])[0][0] == pytest.approx(0.071)


def test_structure_that_breaks_pymatgen_has_a_reason():
    broken = AseAtomsAdaptor.get_atoms(MAGNESIA)
    broken.positions[:] = np.nan
    dummy = AseAtomsAdaptor.get_atoms(SALT)
    dummy.numbers[0] = 0
    values, failures = corrections([MAGNESIA, broken, dummy])
    assert values[0] == pytest.approx(4 * -0.687)
    assert np.isnan(values[1:]).all()
    assert failures[0] is None
    assert all(failure.startswith("no MP2020 correction: ") for failure in failures[1:])


def test_nothing_has_no_corrections():
    values, failures = corrections([])
    assert values.shape == failures.shape == (0,)


@dataclass(frozen=True)
class Raw:
    """Minus one eV per atom; it fails on iron."""

    name: str = "raw"
    scale: str = "PBE"

    def energies(self, atoms):
        iron = [26 in a.numbers for a in atoms]
        total = np.where(iron, np.nan, [-float(len(a)) for a in atoms])
        return Energies(total, np.array([*("iron" if i else None for i in iron), None], object)[:-1])


@dataclass(frozen=True)
class RawForces(Raw):
    def forces(self, atoms):
        total, failures = self.energies(atoms)
        return Forces(total, [a.positions * 0 + 1 for a in atoms], np.ones((len(atoms), 3, 3)), failures)


def test_corrected_potential_adds_corrections_and_keeps_failures():
    potential = Corrected(Raw())
    assert (potential.name, potential.scale) == ("raw+MP2020", "MP2020")
    assert isinstance(potential, Potential)
    atoms = [AseAtomsAdaptor.get_atoms(s) for s in (MAGNESIA, WUSTITE, SALT)]
    total, failures = potential.energies(atoms)
    np.testing.assert_allclose(total, [-8 - 4 * 0.687, np.nan, -8 - 4 * 0.614])
    assert list(failures) == [None, "iron", None]
    assert potential.energies([]).total.shape == (0,)


def test_forces_are_forwarded_only_where_there_are_some():
    atoms = [AseAtomsAdaptor.get_atoms(MAGNESIA)]
    assert not hasattr(Corrected(Raw()), "forces")
    result = Corrected(RawForces()).forces(atoms)
    assert result.total == pytest.approx([-8 - 4 * 0.687])
    assert (result.forces[0] == 1).all()
    assert (result.stress == 1).all()


@pytest.mark.parametrize("inner", [Raw(), RawForces()])
def test_corrected_potential_survives_copies_and_pickles(inner):
    potential = Corrected(inner)
    for other in (copy.deepcopy(potential), copy.copy(potential), pickle.loads(pickle.dumps(potential))):
        assert other == potential
        assert hasattr(other, "forces") == hasattr(inner, "forces")


def test_corrected_energies_and_other_scales_are_value_errors():
    with pytest.raises(ValueError, match="'chgnet' has 'MP2020': it would be corrected twice"):
        Corrected(Raw("chgnet", "MP2020"))
    with pytest.raises(ValueError, match="is on another scale"):
        Corrected(Raw("r2", "r2SCAN"))
    with pytest.raises(ValueError, match="twice"):
        Corrected(Corrected(Raw()))
