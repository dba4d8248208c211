"""Figures 2 to 5 against plain loops, on tiny data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from agents import finetune
from benchmarks.paper import published
from benchmarks.paper.outcome import Estimate
from benchmarks.paper.stability import curves, fig2, fig3, fig4, fig5, sun_flags
from benchmarks.paper.work import Work
from crystal_env import CrystalBatch
from crystal_env.equivalents import equivalents
from rewards.matching import Reference


def test_sun_counts_stable_then_unique_then_novel(known):
    rng = np.random.default_rng(1)
    sample = CrystalBatch.concatenate([known[20:], equivalents(known[20:30], rng), equivalents(known[:10], rng)])
    energies = np.where(rng.random(len(sample)) < 0.1, np.nan, rng.uniform(-0.05, 0.2, len(sample)))
    flags = sun_flags(sample, energies, Reference(known[:25]))
    matcher, structures = StructureMatcher(), sample.to_structures(primitive=True)
    reference, seen = known[:25].to_structures(primitive=True), []
    expected = np.zeros(len(sample), bool)
    for row in sorted(np.flatnonzero(energies < 0.1), key=lambda row: (energies[row], str(sample[row]))):
        if not any(matcher.fit(structures[row], other) for other in seen):
            seen.append(structures[row])
            expected[row] = not any(matcher.fit(structures[row], other) for other in reference)
    assert flags.stable.tolist() == [value < 0.1 for value in energies.tolist()]
    assert flags.sun.tolist() == expected.tolist()
    assert 0 < expected.sum() < flags.stable.sum() < len(sample)


def test_fig2_shows_what_each_step_of_the_training_had(work):
    outcome = fig2(work)
    history = [json.loads(line) for line in (work.rl_run() / "history.jsonl").read_text().splitlines()]
    assert outcome.data["step"] == [1, 2]
    assert outcome.data["kl"] == [entry["rollout/kl"] for entry in history]
    assert outcome.data["e_above_hull"] == [entry["terms/clipped"] for entry in history]
    assert outcome.estimates["KL from the base model, first steps (nats)"].value == pytest.approx(0, abs=1e-4)
    assert [axes.get_xlabel() for axes in outcome.figure.axes] == ["training step"] * 2
    assert curves(history)[0].tolist() == [1, 2]


def test_fig3_counts_the_crystals_below_the_line(work):
    outcome = fig3(work)
    for name, short in (("base", "base"), ("base_sharp", "base sharp"), ("rl", "RL")):
        crystals = work.crystals(name, 12)
        energies = [value for value in np.abs(crystals.volume_per_atom() - 20) / 50 if value < 1]
        shown = [value for value in outcome.data["e_above_hull"][name] if value is not None]
        assert shown == pytest.approx(energies, abs=1e-5)
        assert outcome.estimates[f"stable, {short} (%)"].value == pytest.approx(
            100 * sum(value < 0.1 for value in energies) / 12
        )
    ours = {name: estimate.value for name, estimate in outcome.estimates.items()}
    assert ours["S.U.N. per second, base"] == pytest.approx(10 * ours["S.U.N., base (%)"] / 100)
    crystals, sharp = work.crystals("rl", 12), work.temperature("rl")
    with torch.inference_mode():
        after, before = (work.model(name).log_prob(crystals, temperature=sharp) for name in ("rl", "base"))
    expected = sum(float((getattr(after, part) - getattr(before, part)).mean()) for part in ("letters", "elements"))
    found = ours["KL from the base model, RL, letters and elements (nats)"]
    assert found == pytest.approx(expected, abs=1e-5)
    assert found != 0


def test_the_preset_paper_is_compared_at_temperature_1(paper_work):
    outcome = fig3(paper_work)
    assert not any("sharp" in name for name in outcome.estimates)
    assert outcome.estimates["KL from the base model, RL (nats)"].value != 0
    assert "as in Table S1, on the energy above the hull" in outcome.caption
    assert fig2(paper_work).estimates["tau (eV/atom)"] == Estimate(0.1)
    shown = {f"{kind}, {model}" for kind in ("stable", "sun") for model in ("base", "rl")}
    assert set(fig4(paper_work).data) == {"space_groups", *shown}


def test_fig4_looks_at_each_group_for_itself(work, known, monkeypatch):
    def sample(self, name, size, group, progress):
        rng = np.random.default_rng([group, name == "rl"])
        return known[rng.integers(40, size=size)]  # with repeats

    models = ("base", "base_sharp", "rl")

    monkeypatch.setattr(Work, "crystals", sample)
    outcome = fig4(work)
    groups = outcome.data["space_groups"]
    assert groups == list(published.SPACE_GROUPS)
    for name in models:
        for place, group in enumerate(groups):
            crystals = sample(work, name, 12, group, False)
            flags = sun_flags(crystals, work.energies(crystals, name), work.training)
            assert outcome.data[f"stable, {name}"][place] == flags.stable.sum()
            assert outcome.data[f"sun, {name}"][place] == flags.sun.sum()
    more = sum(ours > base for ours, base in zip(outcome.data["sun, rl"], outcome.data["sun, base"], strict=True))
    assert outcome.estimates["groups where RL has more S.U.N. ones"].value == more
    p1 = 100 * (outcome.data["sun, rl"][0] - np.mean(outcome.data["sun, rl"])) / 12
    assert outcome.estimates["S.U.N. in P1 less S.U.N. in all groups, RL (%)"].value == pytest.approx(p1)


def test_fig5_compares_the_ways_of_fine_tuning(work, monkeypatch):
    monkeypatch.setattr("benchmarks.paper.work.finetune", lambda config: finetune(replace(config, epochs=1)))
    outcome = fig5(work)
    assert outcome.estimates["S.U.N., Alex-20 (%)"] == Estimate(None)
    for name in ("mp20", "base_sharp", "sft", "rl"):
        crystals = work.crystals(name, 12)
        flags = sun_flags(crystals, work.energies(crystals, name), work.training)
        assert outcome.data[name] == {"stable": flags.stable.sum(), "sun": flags.sun.sum(), "of": 12}
    assert work.digest("rl") != work.digest("base")
    assert work.digest("mp20") == work.digest("base")
