import importlib
import json
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT

from crystal_env.crystal import Crystal, CrystalBatch
from rewards.hull.convex_hull import ConvexHull
from rewards.hull.energies import crystal_energies
from rewards.potentials import Energies, load_potential
from rewards.potentials.identity import identity


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path))


@pytest.fixture
def gold():
    return Crystal.from_string("225-a-Au-0-0-0-X-4.08-4.08-4.08-90-90-90")


def test_energies_are_those_of_the_potential_in_order(crystals, pair_potential, monkeypatch):
    monkeypatch.setattr("rewards.hull.energies._CHUNK", 2)
    energies = crystal_energies(crystals, pair_potential)
    np.testing.assert_array_equal(energies.total, pair_potential.energies(crystals.to_atoms()).total)
    assert list(energies.failures) == [None] * 5


def test_finished_chunks_are_not_computed_again(crystals, pair_potential, gold, monkeypatch):
    monkeypatch.setattr("rewards.hull.energies._CHUNK", 2)
    crystal_energies(crystals[:4], pair_potential)
    assert pair_potential.seen == [2, 2]
    again = crystal_energies(CrystalBatch.from_crystals([*crystals, gold]), pair_potential)
    assert pair_potential.seen == [2, 2, 2]
    assert again.failures[5] == "no gold"
    repeated = crystal_energies(CrystalBatch.from_crystals([*crystals, gold]), pair_potential)
    assert pair_potential.seen == [2, 2, 2, 1]  # what failed may pass
    np.testing.assert_array_equal(repeated.total, again.total)
    assert list(repeated.failures) == list(again.failures)


def test_other_potential_has_its_own_energies(crystals, pair_potential):
    crystal_energies(crystals, pair_potential)
    pair_potential.name = "other"
    crystal_energies(crystals, pair_potential)
    assert pair_potential.seen == [5, 5]


def test_interruption_loses_the_current_chunk_only(crystals, pair_potential, monkeypatch):
    monkeypatch.setattr("rewards.hull.energies._CHUNK", 1)
    energies, calls = pair_potential.energies, []

    def interrupted(atoms):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return energies(atoms)

    pair_potential.energies = interrupted
    with pytest.raises(KeyboardInterrupt):
        crystal_energies(crystals, pair_potential)
    crystal_energies(crystals, pair_potential)
    assert len(calls) == 4 + 2


def test_crystals_the_potential_fails_on_are_left_out_with_a_warning(crystals, pair_potential, gold):
    with pytest.warns(UserWarning, match="left out crystal 5: no gold"):
        hull = ConvexHull.from_structures(
            CrystalBatch.from_crystals([*crystals, gold]), pair_potential, date="2026-01-01"
        )
    assert hull.provenance.n_structures == 5
    assert hull.provenance.date == "2026-01-01"
    assert set(hull.provenance.versions) >= {"crystalgen", "torch"}
    assert len(hull) == 5


def test_no_crystals_have_no_energies(pair_potential):
    assert crystal_energies(CrystalBatch.empty(), pair_potential).total.shape == (0,)


def alloys():
    """Return 85 ordered alloys and metals of the elements that effective medium theory knows."""
    lengths = {"Al": 4.05, "Ni": 3.52, "Cu": 3.61, "Pd": 3.89, "Ag": 4.09, "Pt": 3.92, "Au": 4.08}
    texts = [f"225-a-{a}-0-0-0-X-{x}-{x}-{x}-90-90-90" for a, x in lengths.items()]
    for (a, x), (b, y) in permutations(lengths.items(), 2):
        length = (3 * x + y) / 4
        texts.append(f"221-a-{b}-0-0-0-c-{a}-0-1/2-1/2-X-{length}-{length}-{length}-90-90-90")
    for (a, x), (b, y) in combinations(lengths.items(), 2):
        side, height = (x + y) / 2**1.5, (x + y) / 2
        texts.append(f"123-a-{a}-0-0-0-d-{b}-1/2-1/2-1/2-X-{side}-{side}-{height}-90-90-90")
    for (a, x), (b, y) in combinations(lengths.items(), 2):
        length = 0.395 * (x + y)
        texts.append(f"221-a-{a}-0-0-0-b-{b}-1/2-1/2-1/2-X-{length}-{length}-{length}-90-90-90")
    return CrystalBatch.from_crystals(Crystal.from_string(text) for text in texts[:85])


def test_an_emt_hull_is_that_of_plain_ase_for_any_number_of_jobs(tmp_path, monkeypatch):
    crystals, expected = alloys(), []
    for atoms in crystals.to_atoms():
        atoms.calc = EMT()
        expected.append(atoms.get_potential_energy())
    hull = ConvexHull(crystals.composition(), np.array(expected))
    for n_jobs in (1, 2, None):
        monkeypatch.setenv("CRYSTALGEN_CACHE", str(tmp_path / str(n_jobs)))
        for _ in ("clean cache", "used cache"):
            built = ConvexHull.from_structures(crystals, load_potential("ase:ase.calculators.emt:EMT"), n_jobs=n_jobs)
            assert built.formulas() == hull.formulas()
            np.testing.assert_allclose(built.energies, hull.energies, rtol=1e-12)


@dataclass
class Shifted:
    """A potential of one number, and of what a file and a callable add."""

    shift: float = 0.0
    weights: Path | None = None
    function: Callable = abs
    name: str = "shifted"
    scale: str = ""

    def energies(self, atoms):
        added = 0.0 if self.weights is None else float(self.weights.read_text())
        total = np.array([self.function(self.shift + added) for _ in atoms], float)
        return Energies(total, np.full(len(total), None, object))


def test_other_arguments_weights_or_code_have_their_own_energies(crystals, tmp_path):
    def found(*arguments):
        return crystal_energies(crystals, Shifted(*arguments)).total[0]

    weights = tmp_path / "weights"
    weights.write_text("3")
    assert [found(1.0), found(2.0), found(1.0, weights)] == [1.0, 2.0, 4.0]
    weights.write_text("4")
    assert found(1.0, weights) == 5.0
    assert [found(1.0, None, lambda x, c=c: c * x) for c in (2, 3)] == [2.0, 3.0]


CALCULATOR = """
from ase.calculators.calculator import Calculator, all_changes
from {beside} import level

class Constant(Calculator):
    implemented_properties = ["energy"]

    def __init__(self, slope=1.0):
        super().__init__()
        self.slope = slope

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = self.slope * level
"""


def test_changed_code_of_a_calculator_has_its_own_energies(crystals, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    module, beside = f"calculator_{uuid.uuid4().hex}", f"level_{uuid.uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(CALCULATOR.format(beside=beside))

    def found(level, **kwargs):
        (tmp_path / f"{beside}.py").write_text(f"level = {level}  # {uuid.uuid4().hex}\n")
        for name in (module, beside):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return crystal_energies(crystals[:1], load_potential(f"ase:{module}:Constant", kwargs=kwargs)).total[0]

    assert [found(1.0), found(2.0), found(2.0, slope=3.0)] == [1.0, 2.0, 6.0]


def test_changed_versions_have_their_own_energies(crystals, pair_potential, monkeypatch):
    crystal_energies(crystals, pair_potential)
    monkeypatch.setattr("rewards.potentials.identity._version", lambda package: "99")
    crystal_energies(crystals, pair_potential)
    assert pair_potential.seen == [5, 5]


@pytest.mark.parametrize("damage", ["", "no archive", "cut"])
def test_a_damaged_cache_is_computed_again_and_replaced(damage, crystals, pair_potential, tmp_path):
    expected = crystal_energies(crystals, pair_potential).total
    (file,) = (tmp_path / "energies").glob("*/*.npz")
    file.write_bytes(file.read_bytes()[:200] if damage == "cut" else damage.encode())
    with pytest.warns(RuntimeWarning, match="damaged, its energies are computed again"):
        np.testing.assert_array_equal(crystal_energies(crystals, pair_potential).total, expected)
    np.testing.assert_array_equal(crystal_energies(crystals, pair_potential).total, expected)
    assert pair_potential.seen == [5, 5]


def test_a_cache_that_cannot_be_written_is_a_warning(crystals, pair_potential, tmp_path, monkeypatch):
    (tmp_path / "energies").write_text("a file where the folder should be")
    monkeypatch.setattr("rewards.hull.energies._CHUNK", 2)
    with pytest.warns(RuntimeWarning, match="energies are not kept") as warned:
        crystal_energies(crystals, pair_potential)
    assert len(warned) == 1


def test_a_potential_without_an_identity_has_no_cache(crystals, pair_potential, tmp_path):
    class Locked:
        name, scale = "locked", "pairs"

        def __init__(self):
            self.lock = threading.Lock()

        def energies(self, atoms):
            return pair_potential.energies(atoms)

    for _ in range(2):
        crystal_energies(crystals, Locked())
    assert pair_potential.seen == [5, 5]
    assert not list(tmp_path.iterdir())


def test_numbers_of_workers_are_no_part_of_an_identity():
    few, many = (load_potential("ase:ase.calculators.emt:EMT", n_jobs=n) for n in (1, 8))
    assert identity(few) == identity(many) is not None
    assert identity(load_potential("chgnet", max_edges=10)) == identity(load_potential("chgnet"))
    assert identity(load_potential("chgnet")) != identity(load_potential("chgnet", device="cuda"))
    assert identity(few)["code"]
    assert "ase" in json.dumps(identity(few)["arguments"])
