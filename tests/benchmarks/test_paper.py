"""The paper's numbers against its text, and each figure's quantities against plain loops, on tiny data."""

import gzip
import json
import os
import re
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from agents import CrystalFormer, finetune
from benchmarks.paper import published
from benchmarks.paper.__main__ import TARGETS, main, usage
from benchmarks.paper.dataset import element_counts, fig_s1, fig_s2, fig_s3
from benchmarks.paper.dielectrics import (
    candidates,
    fig6,
    fig_s4,
    known_rows,
    lattice_constant,
    parity,
    table_s2,
    table_s3,
)
from benchmarks.paper.outcome import Estimate, Outcome, comparison, percent, render, write
from benchmarks.paper.settings import Settings
from benchmarks.paper.stability import curves, fig2, fig3, fig4, fig5, judge
from benchmarks.paper.work import PaperEnergy, Work
from crystal_env import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents
from crystal_env.reward import RewardResult
from rewards import EnergyAboveHull, Validity
from rewards.matching import Reference

PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper" / "crystalformer-rl.md"
NAMES = ["fig2", "fig3", "fig4", "fig5", "fig6", "table_s2", "table_s3", "fig_s1", "fig_s2", "fig_s3", "fig_s4"]
SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"


def energy(crystals):
    """A reward without a model: energies by the volume, some crystals have none."""
    energies = np.abs(crystals.volume_per_atom() - 20) / 50
    failures = np.array([None if value < 1 else "too far" for value in energies], object)
    terms = {"e_above_hull": np.where(energies < 1, energies, 10.0)}
    terms["success"] = (terms["e_above_hull"] <= 0.1).astype(float)
    return RewardResult(-np.minimum(energies, 10), {**terms, "cut": np.minimum(energies, 10)}, failures)


def merit(crystals):
    """A figure of merit without a model: the gap grows with the volume, the constant is the number of atoms."""
    gap, constant = np.minimum(crystals.volume_per_atom() / 4, 9), 5.0 * crystals.n_atoms(primitive=True)
    terms = {"band_gap": gap, "dielectric_constant": constant, "success": (gap * constant >= 100).astype(float)}
    return RewardResult(gap * constant, terms, np.full(len(crystals), None, object))


@pytest.fixture(scope="module")
def known():
    """Crystals of the base model, few elements and groups, which stand for the training set."""
    model = CrystalFormer.from_pretrained("mp20")
    return model.sample([221, 225, 216, 1], 40, seed=0, elements=["Na", "K", "Cl", "F"], max_sites=3, max_atoms=8)


@pytest.fixture(scope="module")
def patch():
    """A monkeypatch for all tests of this file."""
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def data(tmp_path_factory, patch, known):
    """A data folder with a training set of known crystals, and with dielectric constants of some."""
    folder = tmp_path_factory.mktemp("data")
    cifs = ['"' + structure.to(fmt="cif") + '"' for structure in known.to_structures()]
    for name, part in (("train", cifs[:30]), ("val", cifs[30:])):
        lines = ["material_id,cif"] + [f"{name}-{i},{cif}" for i, cif in enumerate(part)]
        (folder / f"mp20_{name}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    rows = ["material_id,diel_total_target"] + [f"train-{i},{5 + i}" for i in range(20)]
    (folder / "mp_dielectric_targets.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    patch.setenv("CRYSTALGEN_DATA", str(folder))
    return folder


@pytest.fixture(scope="module")
def work(data, tmp_path_factory, patch):
    """Shared computations without a potential, with trainings of two iterations of six crystals."""
    folder = tmp_path_factory.mktemp("paper")
    folders = {"out": folder / "out", "cache": folder / "cache"}
    settings = Settings(size=12, hull="mp20-chgnet", iterations=2, batch_size=6, sft_samples=20, **folders)
    patch.setattr("benchmarks.paper.work.CHUNK", 12)
    for module in ("stability", "dielectrics"):
        patch.setattr(f"benchmarks.paper.{module}.drawing_speed", lambda model, groups: 10.0)
    patch.setitem(sys.modules, "tiny_reward", SimpleNamespace(energy=energy))
    made = Work(settings, energy=energy, merit=merit)
    vars(made)["energy_reward"] = {"reward": "tiny_reward:energy", "reward_kwargs": {}}  # what is computed once
    return made


def test_the_numbers_are_those_of_the_text():
    if not PAPER.is_file():
        pytest.skip("needs the text of the paper")
    text = re.sub(r"\s+", " ", PAPER.read_text())
    for sentence in (
        "RL finetune improves the ratio of stable materials from 44.7% in the base model to 73.4%",
        "increased from 15.3% for the pre-trained model to 21.6% for the RL fine-tuned model",
        "it increases the rate of generating S.U.N. samples from 3.46 to 4.89 per second",
        "significant improvement in the S.U.N. ratio, rising from 2.6% to 15.3%",
        "increasing the S.U.N. ratio from 15.3% to 18.3%",
        "the S.U.N ratio 5.1% of the base model on space group No.225",
        "We generated 5000 samples (which takes 276 seconds with single A100 GPU)",
        "11 materials in Table S2 are *absent* from the Alex-20 dataset",
        "we subsample 1000 data points",
        "For each space group, we generate 1000 structures",
        "band gap 4.10 eV and total dielectric constant 27.49",
        "band gap 1.86 eV and total dielectric constant 46.92",
        "PPO steps between resampling 3",
        "$\\tau$ 0.1 15 for FoM reward",
    ):
        assert sentence in text
    assert [number.value for number in published.NUMBERS["fig3"]] == [1000, 44.7, 73.4, 15.3, 21.6, 3.46, 4.89]
    assert [number.value for number in published.NUMBERS["fig5"]] == [2.6, 15.3, 18.3, 21.6]


def test_the_tables_are_those_of_the_text():
    if not PAPER.is_file():
        pytest.skip("needs the text of the paper")
    text = PAPER.read_text()
    rows = {2: [], 3: []}
    for number, mine in rows.items():
        part = text[text.index(f"\nTable S{number}. ") :].split("\n\n")
        table = next(block for block in part if "\t" in block)
        mine += [line.split("\t") for line in table.splitlines()[1:]]
    assert len(rows[2]) == len(published.TABLE_S2) == 32
    assert len(rows[3]) == len(published.TABLE_S3) == 21
    for row, cells in zip(published.TABLE_S2, rows[2], strict=True):
        assert _plain_formula(cells[0]) == row.formula
        assert [float(cell) for cell in cells[1:5]] == list(row[1:5])
        assert [bool(cell) for cell in [*cells, "", ""][5:7]] == [row.novel, row.unlabelled]
    for row, cells in zip(published.TABLE_S3, rows[3], strict=True):
        assert _plain_formula(cells[0]) == row.formula
        assert [float(cell) for cell in cells[1:]] == list(row[1:])


def test_the_tables_agree_with_the_text_and_with_themselves():
    listed = published.TABLE_S2
    assert sum(row.novel for row in listed) == 11
    assert {row.formula for row in listed if not row.unlabelled} == set(published.LABELS)
    assert set(published.EXAMPLES) <= {row.formula for row in listed if row.novel}
    assert [row.formula for row in listed if not row.novel] == [row.formula for row in published.TABLE_S3]
    assert [row.merit for row in listed] == sorted((row.merit for row in listed), reverse=True)
    for row in listed:
        assert row.band_gap * row.dielectric_constant == pytest.approx(row.merit, rel=4e-3)
        assert row.merit > published.MERIT
        assert row.e_above_hull <= published.STABLE
    for row in published.TABLE_S3:
        assert row.band_gap_eq * row.dielectric_constant_eq == pytest.approx(row.merit_eq, rel=4e-3)


def test_stable_unique_and_novel_is_one_after_the_other(known):
    rng = np.random.default_rng(1)
    drawn = CrystalBatch.concatenate([known[20:], equivalents(known[20:30], rng), equivalents(known[:10], rng)])
    energies = np.where(rng.random(len(drawn)) < 0.1, np.nan, rng.uniform(-0.05, 0.2, len(drawn)))
    verdicts = judge(drawn, energies, Reference(known[:25]))
    matcher, structures = StructureMatcher(), drawn.to_structures(primitive=True)
    reference, seen = known[:25].to_structures(primitive=True), []
    expected = np.zeros(len(drawn), bool)
    for row in sorted(np.flatnonzero(energies < 0.1), key=lambda row: (energies[row], str(drawn[row]))):
        if not any(matcher.fit(structures[row], other) for other in seen):
            seen.append(structures[row])
            expected[row] = not any(matcher.fit(structures[row], other) for other in reference)
    assert verdicts.stable.tolist() == [value < 0.1 for value in energies.tolist()]
    assert verdicts.sun.tolist() == expected.tolist()
    assert 0 < expected.sum() < verdicts.stable.sum() < len(drawn)


def test_fig2_shows_what_each_step_of_the_training_had(work):
    outcome = fig2(work)
    history = [json.loads(line) for line in (work.rl_run() / "history.jsonl").read_text().splitlines()]
    assert outcome.data["step"] == [1, 2]
    assert outcome.data["kl"] == [entry["rollout/kl"] for entry in history]
    assert outcome.data["e_above_hull"] == [entry["terms/cut"] for entry in history]
    assert outcome.estimates["KL from the base model, first steps (nats)"].value == pytest.approx(0, abs=1e-4)
    assert [axes.get_xlabel() for axes in outcome.figure.axes] == ["training step"] * 2
    assert curves(history)[0].tolist() == [1, 2]


def test_the_energy_of_fig2_is_cut_and_ten_for_what_fails():
    apart, close = (Crystal.from_string(SALT.format("Na", "Cl", a)) for a in (5.6, 1.0))
    result = PaperEnergy("mp20-chgnet")([apart, close])
    plain = EnergyAboveHull()([apart, close])
    assert result.terms["cut"].tolist() == [plain.terms["e_above_hull"][0], 10.0]
    assert result.total.tolist() == plain.total.tolist()


def test_fig3_counts_the_crystals_below_the_line(work):
    outcome = fig3(work)
    for name, short in (("base", "base"), ("rl", "RL")):
        crystals = work.crystals(name, 12)
        energies = [value for value in np.abs(crystals.volume_per_atom() - 20) / 50 if value < 1]
        shown = [value for value in outcome.data["e_above_hull"][name] if value is not None]
        assert shown == pytest.approx(energies, abs=1e-5)
        assert outcome.estimates[f"stable, {short} (%)"].value == pytest.approx(
            100 * sum(value < 0.1 for value in energies) / 12
        )
    ours = {name: estimate.value for name, estimate in outcome.estimates.items()}
    assert ours["S.U.N. per second, base"] == pytest.approx(10 * ours["S.U.N., base (%)"] / 100)


def test_fig4_looks_at_each_group_for_itself(work, known, monkeypatch):
    def drawn(self, name, size, group, progress):
        rng = np.random.default_rng([group, name == "rl"])
        return known[rng.integers(40, size=size)]  # with repeats

    monkeypatch.setattr(Work, "crystals", drawn)
    outcome = fig4(work)
    groups = outcome.data["space_groups"]
    assert groups == list(published.SPACE_GROUPS)
    for name in ("base", "rl"):
        for place, group in enumerate(groups):
            crystals = drawn(work, name, 12, group, False)
            verdicts = judge(crystals, work.energies(crystals, name), work.training)
            assert outcome.data[f"stable, {name}"][place] == verdicts.stable.sum()
            assert outcome.data[f"sun, {name}"][place] == verdicts.sun.sum()
    more = sum(ours > base for ours, base in zip(outcome.data["sun, rl"], outcome.data["sun, base"], strict=True))
    assert outcome.estimates["groups where RL has more S.U.N. ones"].value == more
    p1 = 100 * (outcome.data["sun, rl"][0] - np.mean(outcome.data["sun, rl"])) / 12
    assert outcome.estimates["S.U.N. in P1 less S.U.N. in all groups, RL (%)"].value == pytest.approx(p1)


def test_fig5_compares_the_ways_of_fine_tuning(work, monkeypatch):
    monkeypatch.setattr("benchmarks.paper.work.finetune", lambda config: finetune(replace(config, epochs=1)))
    outcome = fig5(work)
    assert outcome.estimates["S.U.N., Alex-20 (%)"] == Estimate(None)
    for name in ("mp20", "sft", "rl"):
        crystals = work.crystals(name, 12)
        verdicts = judge(crystals, work.energies(crystals, name), work.training)
        assert outcome.data[name] == {"stable": verdicts.stable.sum(), "sun": verdicts.sun.sum(), "of": 12}
    assert work.digest("rl") != work.digest("base")
    assert work.digest("mp20") == work.digest("base")


def test_fig6_and_the_tables_list_the_stable_ones_of_high_merit(work, monkeypatch):
    monkeypatch.setattr(Work, "merit_run", lambda self: "mp20")
    outcome = fig6(work)
    drawn = work.crystals("merit", 12, 225)
    assert outcome.data["merit"]["band_gap"] == pytest.approx(np.minimum(drawn.volume_per_atom() / 4, 9), abs=1e-4)
    terms = merit(drawn).terms
    product = [a * b for a, b in zip(terms["band_gap"], terms["dielectric_constant"], strict=True)]
    share = 100 * sum(value > 100 for value in product) / 12
    assert outcome.estimates["merit above 100 eV, RL (%)"].value == pytest.approx(share)
    assert outcome.estimates["mean merit, RL (eV)"].value == pytest.approx(np.mean(product))
    for table in (table_s2, table_s3):
        made = table(work)
        assert render(table.__name__, made).count("\n| 1 |") == 1
        assert all(row["merit"] > 100 for row in made.data["rows"])


def test_candidates_are_sorted_distinct_stable_and_compared_with_what_is_known(work, known):
    drawn = CrystalBatch.concatenate([known, equivalents(known, np.random.default_rng(2))])
    merits, energies = merit(drawn), np.random.default_rng(3).uniform(0, 0.2, len(drawn))
    found = candidates(work, drawn, merits, energies)
    passed = [row for row in range(len(drawn)) if merits.total[row] > 100 and energies[row] < 0.1]
    assert [row.merit for row in found.rows] == sorted((row.merit for row in found.rows), reverse=True)
    structures = found.crystals.to_structures()
    matcher = StructureMatcher()
    assert not any(matcher.fit(a, b) for a, b in combinations(structures, 2))
    for row in passed:  # each that passes is there, or another one of its structure
        assert any(matcher.fit(drawn[row].to_structure(), other) for other in structures)
    training = work.training.crystals.to_structures()
    for row, structure, place in zip(found.rows, structures, found.known, strict=True):
        assert row.novel == (not any(matcher.fit(structure, other) for other in training)) == (place < 0)
        assert place < 0 or matcher.fit(structure, training[place])
    assert any(row.novel for row in found.rows)
    assert not all(row.novel for row in found.rows)


def test_known_rows_are_the_first_of_the_same_structure(known):
    twice = CrystalBatch.concatenate([known, known])
    rows = known_rows(equivalents(known, np.random.default_rng(4)), Reference(twice))
    assert all(0 <= row <= place for place, row in enumerate(rows))
    other = Crystal.from_string(SALT.format("Rb", "Br", 6.9)).to_batch()
    assert known_rows(other, Reference(known)) == [-1]


def test_the_lattice_constant_is_that_of_the_primitive_cell():
    assert lattice_constant(Crystal.from_string(SALT.format("Na", "Cl", 5.64))) == pytest.approx(5.64 / np.sqrt(2))


def test_fig_s1_and_s2_count_the_training_set(work, known, monkeypatch):
    monkeypatch.setattr(work, "settings", replace(work.settings, size=None))
    groups = fig_s1(work).data["counts"]
    crystals = list(work.training.crystals)
    assert len(crystals) == 30
    assert {group: count for group, count in groups.items() if count} == {
        group: [crystal.G for crystal in crystals].count(group) for group in {crystal.G for crystal in crystals}
    }
    elements = fig_s2(work).data["counts"]
    for symbol in ("Na", "K", "Cl", "F", "O"):
        assert elements[symbol] == sum(symbol in crystal.to_structure().symbol_set for crystal in crystals)
    assert element_counts(known).sum() == sum(len(crystal.to_structure().symbol_set) for crystal in known)


def test_fig_s3_counts_the_valid_ones(work):
    outcome = fig_s3(work)
    for name, short in (("mp20", "MP-20"), ("rl", "RL")):
        terms = Validity()(work.crystals(name, 12)).terms
        for kind in ("structural", "compositional"):
            assert outcome.data[short][kind] == sum(value > 0 for value in terms[kind])
            assert outcome.estimates[f"{kind}ly valid, {short} (%)"].value == 100 * sum(terms[kind]) / 12
    assert outcome.estimates["structurally valid, Alex-20 (%)"].value is None


def test_fig_s4_shows_the_test_set_alone(work, tmp_path, monkeypatch):
    rows = ["name,formula,part,eps,predicted_eps", "a,X,train,1,9", "b,X,test,10,8", "c,X,test,20,23", "d,X,test,40,31"]
    (tmp_path / "predictions.csv").write_text("\n".join(rows))
    (tmp_path / "test.json").write_text('{"test_mae_of_training_median": 12}')
    monkeypatch.setattr(Work, "dielectric_run", lambda self: tmp_path)
    outcome = fig_s4(work)
    assert outcome.data == {"dfpt": [10, 20, 40], "m3gnet": [8, 23, 31]}
    assert outcome.estimates["mean absolute error, test"].value == pytest.approx(14 / 3)
    assert outcome.estimates["mean error, test"].value == pytest.approx(-8 / 3)
    assert outcome.estimates["underestimated, test (%)"].value == pytest.approx(200 / 3)
    assert outcome.estimates["structures"].value == 4
    assert parity(np.array([1.0]), np.array([1.0]))["underestimated, test (%)"].value == 0


def test_crystals_are_drawn_once_and_more_of_them_begin_with_the_same(work, monkeypatch):
    few = work.crystals("base", 8)
    more = work.crystals("base", 15)
    again = Work(work.settings)
    again.digest("base")
    monkeypatch.setattr(CrystalFormer, "sample", None)
    assert [str(crystal) for crystal in again.crystals("base", 15)] == [str(crystal) for crystal in more]
    assert [str(crystal) for crystal in more[:8]] == [str(crystal) for crystal in few]
    assert len({str(crystal) for crystal in more}) == 15


def test_a_training_that_has_ended_is_not_run_again(work, monkeypatch):
    run = work.rl_run()
    monkeypatch.setattr("agents.klppo.run.train", None)
    assert work.rl_run() == run


def test_an_outcome_stands_beside_the_paper_and_is_written(work, capsys):
    outcome = fig_s1(work)
    path = write("fig_s1", outcome, work.settings, work.used, 1.0)
    content = json.loads(path.read_text())
    assert [row["quantity"] for row in content["comparison"]][: len(published.NUMBERS["fig_s1"])] == [
        number.quantity for number in published.NUMBERS["fig_s1"]
    ]
    assert set(content["provenance"]) == {"settings", "hashes", "versions", "hardware", "date", "command", "seconds"}
    assert "mp20_train.csv.gz" in content["provenance"]["hashes"]
    assert (path.parent / "fig_s1.png").read_bytes()[1:4] == b"PNG"
    assert "<svg" in (path.parent / "fig_s1.svg").read_text()
    with pytest.raises(ValueError, match="fig3 must give 'crystals of each model'"):
        comparison("fig3", Outcome("", {}, outcome.figure))
    assert percent(np.array([True, False, False, False])).value == 25


def test_the_command_has_eleven_names_and_refuses_others(capsys):
    assert list(TARGETS) == NAMES == list(published.NUMBERS)
    main([])
    shown = capsys.readouterr().out
    assert shown == usage() + "\n"
    assert all(f"  {name} " in shown for name in NAMES)
    with pytest.raises(SystemExit, match=", ".join(NAMES)):
        main(["fig7"])
    with pytest.raises(SystemExit):
        main(["fig2", "--size", "0"])
    assert "size must be at least 1, got 0" in capsys.readouterr().err


def test_the_command_prints_and_writes(data, tmp_path, capsys):
    main(["fig_s2", "--size", "7", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")])
    shown = capsys.readouterr().out
    assert "| crystals of the training set | 1,040,000 | 7 |" in shown
    assert json.loads((tmp_path / "out" / "fig_s2.json").read_text())["provenance"]["settings"]["size"] == 7


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALGEN_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=re.escape(str(tmp_path / "mp20_train.csv.gz"))):
        main(["fig_s1", "--cache", str(tmp_path / "cache")])
    assert Settings().hull_files() is None
    monkeypatch.setenv("CRYSTALGEN_MODELS", str(tmp_path))
    assert Settings().orb_file() is None
    (tmp_path / "orb-v2-2024.ckpt").touch()
    assert Settings().orb_file() == Path(os.environ["CRYSTALGEN_MODELS"]) / "orb-v2-2024.ckpt"


def _plain_formula(text):
    return re.sub(r"\\text|</?sub>|[${}_ ]", "", text)
