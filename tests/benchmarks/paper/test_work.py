"""What figures share is computed once."""

from dataclasses import replace

import numpy as np
import pytest

from agents import CrystalFormer
from agents.crystalformer.temperature import Temperatures
from agents.klppo.config import SHARP
from agents.training.run_folder import RunFolder
from benchmarks.paper.published import TAU
from benchmarks.paper.work import PaperEnergy, PaperSUN, Work
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
    cold, again = (Work(replace(work.settings, temperature=0.5)).crystals("base", 8) for _ in range(2))
    assert [str(crystal) for crystal in cold] == [str(crystal) for crystal in again]
    assert [str(crystal) for crystal in cold] != [str(crystal) for crystal in plain]
    assert [str(crystal) for crystal in work.crystals("base", 8)] == [str(crystal) for crystal in plain]
    with pytest.raises(ValueError, match=r"^temperature must be"):
        replace(work.settings, temperature=-1)


def test_a_training_that_has_ended_is_not_run_again(work, monkeypatch):
    run = work.rl_run()
    monkeypatch.setattr("agents.klppo.run.train", None)
    assert work.rl_run() == run


def test_each_preset_has_its_reward_and_temperature(work, paper_work):
    best, paper = (RunFolder.settings_of(one.rl_run()) for one in (work, paper_work))
    assert (paper["reward"], paper["tau"], paper["loss"]) == ("tiny_reward:energy", TAU, "ppo")
    assert (best["reward"], best["tau"], best["loss"]) == ("benchmarks.paper.work:PaperSUN", 0.01, "topr")
    assert best["reward_kwargs"]["energy"] == "tiny_reward:energy"
    assert work.rl_models == ("base", "base_sharp", "rl")
    assert paper_work.rl_models == ("base", "rl")
    assert work.temperature("base_sharp") == work.temperature("rl") == Temperatures.of(SHARP)
    assert all(work.temperature(name).are_one for name in ("base", "mp20"))
    at_one = Work(replace(work.settings, temperature=1.0))
    assert at_one.rl_models == ("base", "rl")
    assert at_one.temperature("rl").are_one
    before, sharp = (work.crystals(name, 8) for name in ("base", "base_sharp"))
    assert [str(crystal) for crystal in before] != [str(crystal) for crystal in sharp]


def test_sun_of_the_paper_has_its_energies_and_training_set(work, known):
    result = PaperSUN(str(work.settings.training_file()), "tiny_reward:energy", {})(known)
    energies = work.energies(known, "known")
    scored = np.isfinite(energies)
    assert result.scored.tolist() == scored.tolist()
    assert result.terms["e_above_hull"][scored].tolist() == energies[scored].tolist()
    assert result.terms["clipped"][scored].tolist() == energies[scored].tolist()
    assert not result.terms["novel"][:30][scored[:30]].any()
    assert result.terms["novel"].any()
