"""Figures 6 and S4 and the tables of dielectrics against plain loops, on tiny data."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from agents import CrystalFormer
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
from benchmarks.paper.outcome import render
from benchmarks.paper.settings import Settings
from benchmarks.paper.work import Work
from crystal_env import Crystal, CrystalBatch
from crystal_env.equivalents import equivalents
from rewards.matching import Reference

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"


def test_fig6_and_tables_list_stable_crystals_of_high_merit(work, fom_reward, monkeypatch):
    monkeypatch.setattr(Work, "fom_run", lambda self: "mp20")
    outcome = fig6(work)
    crystals = work.crystals("fom", 12, 225)
    assert outcome.data["fom"]["band_gap"] == pytest.approx(np.minimum(crystals.volume_per_atom() / 4, 9), abs=1e-4)
    terms = fom_reward(crystals).terms
    product = [a * b for a, b in zip(terms["band_gap"], terms["dielectric_constant"], strict=True)]
    fraction = 100 * sum(value > 100 for value in product) / 12
    assert outcome.estimates["figure of merit above 100 eV, RL (%)"].value == pytest.approx(fraction)
    assert outcome.estimates["mean figure of merit, RL (eV)"].value == pytest.approx(np.mean(product))
    for table in (table_s2, table_s3):
        made = table(work)
        assert render(table.__name__, made).count("\n| 1 |") == 1
        assert all(row["figure_of_merit"] > 100 for row in made.data["rows"])


def test_candidates_are_sorted_distinct_stable_and_looked_up(work, known, fom_reward):
    crystals = CrystalBatch.concatenate([known, equivalents(known, np.random.default_rng(2))])
    foms, energies = fom_reward(crystals), np.random.default_rng(3).uniform(0, 0.2, len(crystals))
    found = candidates(work, crystals, foms, energies)
    passed = [row for row in range(len(crystals)) if foms.total[row] > 100 and energies[row] < 0.1]
    assert [row.figure_of_merit for row in found.rows] == sorted(
        (row.figure_of_merit for row in found.rows), reverse=True
    )
    structures = found.crystals.to_structures()
    matcher = StructureMatcher()
    assert not any(matcher.fit(a, b) for a, b in combinations(structures, 2))
    for row in passed:  # each that passes is there, or another one of its structure
        assert any(matcher.fit(crystals[row].to_structure(), other) for other in structures)
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


def test_fig6_compares_finished_runs_with_the_base_model(work, fom_reward, known, tmp_path):
    for name in ("strong", "weak"):
        CrystalFormer.from_pretrained("mp20").save_pretrained(tmp_path / name / "model")
    runs = tuple(tmp_path / name for name in ("strong", "weak"))
    of_runs = Work(replace(work.settings, runs=runs), energy=work._energy, fom=fom_reward)
    vars(of_runs)["labelled"] = Reference(known[:3])
    outcome = fig6(of_runs)
    assert {"base", "strong", "weak"} < set(outcome.data)
    crystals = of_runs.crystals("weak", 12, 225)
    distinct, structures = [], crystals.to_structures(primitive=True)
    for structure in structures:
        if not any(StructureMatcher().fit(structure, other) for other in distinct):
            distinct.append(structure)
    assert outcome.estimates["distinct structures, weak"].value == len(distinct)
    stable = np.abs(crystals.volume_per_atom() - 20) / 50 < 0.1
    both = 100 * np.mean(stable & (fom_reward(crystals).total > 100))
    assert outcome.estimates["figure of merit above 100 eV and stable, weak (%)"].value == pytest.approx(both)
    assert outcome.estimates["figure of merit above 100 eV and stable, RL (%)"].value == pytest.approx(both)
    with pytest.raises(ValueError, match="runs must have different names"):
        Settings(runs=(runs[0], runs[0]))
    with pytest.raises(ValueError, match="has no model"):
        Settings(runs=(tmp_path,))
