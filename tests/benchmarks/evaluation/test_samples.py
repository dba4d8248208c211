"""Files of crystals of every kind, whole and broken."""

import csv
import gzip
import json

import ase.db
import ase.io
import numpy as np
import pytest
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from benchmarks.evaluation.samples import as_attempts
from benchmarks.harness.rollout import Drawn
from crystal_env import Crystal, CrystalBatch
from rewards.matching import structure_labels

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
TEXTS = [SALT.format("Na", "Cl", 5.64), SALT.format("K", "Br", 6.7), SALT.format("Li", "F", 4.1)]
CRYSTALS = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])
STRUCTURES = CRYSTALS.to_structures(primitive=True)
CIFS = [str(CifWriter(structure)) for structure in STRUCTURES]
ATOMS = CRYSTALS.to_atoms()


def read(source):
    return as_attempts(source, 1, progress=False)


def write_csv(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    return path


def many_sites():
    """Return rock salt in a cell of 32 atoms, none of them related to another."""
    structure = CRYSTALS[0].to_structure()
    structure.make_supercell([2, 2, 1])
    structure.perturb(0.05)
    return structure


@pytest.fixture(params=["folder", "cif", "csv", "json", "poscar", "crystal", "extxyz", "db", "traj", "npz", "list"])
def source(request, tmp_path):
    """The three crystals in every format."""
    kind, path = request.param, tmp_path / f"file.{request.param}"
    if kind == "folder":
        path.mkdir()
        for row, text in enumerate(CIFS):
            (path / f"{row}.cif").write_text(text)
    elif kind == "cif":
        path.write_text("\n".join(CIFS))
    elif kind == "csv":
        write_csv(path, [{"material": f"m{row}", "cif": text} for row, text in enumerate(CIFS)])
    elif kind in ("json", "poscar"):
        texts = [json.dumps(s.as_dict()) if kind == "json" else Poscar(s).get_str() for s in STRUCTURES]
        return write_csv(tmp_path / "file.csv", [{"structure": text} for text in texts])
    elif kind == "crystal":
        return write_csv(tmp_path / "samples.csv.gz", [{"crystal": str(crystal), "cif": ""} for crystal in CRYSTALS])
    elif kind in ("extxyz", "traj"):
        ase.io.write(path, ATOMS)
    elif kind == "db":
        with ase.db.connect(path) as database:
            for atoms in ATOMS:
                database.write(atoms)
    elif kind == "npz":
        CRYSTALS.save(path)
    else:
        return [CRYSTALS[0], STRUCTURES[1], ATOMS[2]]
    return path


def test_every_format_gives_the_same_crystals(source):
    attempts = read(source)
    assert len(attempts) == 3
    assert not attempts.failures
    assert attempts.rows.tolist() == [0, 1, 2]
    assert attempts.crystals.G.tolist() == [225] * 3
    assert [crystal.formula for crystal in attempts.crystals] == ["NaCl", "KBr", "LiF"]
    np.testing.assert_allclose(attempts.crystals.L, CRYSTALS.L, atol=1e-5)


def test_broken_rows_of_a_table_are_named_and_the_others_read(tmp_path):
    rows = [{"cif": CIFS[0]}, {"cif": ""}, {"cif": "data_x\n_cell_length_a oops\n"}, {"cif": CIFS[1]}]
    attempts = read(write_csv(tmp_path / "file.csv", rows))
    assert attempts.rows.tolist() == [0, 3]
    assert list(attempts.failures) == [1, 2]
    assert "column 'cif' is empty" in attempts.failures[1]
    assert "cannot be read" in attempts.failures[2]
    assert attempts.places[2] == "row 2"


def test_a_truncated_archive_loses_what_is_behind_the_damage(tmp_path):
    rng = np.random.default_rng(0)
    noise = ["".join(map(chr, rng.integers(97, 122, 20_000))) for _ in CIFS]  # so that rows are apart in the archive
    path = write_csv(
        tmp_path / "file.csv.gz", [{"cif": cif, "noise": text} for cif, text in zip(CIFS, noise, strict=True)]
    )
    path.write_bytes(path.read_bytes()[: int(0.8 * path.stat().st_size)])
    attempts = read(path)
    assert len(attempts.crystals) == 2
    assert list(attempts.failures) == [2]
    assert "damaged" in attempts.failures[2]


def test_a_broken_frame_does_not_take_the_others_with_it(tmp_path):
    path = tmp_path / "file.extxyz"
    ase.io.write(path, [ATOMS[i % 3] for i in range(5)])
    lines = path.read_text().splitlines(keepends=True)
    lines[4] = "two\n"  # the number of atoms of the second frame
    lines[10] = "Cl oops 0 0\n"  # an atom of the third
    del lines[15]  # an atom of the fourth
    path.write_text("".join(lines))
    attempts = read(path)
    assert attempts.rows.tolist() == [0, 4]
    assert list(attempts.failures) == [1, 2, 3]
    assert attempts.places[1] == "row 1 (line 5)"


def test_a_broken_file_of_a_folder_and_a_broken_row_of_a_batch_are_named(tmp_path):
    (tmp_path / "1.cif").write_text(CIFS[0])
    (tmp_path / "2.cif").write_text("no crystal at all")
    attempts = read(tmp_path)
    assert (attempts.rows.tolist(), attempts.places[1]) == ([0], "2.cif")
    assert list(attempts.failures) == [1]
    broken = CRYSTALS[[0, 1, 2]]
    broken.L[1], broken.W[2, 0] = np.nan, 27
    broken.save(tmp_path / "batch.npz")
    attempts = read(tmp_path / "batch.npz")
    assert attempts.rows.tolist() == [0]
    assert "lattice" in attempts.failures[1]
    assert "letters" in attempts.failures[2]


def test_what_the_grammar_cannot_write_down_stays_a_structure():
    overlapping = STRUCTURES[0].copy()
    overlapping.append("Cl", [0.001, 0, 0])
    attempts = read([STRUCTURES[0], many_sites(), overlapping, None])
    assert attempts.rows.tolist() == [0]
    assert attempts.foreign_rows.tolist() == [1, 2]
    assert "32 inequivalent sites" in attempts.remarks[1]
    assert "overlapping" in attempts.remarks[2]
    assert attempts.failures == {3: "the attempt gave nothing"}
    assert list(attempts.skipped) == [1, 2, 3]
    assert structure_labels([STRUCTURES[0], *attempts.foreign]).tolist() == [0, 0, 2]


def test_charges_and_disorder():
    charged, disordered = STRUCTURES[0].copy(), STRUCTURES[0].copy()
    charged.add_oxidation_state_by_guess()
    disordered.replace(0, {"Na": 0.5, "K": 0.5})
    attempts = read([charged, disordered])
    assert attempts.rows.tolist() == [0]
    assert "disordered" in attempts.failures[1]


def test_tables_of_the_benchmark_know_what_was_requested_and_what_failed(tmp_path):
    rows = [
        {"crystal": TEXTS[0], "failure": "", "requested_space_group": 225},
        {"crystal": "", "failure": "action 3 is not allowed", "requested_space_group": 194},
        {"crystal": TEXTS[1], "failure": "", "requested_space_group": 216},
    ]
    attempts = read(write_csv(tmp_path / "samples.csv.gz", rows))
    assert attempts.failures == {1: "action 3 is not allowed"}
    assert attempts.groups.tolist() == [225, 194, 216]
    assert attempts.requested.tolist() == [225, 216]
    first = attempts.first(2)
    assert (len(first), len(first.crystals), first.failures) == (2, 1, {1: "action 3 is not allowed"})


def test_archives_of_the_benchmark_know_it_too(tmp_path):
    failures = np.array([None, "action 3 is not allowed", None, None], object)
    drawn = Drawn(CRYSTALS, np.array([0, 2, 3]), np.array([225, 194, 216, 225]), failures, np.zeros(3))
    drawn.save(tmp_path / "crystals.npz")
    attempts = read(tmp_path / "crystals.npz")
    assert len(attempts) == 4
    assert attempts.rows.tolist() == [0, 2, 3]
    assert attempts.failures == {1: "action 3 is not allowed"}
    assert attempts.requested.tolist() == [225, 216, 225]


def test_several_processes_read_the_same(tmp_path):
    cifs = [CIFS[row % 3] if row % 7 else "" for row in range(300)]
    path = write_csv(tmp_path / "file.csv", [{"cif": cif} for cif in cifs])
    one, two = (as_attempts(path, n_jobs, progress=False) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.crystals.XYZ, two.crystals.XYZ)
    assert one.failures == two.failures


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.csv", None, "no such file"),
        ("file.csv", b"a,b\n1,2\n", "needs a column"),
        ("file.csv.gz", b"no archive", "cannot be read"),
        ("file.db", b"no database", "no database of ASE"),
        ("file.npz", b"no archive", "no file of crystals"),
        ("file.xsf", b"nothing", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_at_all_are_errors(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


def test_structures_survive_the_adaptors():
    attempts = read([AseAtomsAdaptor.get_atoms(structure) for structure in STRUCTURES])
    assert attempts.crystals.A[:, :2].tolist() == CRYSTALS.A[:, :2].tolist()
