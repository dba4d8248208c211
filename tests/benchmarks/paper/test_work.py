"""What figures share is computed once."""

from dataclasses import replace

import pytest

from agents import CrystalFormer
from benchmarks.paper.work import PaperEnergy, Work
from crystal_env import Crystal
from rewards import EnergyAboveHull

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"


def test_fig2_clips_energies_and_gives_failures_ten():
    apart, close = (Crystal.from_string(SALT.format("Na", "Cl", a)) for a in (5.6, 1.0))
    result = PaperEnergy("mp20-chgnet")([apart, close])
    plain = EnergyAboveHull()([apart, close])
    assert result.terms["clipped"].tolist() == [plain.terms["e_above_hull"][0], 10.0]
    assert result.total.tolist() == plain.total.tolist()


def test_crystals_are_sampled_once_and_a_longer_sample_extends(work, monkeypatch):
    few = work.crystals("base", 8)
    more = work.crystals("base", 15)
    again = Work(work.settings)
    again.digest("base")
    monkeypatch.setattr(CrystalFormer, "sample", None)
    assert [str(crystal) for crystal in again.crystals("base", 15)] == [str(crystal) for crystal in more]
    assert [str(crystal) for crystal in more[:8]] == [str(crystal) for crystal in few]
    assert len({str(crystal) for crystal in more}) == 15


def test_crystals_are_kept_apart_by_temperature(work):
    plain = work.crystals("base", 8)
    recommended, again = (Work(replace(work.settings, temperature=None)).crystals("base", 8) for _ in range(2))
    assert [str(crystal) for crystal in recommended] == [str(crystal) for crystal in again]
    assert [str(crystal) for crystal in recommended] != [str(crystal) for crystal in plain]
    assert [str(crystal) for crystal in work.crystals("base", 8)] == [str(crystal) for crystal in plain]
    with pytest.raises(ValueError, match=r"^temperature must be"):
        replace(work.settings, temperature=-1)


def test_a_training_that_has_ended_is_not_run_again(work, monkeypatch):
    run = work.rl_run()
    monkeypatch.setattr("agents.klppo.run.train", None)
    assert work.rl_run() == run
