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

from agents.training.sample_files import write_samples
from benchmarks.samples.readers import read_samples
from benchmarks.samples.samples import Samples
from crystal_env import Crystal, CrystalBatch
from rewards.matching import structure_labels

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
TEXTS = [SALT.format("Na", "Cl", 5.64), SALT.format("K", "Br", 6.7), SALT.format("Li", "F", 4.1)]
CRYSTALS = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])
STRUCTURES = CRYSTALS.to_structures(primitive=True)
CIFS = [str(CifWriter(structure)) for structure in STRUCTURES]
ATOMS = CRYSTALS.to_atoms()


def read(source):
    return read_samples(source, 1, progress=False)


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
    samples = read(source)
    assert len(samples) == 3
    assert not samples.failures
    assert samples.rows.tolist() == [0, 1, 2]
    assert samples.crystals.G.tolist() == [225] * 3
    assert [crystal.formula for crystal in samples.crystals] == ["NaCl", "KBr", "LiF"]
    np.testing.assert_allclose(samples.crystals.L, CRYSTALS.L, atol=1e-5)


def test_broken_rows_of_a_table_are_named_and_the_others_read(tmp_path):
    rows = [{"cif": CIFS[0]}, {"cif": ""}, {"cif": "data_x\n_cell_length_a oops\n"}, {"cif": CIFS[1]}]
    samples = read(write_csv(tmp_path / "file.csv", rows))
    assert samples.rows.tolist() == [0, 3]
    assert list(samples.failures) == [1, 2]
    assert "column 'cif' is empty" in samples.failures[1]
    assert "cannot be read" in samples.failures[2]
    assert samples.places[2] == "row 2"


def test_a_truncated_archive_loses_what_is_behind_the_damage(tmp_path):
    rng = np.random.default_rng(0)
    noise = ["".join(map(chr, rng.integers(97, 122, 20_000))) for _ in CIFS]  # so that rows are apart in the archive
    path = write_csv(
        tmp_path / "file.csv.gz", [{"cif": cif, "noise": text} for cif, text in zip(CIFS, noise, strict=True)]
    )
    path.write_bytes(path.read_bytes()[: int(0.8 * path.stat().st_size)])
    samples = read(path)
    assert len(samples.crystals) == 2
    assert list(samples.failures) == [2]
    assert "damaged" in samples.failures[2]


def test_a_broken_frame_does_not_take_the_others_with_it(tmp_path):
    path = tmp_path / "file.extxyz"
    ase.io.write(path, [ATOMS[i % 3] for i in range(5)])
    lines = path.read_text().splitlines(keepends=True)
    lines[4] = "two\n"  # the number of atoms of the second frame
    lines[10] = "Cl oops 0 0\n"  # an atom of the third
    del lines[15]  # an atom of the fourth
    path.write_text("".join(lines))
    samples = read(path)
    assert samples.rows.tolist() == [0, 4]
    assert list(samples.failures) == [1, 2, 3]
    assert samples.places[1] == "row 1 (line 5)"


def test_broken_files_of_folders_and_rows_of_batches_are_named(tmp_path):
    (tmp_path / "1.cif").write_text(CIFS[0])
    (tmp_path / "2.cif").write_text("no crystal at all")
    samples = read(tmp_path)
    assert (samples.rows.tolist(), samples.places[1]) == ([0], "2.cif")
    assert list(samples.failures) == [1]
    broken = CRYSTALS[[0, 1, 2]]
    broken.L[1], broken.W[2, 0] = np.nan, 27
    broken.save(tmp_path / "batch.npz")
    samples = read(tmp_path / "batch.npz")
    assert samples.rows.tolist() == [0]
    assert "lattice" in samples.failures[1]
    assert "letters" in samples.failures[2]


def test_what_is_outside_the_representation_stays_a_structure():
    overlapping = STRUCTURES[0].copy()
    overlapping.append("Cl", [0.001, 0, 0])
    samples = read([STRUCTURES[0], many_sites(), overlapping, None])
    assert samples.rows.tolist() == [0, 1, 2]
    assert samples.represented.tolist() == [True, False, False]
    assert "32 inequivalent sites" in samples.outside[1]
    assert "overlapping" in samples.outside[2]
    assert samples.failures == {3: "the attempt gave nothing"}
    assert structure_labels(samples.comparable()).tolist() == [0, 0, 2]


def test_charges_and_disorder():
    charged, disordered = STRUCTURES[0].copy(), STRUCTURES[0].copy()
    charged.add_oxidation_state_by_guess()
    disordered.replace(0, {"Na": 0.5, "K": 0.5})
    samples = read([charged, disordered])
    assert samples.rows.tolist() == [0]
    assert "disordered" in samples.failures[1]


def test_tables_of_the_benchmark_know_requests_and_failures(tmp_path):
    rows = [
        {"crystal": TEXTS[0], "failure": "", "requested_space_group": 225},
        {"crystal": "", "failure": "action 3 is not allowed", "requested_space_group": 194},
        {"crystal": TEXTS[1], "failure": "", "requested_space_group": 216},
    ]
    samples = read(write_csv(tmp_path / "samples.csv.gz", rows))
    assert samples.failures == {1: "action 3 is not allowed"}
    assert samples.requested.tolist() == [225, 194, 216]


def test_a_table_may_hold_crystals_and_structures(tmp_path):
    rows = [{"crystal": TEXTS[0], "cif": CIFS[0]}, {"crystal": "", "cif": CIFS[1]}, {"crystal": "", "cif": ""}]
    samples = read(write_csv(tmp_path / "samples.csv", rows))
    assert [crystal.formula for crystal in samples.crystals] == ["NaCl", "KBr"]
    assert samples.failures == {2: "column 'crystal' is empty"}


def test_archives_of_the_benchmark_know_it_too(tmp_path):
    expected = Samples.from_crystals(CRYSTALS, requested=np.array([225, 216, 225])).reject({1: "invalid action"})
    expected.save(tmp_path / "crystals.npz")
    for source in (tmp_path / "crystals.npz", tmp_path):  # the file, and the folder of a seed
        samples = read(source)
        assert (samples.n_attempts, samples.rows.tolist()) == (3, [0, 2])
        assert samples.failures == {1: "invalid action"}
        assert samples.requested.tolist() == [225, 216, 225]


def test_everything_that_the_sampling_command_writes_is_read(tmp_path):
    write_samples(tmp_path / "out", CRYSTALS)
    for source in ("out", "out/crystals.csv", "out/crystals.npz", "out/cif"):
        assert [crystal.formula for crystal in read(tmp_path / source).crystals] == ["NaCl", "KBr", "LiF"], source


def test_several_processes_read_the_same(tmp_path):
    cifs = [CIFS[row % 3] if row % 7 else "" for row in range(300)]
    path = write_csv(tmp_path / "file.csv", [{"cif": cif} for cif in cifs])
    one, two = (read_samples(path, n_jobs, progress=False) for n_jobs in (1, 2))
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
    samples = read([AseAtomsAdaptor.get_atoms(structure) for structure in STRUCTURES])
    assert samples.crystals.A[:, :2].tolist() == CRYSTALS.A[:, :2].tolist()
