"""The command leaves crystals, trace, picture and settings in its folder."""

import json

from tiny_grammar import BINS, CONSTRAINTS, GROUPS, base_model, reward

from agents.search.mcmc import mcmc
from agents.search.mcmc_config import MCMCConfig
from agents.search.mcmc_run import plot
from benchmarks.cli.cli import main
from crystal_env import CrystalBatch


def test_the_trace_is_plotted(tmp_path):
    config = MCMCConfig(chains=5, steps=5, tau=0.4, space_group=GROUPS, constraints=CONSTRAINTS, bins=BINS)
    plot(mcmc(base_model(), reward, config, progress=False), tmp_path / "trace.png")
    assert (tmp_path / "trace.png").stat().st_size > 1000


def test_the_command_leaves_crystals_trace_and_settings(tmp_path, capsys):
    base_model().float().save_pretrained(tmp_path / "base")
    main(["mcmc", "--out", str(tmp_path / "out"), "--model", str(tmp_path / "base"), "--reward", "rewards:Density",
          "--reward-kwargs", '{"target": 2.0}', "--chains", "6", "--steps", "5", "--thin", "2", "--space-group", "221",
          "--constraints", '{"elements": ["Na", "Cl"], "max_sites": 2}'])  # fmt: skip
    out = tmp_path / "out"
    settings = json.loads((out / "run.json").read_text())
    assert settings["settings"]["chains"]["steps"] == 5
    assert settings["calls"] > 6
    assert len(CrystalBatch.load(out / "last" / "crystals.npz")) == 6
    assert len(CrystalBatch.load(out / "samples.npz")) == 18
    assert len((out / "trace.csv").read_text().splitlines()) == 6
    assert (out / "trace.png").stat().st_size > 1000
