"""The command that compares samples, from files to files."""

import csv
import json
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from pymatgen.io.cif import CifWriter

from benchmarks import evaluate
from benchmarks.cli import cli
from benchmarks.evaluation.cli import _names
from crystal_env import Crystal, CrystalBatch, sample_masked

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
TEXTS = [
    SALT.format("Na", "Cl", 5.64),
    SALT.format("K", "Br", 6.7),
    SALT.format("Na", "Cl", 5.6),
    SALT.format("Li", "F", 4.1),
]


@pytest.fixture
def files(tmp_path):
    """Return a folder of CIF files, one of them broken, a batch of the same crystals, and a reference."""
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])
    folder = tmp_path / "generated"
    folder.mkdir()
    for row, crystal in enumerate(crystals):
        CifWriter(crystal.to_structure()).write_file(str(folder / f"{row}.cif"))
    (folder / "9.cif").write_text("no crystal at all")
    crystals.save(tmp_path / "batch.npz")
    crystals[3:].save(tmp_path / "reference.npz")
    return folder, tmp_path / "batch.npz", tmp_path / "reference.npz"


def test_folders_and_batches_are_compared(files, tmp_path, capsys):
    folder, batch, reference = files
    out = tmp_path / "out"
    command = ["evaluate", str(folder), str(batch), "--reference", str(reference), "--out", str(out), "--n-jobs", "1"]
    cli.main(command)
    shown = capsys.readouterr().out
    assert shown.startswith("|  | generated | batch |")
    summary = json.loads((out / "summary.json").read_text())
    for name, total in (("generated", 5), ("batch", 4)):
        shares = summary[name]["shares"]
        counts = {kind: share["count"] for kind, share in shares.items()}
        assert all(share["of"] == total for share in shares.values())
        assert counts["stable (≤ 0.1 eV/atom)"] == 4
        assert counts["unique among the stable"] == 3
        assert counts["S.U.N. (≤ 0.1 eV/atom)"] == 2
    with (out / "batch.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["NaCl", "KBr", "NaCl", "LiF"]
    assert [int(row["novel"]) for row in rows] == [1, 1, 1, 0]
    assert all(abs(float(row["e_above_hull"])) < 0.1 for row in rows)
    assert (out / "table.md").read_text() == shown
    assert (out / "plot.png").stat().st_size > 10_000


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = (tmp_path / "a" / "crystals.npz", tmp_path / "b" / "crystals.npz")
    assert _names(paths) == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "paths"), (["nothing.npz"], "nothing.npz"), (["batch", "--hull", "no-hull"], "no-hull")],
)
def test_mistakes_are_one_line(files, monkeypatch, words, message):
    batch, reference = files[1:]
    words = [str(batch) if word == "batch" else word for word in words]
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", *words, "--reference", str(reference)])
    assert message in str(end.value.code) or end.value.code == 2


def test_a_missing_reference_says_how_to_name_one(files, monkeypatch, tmp_path):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="reference must name files"):
        cli.main(["evaluate", str(files[1])])


def test_no_crystal_is_no_reason_to_fail(files, tmp_path):
    CrystalBatch.empty().save(tmp_path / "empty.npz")
    cli.main(["evaluate", str(tmp_path / "empty.npz"), "--reference", str(files[2]), "--n-jobs", "1"])
    assert len(np.load(tmp_path / "empty.npz")["G"]) == 0


def test_function_takes_structures_and_counts_what_is_none(files):
    crystals = [Crystal.from_string(text) for text in TEXTS]
    mixed = [crystals[0], crystals[1].to_structure(), None, crystals[2].to_atoms()]
    made = evaluate(mixed, reference=[files[2]], weights={225: 1.0}, seconds=2.0, n_jobs=1)
    assert list(made.summary["failures"]) == ["row 2"]
    share = made.summary["shares"]["S.U.N. (≤ 0.1 eV/atom)"]
    assert (share["count"], share["of"]) == (2, 4)
    assert made.summary["S.U.N. per second"] == 1
    assert made.summary["against"]["reference"].keys() == {"reference.npz"}
    assert len(made.summary["against"]["hull"]["hull-mp20-chgnet.npz"]) == 64


def test_relaxed_crystals_are_judged_too(files):
    made = evaluate(files[1], reference=[files[2]], relax=3, n_jobs=1)
    shares = {name: (entry["count"], entry["of"]) for name, entry in made.summary["relaxed"]["shares"].items()}
    assert shares["space group survives"] == (3, 3)
    assert shares["S.U.N. (≤ 0.1 eV/atom)"] == (2, 3)


def test_known_answers(tmp_path):
    """Rock salt shifted, doubled and permuted is one structure, with CsCl two; what is known is not novel."""
    salt = Crystal.from_string(TEXTS[0]).to_structure()
    shifted, doubled = salt.copy(), salt.copy()
    shifted.translate_sites(range(len(shifted)), [0.1, 0.2, 0.3])
    doubled.make_supercell([1, 1, 2])
    permuted = salt.__class__.from_sites(salt.sites[::-1])
    other = Crystal.from_string("221-a-Cs-0-0-0-b-Cl-1/2-1/2-1/2-X-4.12-4.12-4.12-90-90-90")
    same = [salt, shifted, doubled, permuted]
    alone = evaluate(same, reference=CrystalBatch.empty(), n_jobs=1).summary["shares"]
    assert (alone["unique"]["count"], alone["novel"]["count"]) == (1, 4)
    both = evaluate([*same, other], reference=other.to_batch(), n_jobs=1).summary["shares"]
    assert (both["unique"]["count"], both["novel"]["count"]) == (2, 4)
    replayed = evaluate([other, other], reference=other.to_batch(), n_jobs=1).summary["shares"]
    assert replayed["novel"]["count"] == replayed["S.U.N. (≤ 0.1 eV/atom)"]["count"] == 0


def test_random_play_is_hardly_ever_stable_unique_and_novel():
    env = gym.make_vec("CrystalGen-v0", num_envs=100, reward=None, autoreset_mode="SameStep")
    rng, made = np.random.default_rng(0), []
    _, info = env.reset(seed=0)
    while len(made) < 100:
        _, _, terminated, _, info = env.step(sample_masked(info["action_mask"], rng))
        if terminated.any():
            made += list(info["final_info"]["crystal"][terminated])
    shares = evaluate(made, reference=CrystalBatch.empty(), n_jobs=1).summary["shares"]
    assert shares["S.U.N. (≤ 0.1 eV/atom)"]["share"] <= 0.02


def test_python_of_the_page_on_evaluation_runs(capsys):
    page = (Path(__file__).resolve().parents[3] / "docs" / "evaluate.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    namespace: dict[str, object] = {}
    exec(block, namespace)
    summary = namespace["made"].summary
    assert list(summary["failures"]) == ["row 2", "row 3"]
    assert summary["shares"]["S.U.N. (≤ 0.1 eV/atom)"]["count"] == 1
    assert summary["weighted"]["S.U.N. (≤ 0.1 eV/atom)"]["share"] == 1 / 2
    assert summary["relaxed"]["shares"]["S.U.N. (≤ 0.1 eV/atom)"]["of"] == 4


def test_rows_are_named_and_beside_them_stands_what_became_of_the_others(tmp_path, files, capsys):
    out, path = tmp_path / "out", tmp_path / "made.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["crystal", "requested_space_group"], [TEXTS[0], 225], ["nonsense", 225], [TEXTS[3], 216]])
    cli.main(["evaluate", str(path), "--reference", str(files[2]), "--relax", "3", "--out", str(out), "--n-jobs", "1"])
    told = capsys.readouterr().err
    assert f"{path}, row 1: text form must be" in told
    assert f"{path}: 1 of 3 attempts count as failures" in told
    numbers = json.loads((out / "summary.json").read_text())["made"]
    asked = numbers["space groups"]["requested group detected at 0.01 Å"]
    assert (asked["count"], asked["of"]) == (1, 3)
    assert {group: entry["attempts"] for group, entry in numbers["by space group"].items()} == {"216": 1, "225": 2}
    assert sum(numbers["energies"]["counts, the first below and the last above all edges"]) == 2
    with (out / "made.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["failure"].startswith("text form must be")
    assert [row["relaxed_group_survives"] for row in rows] == ["1", "", "1"]
    assert all(Crystal.from_string(row["crystal"]).formula == row["formula"] for row in (rows[0], rows[2]))
