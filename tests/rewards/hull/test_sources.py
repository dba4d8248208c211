import bz2
import gc
import gzip
import json
import tracemalloc
import warnings

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.entries import ComputedEntry, ComputedStructureEntry, ConstantEnergyAdjustment
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

from rewards.hull.formulas import as_compositions
from rewards.hull.sources import read_entries, read_formation_energies

CELL = Lattice.cubic(4.3)
HALF = [0.5, 0.5, 0.5]


def made_entries():
    """Entries as those of Alexandria: structures, a legacy correction, an adjustment, and none of both."""
    salt = Structure.from_spacegroup(225, CELL, ["Na", "Cl"], [[0, 0, 0], HALF])
    wustite = Structure.from_spacegroup(225, CELL, ["Fe", "O"], [[0, 0, 0], HALF])
    peroxide = Structure(CELL, ["Li", "Li", "O", "O"], [HALF, [0.5, 0, 0], [0, 0, 0.17], [0, 0, -0.17]])
    sulfate = Structure(CELL, ["Ca", "S", "O", "O"], [HALF, [0, 0, 0], [0.35, 0, 0], [-0.35, 0, 0]])
    pbe, with_u = {"run_type": "GGA"}, {"run_type": "GGA+U", "is_hubbard": True, "hubbards": {"Fe": 5.3}}
    adjustment = ConstantEnergyAdjustment(-1.25, name="adjustment")
    return [
        ComputedStructureEntry(salt, -27.0, correction=-2.5, parameters=pbe, data={"elements": ["Na", "Cl"]}),
        ComputedStructureEntry(wustite, -50.0, energy_adjustments=[adjustment], parameters=with_u),
        ComputedStructureEntry(peroxide, -19.0, parameters=pbe),
        ComputedStructureEntry(sulfate, -21.0, parameters=pbe),
        ComputedEntry("MgO", -11.9, correction=-0.7, parameters=pbe, data={"oxide_type": "oxide"}),
        ComputedEntry("Cu2", -8.2, parameters=pbe),
        ComputedEntry("ZnS", -6.2, parameters=pbe),
        ComputedEntry("Ne", -0.03, parameters=pbe),
    ]


@pytest.fixture(scope="module")
def entries():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # neon has no electronegativity
        return made_entries()


def dicts(entries):
    return json.loads(json.dumps([entry.as_dict() for entry in entries]))


@pytest.fixture(scope="module")
def alexandria(entries, tmp_path_factory):
    path = tmp_path_factory.mktemp("alexandria") / "convex_hull_pbe_2023.12.29.json.bz2"
    path.write_bytes(bz2.compress(json.dumps({"entries": dicts(entries)}).encode()))
    return path


def assert_same(found, entries, energies):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = as_compositions([entry.composition for entry in entries])
    np.testing.assert_array_equal(as_compositions([entry.composition for entry in found]), expected)
    np.testing.assert_allclose([entry.energy for entry in found], energies, atol=1e-12)


def test_entries_as_given_have_the_energies_pymatgen_gives_them(alexandria, entries):
    assert_same(list(read_entries(alexandria)), entries, [entry.energy for entry in entries])


def test_entries_without_corrections_have_their_raw_energies(alexandria, entries):
    raw = [entry.uncorrected_energy for entry in entries]
    assert raw != [entry.energy for entry in entries]
    assert_same(list(read_entries(alexandria, "none")), entries, raw)


def test_corrections_computed_anew_are_pymatgens(alexandria, entries):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheme = MaterialsProject2020Compatibility(check_potcar=False)
        corrected = scheme.process_entries(entries, inplace=False, on_error="raise")
    assert len({entry.correction for entry in corrected}) > 5
    assert_same(list(read_entries(alexandria, "MP2020")), entries, [entry.energy for entry in corrected])


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.json.bz2"])
@pytest.mark.parametrize("layout", ["list", "entries", "dict"])
def test_every_layout_and_compression_gives_the_same_entries(layout, name, entries, tmp_path):
    items = dicts(entries)
    content = {
        "list": items,
        "entries": {"@module": "x", "tags": [{"a": 1}], "entries": items},
        "dict": {symbol: item for symbol, item in zip("H He Li Be B C N O".split(), items, strict=True)},
    }[layout]
    pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get((tmp_path / name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(json.dumps(content).encode()))
    assert_same(list(read_entries(tmp_path / name)), entries, [entry.energy for entry in entries])


def test_non_standard_numbers_are_read_at_every_block_size(monkeypatch, tmp_path):
    item = {"energy": -1.5, "correction": -0.5, "composition": {"Na": 1, "N": 1}, "data": {"formula": "NaN", "x": None}}
    (tmp_path / "a.json").write_text(json.dumps([item] * 2).replace("null", "[NaN,-Infinity, Infinity, 1.25]"))
    for block in (1, 7, 1000):
        monkeypatch.setattr("rewards.hull.sources._BLOCK", block)
        assert list(read_entries(tmp_path / "a.json")) == [({"Na": 1.0, "N": 1.0}, -2.0)] * 2


def test_energy_that_is_no_number_is_a_value_error(tmp_path):
    (tmp_path / "a.json").write_text('[{"energy": NaN, "composition": {"Na": 1}}]')
    with pytest.raises(ValueError, match="entry 1: TypeError"):
        list(read_entries(tmp_path / "a.json"))


def test_memory_stays_far_below_that_of_the_parsed_file(entries, tmp_path):
    path, item = tmp_path / "many.json.bz2", dicts(entries)[6]
    with bz2.open(path, "wt", compresslevel=1) as file:
        file.write('{"entries": [' + ", ".join([json.dumps(item)] * 20_000) + "]}")
    next(iter(read_entries(path, "none")))  # what is imported and remembered with the first entry does not count
    gc.collect()
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_entries(path, "none")) == 20_000
        streamed = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        parsed = json.loads(json.dumps([item] * 500))
        whole = tracemalloc.get_traced_memory()[0] * 20_000 / len(parsed)
    finally:
        tracemalloc.stop()
    assert streamed < whole / 10


def test_elemental_references_of_the_materials_project_are_read(data_folder):
    path = data_folder / "mp_elemental_reference_entries_2023-02-07.json.gz"
    found = list(read_entries(path))
    with gzip.open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [ComputedEntry.from_dict(item) for item in json.load(file).values()]
    assert len(found) == 89
    assert_same(found, expected, [entry.energy for entry in expected])


@pytest.mark.parametrize(
    ("content", "corrections", "message"),
    [
        (b"[]", "as given", "holds no entries"),
        (b'{"a": 1}', "as given", "neither a list of entries, nor 'entries'"),
        (b"no json", "as given", "damaged or no JSON file, after 0 entries"),
        (b'[{"energy": 1.0, "composition": {"Na": 1}}, {"en', "as given", "damaged or no JSON file, after 1 entries"),
        (b'[{"energy": 1.0}]', "as given", "entry 1: KeyError: 'composition'"),
        (b'[{"energy": 1.0, "composition": {"Na": 1}}]', "mp", "corrections must be one of .*'MP2020'.*, got 'mp'"),
        (
            b'[{"energy": 1.0, "composition": {"Na": 1, "Cl": 1}}]',
            "MP2020",
            "NaCl cannot be corrected: .*run type None",
        ),
        (
            b'[{"energy": 1.0, "composition": {"Na": 2, "O": 1}, "parameters": {"run_type": "GGA"}}]',
            "MP2020",
            "Na2O needs a structure or data\\['oxide_type'\\]",
        ),
        (
            b'[{"energy": 1.0, "composition": {"Fe": 1, "O": 1}, "parameters": {"run_type": "GGA"},'
            b' "data": {"oxide_type": "oxide"}}]',
            "MP2020",
            "FeO cannot be corrected: Invalid U value",
        ),
    ],
)
def test_files_that_cannot_be_used_are_value_errors(content, corrections, message, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_entries(tmp_path / "a.json", corrections))


def test_missing_and_truncated_files_are_value_errors(alexandria, tmp_path):
    with pytest.raises(ValueError, match="no such file of entries"):
        list(read_entries(tmp_path / "b.json"))
    (tmp_path / "c.json.bz2").write_bytes(alexandria.read_bytes()[:-20])
    with pytest.raises(ValueError, match="damaged or no JSON file"):
        list(read_entries(tmp_path / "c.json.bz2"))
    with pytest.raises(ValueError, match="no such file"):
        list(read_formation_energies(tmp_path / "d.csv", alexandria))


@pytest.fixture
def elements(tmp_path):
    path = tmp_path / "elements.json"
    made = [ComputedEntry("Na2", -2.6), ComputedEntry("Na", -1.2), ComputedEntry("Cl2", -3.6, correction=-0.4)]
    path.write_text(json.dumps([entry.as_dict() for entry in made]))
    return path


def test_formation_energies_become_total_energies(elements, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("id,formula,formation_energy_per_atom\n1,NaCl,-2.0\n2,Na(NaCl2)2,0.1\n3,Na,0\n4,NaCl3,\n")
    found = list(read_formation_energies(path, elements))
    assert found[:2] == [({"Na": 1.0}, -1.3), ({"Cl": 1.0}, -2.0)]
    assert_same(found[2:], [ComputedEntry(f, 0) for f in ("NaCl", "Na3Cl4", "Na")], [-7.3, -11.2, -1.3])


def test_tables_that_cannot_be_used_are_value_errors(elements, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("formula,energy\nNaCl,-2.0\n")
    with pytest.raises(ValueError, match=r"needs a column 'formation_energy_per_atom'"):
        list(read_formation_energies(path, elements))
    path.write_text("formula,formation_energy_per_atom\nKCl,-2.0\n")
    with pytest.raises(ValueError, match=r"has KCl, but elements .* holds no entry of K"):
        list(read_formation_energies(path, elements))
