"""Files of scored crystals are exact, and what is malformed is refused with its place."""

import csv
import gzip
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scored_crystals import assert_same, full, transitions

from agents import CrystalFormer
from agents.training.replay_buffer import ReplayBuffer
from agents.training.replay_file import read_transitions, write_transitions
from agents.training.sample_files import write_samples
from agents.training.transitions import Transitions
from crystal_env import CrystalBatch
from crystal_env.reward import RewardResult

SALT = "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.6-5.6-5.6-90-90-90"
SUFFIXES = [".npz", ".csv", ".csv.gz"]


@pytest.fixture(scope="module")
def sampled():
    """Crystals of all kinds, with numbers that no short decimal gives."""
    crystals = CrystalFormer.from_pretrained("mp20").sample("mp20", 60, seed=3)
    rng, n = np.random.default_rng(0), len(crystals)
    failures = np.full(n, None, object)
    failures[[3, 5]] = 'two atoms, "Na" and "Cl",\nare 0.4 Å apart', "energy: nan"
    terms = {"success": rng.integers(2, size=n) * 1.0, "e hull": 1 / 3 ** rng.random(n)}
    result = RewardResult(rng.normal(size=n), terms, failures)
    log_prob = rng.normal(size=(n, 4)) * 1e3
    numbers = (log_prob, log_prob + 1e-13, rng.integers(-5, 9, n), rng.random(n) < 0.5)
    return Transitions(crystals, np.clip(result.total, -1, 1), result, *numbers)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_bit_for_bit(sampled, tmp_path, suffix):
    buffer = ReplayBuffer(100)
    buffer.add(sampled)
    buffer.save(tmp_path / f"replay{suffix}")
    loaded = ReplayBuffer.load(tmp_path / f"replay{suffix}")
    assert_same(sampled, loaded)
    assert loaded.keys() == buffer.keys()
    loaded.save(tmp_path / f"again{suffix}")
    if suffix != ".npz":  # whose members carry the time
        assert (tmp_path / f"again{suffix}").read_bytes() == (tmp_path / f"replay{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_buffer_is_a_file(tmp_path, suffix):
    ReplayBuffer(5).save(tmp_path / f"replay{suffix}")
    assert len(ReplayBuffer.load(tmp_path / f"replay{suffix}")) == 0


def test_a_table_has_a_line_for_each_crystal(tmp_path):
    data = transitions([3, 4])
    write_transitions(tmp_path / "replay.csv", data)
    with (tmp_path / "replay.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["crystal"] == str(data.crystals[0])
    assert float(first["reward"]) == data.rewards[0]
    assert float(first["total"]) == data.result.total[0]
    assert float(second["term_e"]) == 4 / 3
    assert (first["failure"], second["failure"]) == ("no energy", "")
    assert float(first["reference_log_prob_lattice"]) == data.reference_log_prob[0, 3]
    assert (first["iteration"], first["source"], second["source"]) == ("0", "other", "policy")


def test_an_archive_is_a_file_of_crystals(tmp_path):
    data = transitions(range(5))
    write_transitions(tmp_path / "replay.npz", data)
    assert list(CrystalBatch.load(tmp_path / "replay.npz")) == list(data.crystals)


def test_crystals_and_rewards_are_enough(tmp_path):
    crystals = transitions([3, 9]).crystals
    lines = ["name,reward,crystal", *(f"nr {row},{row / 3!r},{crystal}" for row, crystal in enumerate(crystals)), ""]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    arrays = dict(zip(("G", "W", "A", "XYZ", "L"), crystals.arrays, strict=True))
    np.savez(tmp_path / "a.npz", rewards=[0, 1 / 3], **arrays)
    unknown = np.full((2, 4), np.nan)
    result = RewardResult(np.array([0, 1 / 3]), {}, np.full(2, None, object))
    expected = Transitions(crystals, result.total, result, unknown, unknown, np.zeros(2, int), np.zeros(2, bool))
    assert_same(read_transitions(tmp_path / "a.csv"), expected)
    assert_same(read_transitions(tmp_path / "a.npz"), expected)


def test_tables_of_samples_are_read(tmp_path):
    data = transitions(range(8))
    write_samples(tmp_path, data.crystals, data.result, {"log_prob": data.log_prob.sum(1)})
    loaded = read_transitions(tmp_path / "crystals.csv")
    assert list(loaded.crystals) == list(data.crystals)
    np.testing.assert_array_equal(loaded.rewards, data.result.total)
    np.testing.assert_array_equal(loaded.result.success(), data.result.success())
    assert loaded.result.failures.tolist() == data.result.failures.tolist()


PARTS_OF = "log_prob_letters,log_prob_elements,log_prob_coordinates,log_prob_lattice"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"line 1 of .*: columns \['crystal', 'reward'\] are needed, got \[\]"),
        ("crystal,rewrad\n", r"line 1 of .*: columns \['reward'\] are needed"),
        ("crystal,reward,reward\n", r"line 1 of .*: columns \['reward'\] come twice"),
        ("crystal,reward,success,term_success\n", r"line 1 of .*: columns \['term_success'\] come twice"),
        ("crystal,reward,log_prob_letters\n", "line 1 of .*: columns .* come together, got"),
        (f"crystal,reward\n{SALT},1\n{SALT},x\n", "line 3 of .*: reward must be a number, got 'x'"),
        (f"crystal,reward\n{SALT},\n", "line 2 of .*: reward must be a number, got ''"),
        (f"crystal,reward\n{SALT},nan\n", "line 2 of .*: reward must be a finite number, got 'nan'"),
        (f"crystal,reward,total\n{SALT},0,inf\n", "line 2 of .*: total must be a finite number, got 'inf'"),
        (f"crystal,reward,term_e\n{SALT},0,\n", "line 2 of .*: term_e must be a number"),
        (f"crystal,reward\n{SALT}\n", "line 2 of .*: 2 cells are needed, got 1"),
        (f"crystal,reward\n{SALT},1,2\n", "line 2 of .*: 2 cells are needed, got 3"),
        ("crystal,reward\nNaCl,1\n", "line 2 of .*: text form must be"),
        (f"crystal,reward\n{SALT.replace('225', '300')},1\n", "line 2 of .*: space group must be"),
        (f"crystal,reward\n{SALT.replace('Na', 'Qq')},1\n", "line 2 of .*Qq"),
        (f"crystal,reward\n{SALT.replace('90-90-90', '90-90-80')},1\n", "line 2 of .*: lattice L"),
        (f"crystal,reward,iteration\n{SALT},1,1.5\n", "line 2 of .*: iteration must be an integer, got '1.5'"),
        (f"crystal,reward,iteration\n{SALT},1,{10**30}\n", "line 2 of .*: iteration must be an integer"),
        (f"crystal,reward,source\n{SALT},1,me\n", r"line 2 of .*: source must be in \('other', 'policy'\), got 'me'"),
        (f"crystal,reward,{PARTS_OF}\n{SALT},1,-1,-2,,-3\n", "line 2 of .*: log_prob_coordinates must be a number"),
        (f'crystal,reward\n{SALT},1\n"{SALT},1\n', "line 3 of .*: unexpected end of data"),
    ],
)
def test_malformed_tables_are_refused_with_the_line(tmp_path, text, words):
    path = tmp_path / "replay.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        ReplayBuffer.load(path)


class Malicious:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": None}, "needs arrays .*'rewards'"), ({"G": None}, "needs arrays"),
        ({"rewards": np.zeros(3)}, r"total must have shape \(3,\)|must have shape"),
        ({"rewards": np.array([0, np.nan])}, "row 1 of .*: rewards must be a finite number, got nan"),
        ({"term_e": np.array([np.inf, 0])}, "row 0 of .*: term_e must be a finite number, got inf"),
        ({"total": np.zeros((2, 1))}, r"total must have shape \(2,\), got \(2, 1\)"),
        ({"log_prob": np.zeros((2, 3))}, r"log_prob must have shape \(2, 4\), got \(2, 3\)"),
        ({"failures": np.array([1, 2])}, "failures must be of a dtype of kind 'U', got int64"),
        ({"is_sampled": np.array([1, 2])}, "is_sampled must be of a dtype of kind 'b'"),
        ({"iteration": np.array([1.0, 2])}, "iteration must be of a dtype of kind 'iu'"),
        ({"W": np.ones((2, 21))}, "W must be of a dtype of kind 'iu', got float64"),
        ({"A": np.ones((2, 5), int)}, "A must have shape"),
        ({"G": np.array([221, 231])}, "row 1 of .*: space group G must be an integer from 1 to 230"),
        ({"failures": np.array([Malicious(), None], object)}, "must hold arrays of numbers and texts"),
    ],
)  # fmt: skip
def test_malformed_archives_are_refused_with_the_row(tmp_path, capsys, changes, words):
    path = tmp_path / "replay.npz"
    write_transitions(path, transitions([0, 5]))
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=words):
        ReplayBuffer.load(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"replay{suffix}"
    with pytest.raises(ValueError, match="no such file"):
        ReplayBuffer.load(path)
    write_transitions(path, transitions(range(50)))
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], pickle.dumps(Malicious()), b"\xff\xfe" + whole[2:]):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=f"replay{suffix}"):
            ReplayBuffer.load(path)


def test_other_suffixes_are_refused(tmp_path):
    for act in (full(transitions([1])).save, ReplayBuffer.load):
        with pytest.raises(ValueError, match=r"path must end with one of .*, got .*replay.json"):
            act(tmp_path / "replay.json")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "replay.csv.gz"
    write_transitions(path, transitions([1]))
    broken = replace(transitions([1, 2]), iteration=np.zeros(1, int))
    with pytest.raises(IndexError):
        write_transitions(path, broken)
    assert gzip.decompress(path.read_bytes()).count(b"\n") == 2
    assert [file.name for file in tmp_path.iterdir()] == ["replay.csv.gz"]
