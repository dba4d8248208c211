"""Markov chain Monte Carlo on p_base(x) exp(r(x) / tau): the paper's alternative to training (arXiv:2504.02367, Eq. 2).

Many chains move side by side: a step is one pass of the network and one call of the reward for all of them. Every move
satisfies detailed balance in the variables of the density: fractional coordinates, normalised lengths, angles.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from agents.crystalformer.config import GroupChoice
from agents.crystalformer.distribution import Distribution
from agents.crystalformer.likelihood import log_prob
from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.sampler import draw_crystals
from agents.search.mcmc_moves import MOVES, Moves
from agents.training.interrupt import Interrupt
from agents.training.top_k_buffer import TopKBuffer
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import Grammar, compile_grammar
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward

_BEST = 100  # crystals kept as the best met


@dataclass(frozen=True)
class MCMCConfig:
    """What `mcmc` does.

    Attributes:
        chains: chains side by side.
        steps: moves of each chain.
        tau: temperature of the reward, in its units.
        tau_start: temperature of the first step; from there it goes to ``tau`` geometrically.
        anneal_steps: steps in which it does.
        moves: ``"template"``: groups and letters stay as they are, elements, coordinates and lattices change;
            ``"crystal"``: whole new crystals of the base model are proposed as well.
        share_of_new: share of the steps that propose a whole new crystal.
        coordinate_width: standard deviation of a coordinate's step, in fractions of an axis.
        lattice_width: standard deviation of a lattice step, in Å per cube root of the atoms and in radians.
        burn_in: steps before samples are kept.
        thin: steps between samples that are kept.
        space_group: of the crystals.
        constraints: what the crystals must be like, as for the environment.
        bins: numeric bins of the discrete environment, 0 for densities.
        floor: reward of a crystal that cannot be scored.
        seed: of all that is random.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    chains: int = 100
    steps: int = 1000
    tau: float = 0.1
    tau_start: float | None = None
    anneal_steps: int = 0
    moves: Literal["template", "crystal"] = "crystal"
    share_of_new: float = 0.3
    coordinate_width: float = 0.05
    lattice_width: float = 0.05
    burn_in: int = 0
    thin: int = 10
    space_group: GroupChoice = "mp20"
    constraints: dict[str, Any] = field(default_factory=dict)
    bins: int = 0
    floor: float = -10.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("chains", 1), ("steps", 1), ("anneal_steps", 0), ("burn_in", 0), ("thin", 1), ("seed", 0)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise InputError(f"{name} must be an integer of at least {least}, got {getattr(self, name)!r}")
        for name in ("tau", "tau_start", "coordinate_width", "lattice_width"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < np.inf:
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)!r}")
        if self.moves not in ("template", "crystal"):
            raise InputError(f"moves must be 'template' or 'crystal', got {self.moves!r}")
        if not 0 <= self.share_of_new <= 1:
            raise InputError(f"share_of_new must be in [0, 1], got {self.share_of_new!r}")

    def temperature(self, step: int) -> float:
        """Return the temperature of a step, counted from 0."""
        if self.tau_start is None or step >= self.anneal_steps:
            return self.tau
        return self.tau_start * (self.tau / self.tau_start) ** (step / self.anneal_steps)


class MCMCResult(NamedTuple):
    """What chains have found.

    Attributes:
        crystals: where the C chains ended.
        result: what these are worth.
        log_prob (C,): their log-likelihoods by the base model.
        samples: crystals that were kept, S times C, sample by sample.
        rewards (S, C): theirs.
        best: the best crystals met, one of each `Crystal.key`, the best first, with ``best_rewards``.
        best_rewards (n,): theirs.
        trace (T, 3): by step the temperature, and the means over chains of reward and log-likelihood.
        acceptance: move -> share that was accepted.
        autocorrelation: integrated autocorrelation time of the reward after the burn-in, in steps.
        effective_size: number of independent samples that all chains together are worth.
        calls: crystals that the reward was asked for.
        interrupted: whether the run was ended from outside, before its last step.
    """

    crystals: CrystalBatch
    result: RewardResult
    log_prob: NDArray[np.float64]
    samples: CrystalBatch
    rewards: NDArray[np.float64]
    best: CrystalBatch
    best_rewards: NDArray[np.float64]
    trace: NDArray[np.float64]
    acceptance: dict[str, float]
    autocorrelation: float
    effective_size: float
    calls: int
    interrupted: bool


def mcmc(
    model: CrystalFormer,
    reward: Reward | str,
    config: MCMCConfig | None = None,
    initial: CrystalBatch | None = None,
    progress: bool = True,
) -> MCMCResult:
    """Run Metropolis chains on p_base(x) exp(r(x) / tau).

    SIGINT and SIGTERM end it after the step at hand, with what was found so far.

    Args:
        model: the base model.
        reward: a callable, or ``"module:attribute"``.
        config: all settings.
        initial: crystals (C,) to start from, by default drawn from the model.
        progress: show a bar with the time left.

    Raises:
        ValueError: if an argument is malformed, or the model cannot draw one of the initial crystals.
    """
    config = config or MCMCConfig()
    with Interrupt() as interrupt, torch.inference_mode():
        was_training = model.training
        model.eval()
        try:
            return _Chains(model, Scorer(resolve_reward(reward), config.floor), config, initial).run(
                interrupt, progress
            )
        finally:
            model.train(was_training)


class _Chains:
    def __init__(self, model: CrystalFormer, scorer: Scorer, config: MCMCConfig, initial: CrystalBatch | None) -> None:
        self.model, self.scorer, self.config = model, scorer, config
        self.rng = np.random.default_rng(config.seed)
        grammar = compile_grammar(constraints(space_group=config.space_group, **config.constraints))
        if initial is not None:
            grammar = _grammar_of(initial.G, config.constraints)
        self.distribution, self.calls = Distribution(grammar, bins=config.bins), 0
        groups = grammar.sample_groups(config.chains, self.rng) if initial is None else initial.G
        self.crystals = self._draw(groups) if initial is None else initial
        self.log_prob = self._log_prob(self.crystals)
        if not np.isfinite(self.log_prob).all():
            row = int((~np.isfinite(self.log_prob)).argmax())
            raise InputError(f"initial must be crystals that the model can draw, crystal {row} has no probability")
        self.result = self._score(self.crystals)
        self.moves = Moves(config.coordinate_width, config.lattice_width, config.bins, grammar.constraints.elements)
        self.top_k = TopKBuffer(_BEST)
        self.top_k.add(self.crystals, self.result.total)
        self.tried, self.accepted = np.zeros(len(MOVES), int), np.zeros(len(MOVES), int)

    def run(self, interrupt: Interrupt, progress: bool) -> MCMCResult:
        """Take all steps, or as many as there is time for."""
        config = self.config
        trace, every, samples = [], [], []
        with tqdm(total=config.steps, unit="step", desc="mcmc", disable=not progress) as bar:
            for step in range(config.steps):
                tau = config.temperature(step)
                self._step(tau)
                trace.append((tau, self.result.total.mean(), self.log_prob.mean()))
                if step >= config.burn_in:
                    every.append(self.result.total)
                    if (step - config.burn_in) % config.thin == 0:
                        samples.append((self.crystals, self.result.total))
                bar.update()
                share = self.accepted.sum() / max(self.tried.sum(), 1)
                bar.set_postfix(reward=f"{trace[-1][1]:.3f}", accepted=f"{share:.1%}", refresh=False)
                if interrupt.requested:
                    break
        time = autocorrelation_time(np.array(every)) if every else np.nan
        shares = {name: a / t for name, a, t in zip(MOVES, self.accepted, self.tried, strict=True) if t}
        return MCMCResult(
            self.crystals,
            self.result,
            self.log_prob,
            CrystalBatch.concatenate([crystals for crystals, _ in samples]),
            np.array([rewards for _, rewards in samples]).reshape(-1, len(self.crystals)),
            self.top_k.crystals,
            self.top_k.rewards,
            np.array(trace),
            shares,
            time,
            len(every) * len(self.crystals) / time,
            self.calls,
            len(trace) < config.steps,
        )

    def _step(self, tau: float) -> None:
        """Let every chain propose a move, and accept it or not."""
        size, config = len(self.crystals), self.config
        is_new = self.rng.random(size) < (config.share_of_new if config.moves == "crystal" else 0.0)
        proposed, kind = self.moves.propose(self.crystals, self.rng)
        kind = np.where(is_new, 0, kind)
        if is_new.any():
            rows = np.flatnonzero(is_new)
            proposed = _replaced(proposed, rows, self._draw(self.crystals.G[rows]))
        new_log_prob = self._log_prob(proposed)
        possible = np.flatnonzero(np.isfinite(new_log_prob))
        scored = self._score(proposed[possible])
        new_reward = np.full(size, -np.inf)
        new_reward[possible] = scored.total
        gain = (new_reward - self.result.total) / tau + np.where(is_new, 0.0, new_log_prob - self.log_prob)
        accepted = np.log1p(-self.rng.random(size)) < gain  # NaN is not
        rows = np.flatnonzero(accepted)
        self.crystals = _replaced(self.crystals, rows, proposed[rows])
        self.log_prob = np.where(accepted, new_log_prob, self.log_prob)
        place = np.full(size, -1)
        place[possible] = np.arange(len(possible))
        self.result = _merged(self.result, scored, rows, place[rows], self.scorer.floor)
        self.top_k.add(self.crystals[rows], self.result.total[rows])
        np.add.at(self.tried, kind, 1)
        np.add.at(self.accepted, kind[rows], 1)

    def _draw(self, groups: NDArray[np.int64]) -> CrystalBatch:
        return draw_crystals(self.model, groups, self.distribution, self.rng, self.model.side_by_side()).crystals

    def _log_prob(self, crystals: CrystalBatch) -> NDArray[np.float64]:
        total: NDArray[np.float64] = log_prob(self.model, crystals, self.distribution).total.double().cpu().numpy()
        return total

    def _score(self, crystals: CrystalBatch) -> RewardResult:
        """Score crystals, equal ones once."""
        first, place = crystals.distinct()
        self.calls += len(first)
        with torch.inference_mode(False):  # a reward may need gradients
            return self.scorer(crystals[first]).take(place)


def autocorrelation_time(values: NDArray[np.float64], window: float = 5.0) -> float:
    """Return the integrated autocorrelation time, in steps, of series (T, C) of C chains.

    It is 1 + 2 sum of the autocorrelations, averaged over the chains, up to the first lag of ``window`` times itself
    (Sokal, "Monte Carlo Methods in Statistical Mechanics", 1996); 1 for independent values.
    """
    steps = len(values)
    centred = values - values.mean()
    padded = np.fft.rfft(centred, 2 * steps, axis=0)
    covariance = np.fft.irfft(padded * padded.conj(), axis=0)[:steps].mean(1) / np.arange(steps, 0, -1)
    if covariance[0] <= 0:
        return 1.0
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    enough = np.flatnonzero(np.arange(steps) >= window * times)
    return max(1.0, float(times[enough[0] if len(enough) else -1]))


def plot(result: MCMCResult, path: Path) -> None:
    """Draw reward, log-likelihood and temperature by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    names = ("temperature", "mean reward", "mean log-likelihood (nats)")
    for axes, name, values in zip(figure.subplots(1, 3), names, result.trace.T, strict=True):
        axes.plot(values, linewidth=1)
        axes.set(xlabel="step", ylabel=name)
    figure.savefig(path, dpi=110)


def _grammar_of(groups: NDArray[np.int64], options: dict[str, Any]) -> Grammar:
    return compile_grammar(constraints(space_group=np.unique(groups).tolist(), **options))


def _replaced(crystals: CrystalBatch, rows: NDArray[np.int64], others: CrystalBatch) -> CrystalBatch:
    """Return crystals (B,) with others (n,) in the place of some rows (n,)."""
    source = np.arange(len(crystals))
    source[rows] = len(crystals) + np.arange(len(rows))
    return CrystalBatch.concatenate([crystals, others])[source]


def _merged(
    old: RewardResult, new: RewardResult, rows: NDArray[np.int64], place: NDArray[np.int64], floor: float
) -> RewardResult:
    """Return results (B,) in which some rows (n,) are places (n,) of new ones."""
    if not len(rows):
        return old
    total, failures = old.total.copy(), old.failures.copy()
    total[rows], failures[rows] = new.total[place], new.failures[place]
    terms = {}
    for name in dict.fromkeys([*old.terms, *new.terms]):
        fill = 0.0 if name == "success" else floor
        values = old.terms.get(name, np.full(len(total), fill)).copy()
        values[rows] = new.terms[name][place] if name in new.terms else fill
        terms[name] = values
    return RewardResult(total, terms, failures)
