"""Figures 2 to 5: reinforcement learning from the energy above the hull (section III A)."""

import time
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from moyopy import SpaceGroupType
from numpy.typing import NDArray
from tqdm import tqdm

from agents import CrystalFormer
from agents.crystalformer.temperature import Temperature
from agents.klppo.config import KLPPOConfig
from agents.training.run_folder import RunFolder
from benchmarks.metrics.kl import kl_divergence_on
from benchmarks.metrics.properties import fixed_order
from benchmarks.paper.captions import about, about_rl
from benchmarks.paper.outcome import Estimate, Outcome, mean, percent
from benchmarks.paper.plots import plot_bars, plot_energies
from benchmarks.paper.published import SPACE_GROUPS, STABLE, TAU
from benchmarks.paper.work import Work
from crystal_env.crystal import CrystalBatch
from rewards.matching import Reference, structure_labels

_DEEP = -0.2  # eV/atom: below, the hull lacks a phase or the potential fails
_TIMED = 100  # crystals
_NAMES = {"mp20": "MP-20", "base": "Alex-20", "base_sharp": "base, sharp", "sft": "SFT", "rl": "RL"}
_SHORT = {"base": "base", "base_sharp": "base sharp", "rl": "RL"}
_LABELS = {"base": "pre-trained", "base_sharp": "pre-trained, sharp", "rl": "RL fine-tuned"}


class SunFlags(NamedTuple):
    """Which of B crystals are stable, and which are stable, unique and novel (S.U.N.).

    Attributes:
        stable (B,): below 0.1 eV/atom above the hull.
        sun (B,): one of each structure among the stable ones that the training set does not have.
    """

    stable: NDArray[np.bool_]
    sun: NDArray[np.bool_]


def sun_flags(crystals: CrystalBatch, energies: NDArray[np.float64], training: Reference, n_jobs: int = 1) -> SunFlags:
    """Return which crystals are stable and which are S.U.N., as section III A defines it.

    Crystals are ordered by energy, then by their text, so that the lowest of equal structures counts.

    Args:
        crystals: B crystals.
        energies: (B,) energies above the hull in eV/atom, NaN without one.
        training: crystals against which novelty is measured.
        n_jobs: processes that compare structures.
    """
    stable, sun = energies < STABLE, np.zeros(len(crystals), bool)  # NaN is not
    rows = np.flatnonzero(stable)
    rows = rows[fixed_order(crystals[rows], energies[rows])]
    first = rows[structure_labels(crystals[rows], n_jobs=n_jobs) == np.arange(len(rows))]
    sun[first] = ~training.contains(crystals[first], n_jobs=n_jobs)
    return SunFlags(stable, sun)


def fig2(work: Work) -> Outcome:
    """Return energy above the hull and KL divergence from the base model by training step."""
    history = RunFolder(work.rl_run()).history()
    steps, energy, divergence = curves(history)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, values, label in zip(
        figure.subplots(1, 2),
        (energy, divergence),
        ("mean energy above hull (eV/atom)", r"KL$(p_\theta \| p_\mathrm{base})$ (nats)"),
        strict=True,
    ):
        axes.plot(steps, values, ".-", color="tab:orange")
        axes.set(xlabel="training step", ylabel=label)
    few, is_paper, batch_size = max(1, len(steps) // 5), work.settings.preset == "paper", work.settings.batch_size
    config = KLPPOConfig.from_preset(work.settings.preset)
    replayed = round(config.replay_ratio * batch_size / config.minibatch_size)
    estimates = {
        "tau (eV/atom)": Estimate(TAU if is_paper else None),
        "crystals of a step": Estimate(batch_size),
        "optimiser steps between resampling": Estimate(config.n_epochs if is_paper else replayed),
        "mean energy above hull, first steps (eV/atom)": Estimate(float(energy[:few].mean())),
        "mean energy above hull, last steps (eV/atom)": Estimate(float(energy[-few:].mean())),
        "KL from the base model, first steps (nats)": Estimate(float(divergence[:few].mean())),
        "KL from the base model, last steps (nats)": Estimate(float(divergence[-few:].mean())),
    }
    kind = "stable" if is_paper else "new S.U.N."
    for place, entries in (("first", history[:few]), ("last", history[-few:])):
        rate = float(np.mean([entry["rollout/success_rate"] for entry in entries]))
        estimates[f"{kind}, {place} steps (%)"] = Estimate(100 * rate)
    caption = (
        f"{about(work)} {about_rl(work.settings)} First and last steps are means of {few}. Energies are clipped to "
        "±10 eV/atom, and a crystal that cannot be scored counts 10, as in the paper's code."
    )
    data = {"step": steps.tolist(), "e_above_hull": energy.tolist(), "kl": divergence.tolist()}
    return Outcome(caption, estimates, figure, data)


def curves(history: list[dict[str, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return steps, mean energies above the hull (eV/atom) and KL divergences (nats) of a history of n iterations."""
    names = ("step", "terms/clipped", "rollout/kl")
    steps, energy, divergence = (np.array([entry[name] for entry in history]) for name in names)
    return steps, energy, divergence


def fig3(work: Work) -> Outcome:
    """Return the energies above the hull of base model and fine-tuned model."""
    size = work.settings.size or 1000
    energies, flags = _sampled(work, work.rl_models, size)
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    fractions = {name: f"{_LABELS[name]}: {flag.stable.mean():.1%} stable" for name, flag in flags.items()}
    plot_energies(figure.subplots(), energies, fractions)
    estimates: dict[str, Estimate] = {"crystals of each model": Estimate(size)}
    for name, flag in flags.items():
        values, short = energies[name], _SHORT[name]
        speed = sampling_speed(work.model(name), work.groups, work.temperature(name))
        estimates |= {
            f"stable, {short} (%)": percent(flag.stable),
            f"S.U.N., {short} (%)": percent(flag.sun),
            f"S.U.N. per second, {short}": Estimate(speed * float(flag.sun.mean())),
            f"crystals per second, {short}": Estimate(speed),
            f"scored, {short} (%)": percent(np.isfinite(values)),
            f"more than 0.2 eV/atom below the hull, {short} (%)": percent(values < _DEEP),
            f"mean energy above hull of the scored, {short} (eV/atom)": mean(values[np.isfinite(values)]),
        }
    estimates |= _divergences(work, size)
    data = {"e_above_hull": {name: _plain(values) for name, values in energies.items()}}
    caption = (
        f"{about(work)} {about_rl(work.settings)} Speeds are those of sampling {_TIMED} crystals on this machine. "
    )
    caption += "The end bins hold the rest."
    return Outcome(caption, estimates, figure, data)


def _divergences(work: Work, size: int) -> dict[str, Estimate]:
    """Return the KL divergence of the fine-tuned model from the base model, on its samples, both at its temperature."""
    crystals, temperature = work.crystals("rl", size), work.temperature("rl")
    found = kl_divergence_on(crystals, work.model("rl"), work.model("base"), temperature)
    return {
        "KL from the base model, RL (nats)": Estimate(found.total),
        "KL from the base model, RL, letters and elements (nats)": Estimate(
            found.parts["letters"] + found.parts["elements"]
        ),
    }


def sampling_speed(model: CrystalFormer, groups: Any, temperature: Temperature = 1.0) -> float:
    """Return how many crystals a model samples per second, the best of three runs."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        model.sample(groups, _TIMED, seed=0, temperature=temperature)
        times.append(time.perf_counter() - started)
    return _TIMED / min(times)


def fig4(work: Work) -> Outcome:
    """Return the fractions of stable and S.U.N. crystals in 14 space groups."""
    size, models = work.settings.size or 50, work.rl_models
    flags = {name: _by_group(work, name, size) for name in models}
    counts = {
        f"{kind}, {name}": [getattr(flag, kind) for flag in flags[name]]
        for kind in ("stable", "sun")
        for name in models
    }
    found = {key: [percent(chosen) for chosen in groups] for key, groups in counts.items()}
    names = [str(SpaceGroupType(group).hm_short).replace(" ", "") for group in SPACE_GROUPS]
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, kind, label in zip(figure.subplots(2, 1), ("stable", "sun"), ("stable (%)", "S.U.N. (%)"), strict=True):
        parts = {_LABELS[name]: found[f"{kind}, {name}"] for name in models}
        fractions = {key: [e.value or 0.0 for e in estimates] for key, estimates in parts.items()}
        plot_bars(axes, names, fractions, {key: [(e.low, e.high) for e in part] for key, part in parts.items()}, label)
        axes.legend(frameon=False)
    data = {"space_groups": list(SPACE_GROUPS)}
    data |= {key: [int(chosen.sum()) for chosen in groups] for key, groups in counts.items()}
    return Outcome(f"{about(work)} {about_rl(work.settings)}", group_estimates(counts, size), figure, data)


def group_estimates(counts: dict[str, list[NDArray[np.bool_]]], size: int) -> dict[str, Estimate]:
    """Return the quantities that the text states about Fig. 4.

    Args:
        counts: "stable, base", "stable, rl", "sun, base", "sun, rl" and those of other models -> flags (size,) for each
            of the 14 groups.
        size: crystals of each group and model.
    """
    fraction = {key: 100 * np.array([chosen.mean() for chosen in groups]) for key, groups in counts.items()}
    p1, f43m = SPACE_GROUPS.index(1), SPACE_GROUPS.index(216)
    return {
        "crystals of a group and model": Estimate(size),
        "groups where RL has more stable ones": Estimate(
            int((fraction["stable, rl"] > fraction["stable, base"]).sum())
        ),
        "groups where RL has more S.U.N. ones": Estimate(int((fraction["sun, rl"] > fraction["sun, base"]).sum())),
        "S.U.N. in P1 less S.U.N. in all groups, RL (%)": Estimate(
            float(fraction["sun, rl"][p1] - fraction["sun, rl"].mean())
        ),
        "stable in F-43m, RL less base (%)": Estimate(
            float(fraction["stable, rl"][f43m] - fraction["stable, base"][f43m])
        ),
        "S.U.N. in F-43m, RL less base (%)": Estimate(float(fraction["sun, rl"][f43m] - fraction["sun, base"][f43m])),
        **{f"{key}, all groups (%)": percent(np.concatenate(groups)) for key, groups in counts.items()},
    }


def fig5(work: Work) -> Outcome:
    """Return the S.U.N. fractions by pre-training data and fine-tuning, space groups weighted as in the data."""
    settings = work.settings
    size = settings.size or 1000
    bases = ("mp20",) if settings.base == "mp20" else ("mp20", "base")
    _, flags = _sampled(work, (*bases, "sft", *work.rl_models[1:]), size)
    found = {name: percent(flag.sun) for name, flag in flags.items()}
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    heights = [found[name].value or 0.0 for name in found]
    intervals = [(estimate.low, estimate.high) for estimate in found.values()]
    plot_bars(axes, [_NAMES[name] for name in found], {"ours": heights}, {"ours": intervals}, "weighted S.U.N. (%)")
    estimates = {f"S.U.N., {short} (%)": found.get(name, Estimate(None)) for name, short in _NAMES.items()}
    estimates |= {f"stable, {_NAMES[name]} (%)": percent(flag.stable) for name, flag in flags.items()}
    relaxed = "relaxed by CHGNet" if settings.sft_relax else "not relaxed"
    caption = (
        f"{about(work)} {about_rl(settings)} {size} crystals of each model (the paper: 1,000). SFT: on the stable ones "
        f"of {settings.sft_samples} crystals, {relaxed} (the paper: 10,000, relaxed), all else as in appendix A. "
        "Fine-tuned is the base model."
    )
    data = {name: {"stable": int(v.stable.sum()), "sun": int(v.sun.sum()), "of": size} for name, v in flags.items()}
    return Outcome(caption, estimates, figure, data)


def _sampled(
    work: Work, names: tuple[str, ...], size: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, SunFlags]]:
    """Return energies and flags of samples of models, in the space groups of the training set."""
    energies, flags = {}, {}
    for name in names:
        crystals = work.crystals(name, size)
        energies[name] = work.energies(crystals, name)
        flags[name] = sun_flags(crystals, energies[name], work.training, work.settings.n_jobs)
    return energies, flags


def _by_group(work: Work, name: str, size: int) -> list[SunFlags]:
    """Return the flags on crystals of a model in each of the 14 groups."""
    bar = tqdm(SPACE_GROUPS, desc=f"{name}: sampling", unit="group")
    parts = [work.crystals(name, size, group, progress=False) for group in bar]
    energies = np.split(work.energies(CrystalBatch.concatenate(parts), name), len(parts))
    pairs = tqdm(list(zip(parts, energies, strict=True)), desc=f"{name}: S.U.N.", unit="group")
    return [sun_flags(crystals, energy, work.training, work.settings.n_jobs) for crystals, energy in pairs]


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [round(value, 5) if np.isfinite(value) else None for value in values.tolist()]
