"""Markov chain Monte Carlo on p_base(x) exp(r(x) / tau): the paper's alternative to training (arXiv:2504.02367, Eq. 2).

Many chains advance together: a step is one pass of the network and one call of the reward for all of them. Every move
satisfies detailed balance in the variables of the density: fractional coordinates, normalised lengths, angles.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from agents.crystalformer.likelihood import log_prob
from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import sample_crystals
from agents.search.autocorrelation import autocorrelation_time
from agents.search.mcmc_config import MCMCConfig
from agents.search.mcmc_moves import MOVES, N_UNIFORMS, Moves
from agents.training.interrupt import Interrupt
from agents.training.top_k_buffer import TopKBuffer
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import Grammar, compile_grammar
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward

_N_BEST = 100  # crystals kept as the best met
_START, _MOVE, _SAMPLE = 1, 2, 3  # tell the random numbers of a seed and a step apart


class MCMCResult(NamedTuple):
    """Outcome of C chains.

    Attributes:
        crystals: where the chains ended.
        result: their rewards.
        log_prob (C,): their log-likelihoods ln p_base.
        samples: crystals that were kept, S times C, sample by sample.
        rewards (S, C): their rewards.
        best: the best crystals met, one of each `Crystal.key`, the best first, with ``best_rewards``.
        best_rewards (n,): their rewards.
        trace (T, 3): by step tau, and the means over chains of reward and log-likelihood.
        acceptance: move -> fraction of the proposed ones that were accepted.
        autocorrelation: integrated autocorrelation time of the reward after the burn-in, in steps.
        effective_size: number of independent samples that all chains together amount to.
        calls: crystals that were scored, of each step the distinct ones: what a reward that scores equal crystals of a
            batch once has to evaluate.
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
    """Run Metropolis chains on p_base(x) exp(r(x) / tau), p_base at ``base_temperature``.

    SIGINT and SIGTERM end it after the current step, with what was found so far.

    Args:
        model: the base model.
        reward: a callable, or ``"module:attribute"``.
        config: all settings.
        initial: crystals (C,) to start from, by default sampled from the model.
        progress: show a bar with the time left.

    Raises:
        ValueError: if an argument is malformed, or the model cannot sample one of the initial crystals.
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
    """The state of all chains, of which each has random numbers of its own."""

    def __init__(self, model: CrystalFormer, scorer: Scorer, config: MCMCConfig, initial: CrystalBatch | None) -> None:
        self.model, self.scorer, self.config = model, scorer, config
        grammar = compile_grammar(constraints(space_group=config.space_group, **config.constraints))
        if initial is not None:
            grammar = _grammar_of(initial.G, config.constraints)
        self.distribution = model.distribution(grammar, config.base_temperature, bins=config.bins)
        self.calls = 0
        self.crystals = self._sample_start(grammar) if initial is None else initial
        self.log_prob = self._log_prob(self.crystals)
        if not np.isfinite(self.log_prob).all():
            row = int((~np.isfinite(self.log_prob)).argmax())
            raise InputError(f"initial must be crystals that the model can sample, crystal {row} has no probability")
        self.result = self._score(self.crystals)
        self.moves = Moves(config.coordinate_scale, config.lattice_scale, config.bins, grammar.constraints)
        self.top_k = TopKBuffer(_N_BEST)
        self.top_k.add(self.crystals, self.result.total)
        self.proposed, self.accepted = np.zeros(len(MOVES), int), np.zeros(len(MOVES), int)

    def run(self, interrupt: Interrupt, progress: bool) -> MCMCResult:
        """Take all steps, or as many as there is time for."""
        config = self.config
        trace, every, samples = [], [], []
        with tqdm(total=config.steps, unit="step", desc="mcmc", disable=not progress) as bar:
            for step in range(config.steps):
                tau = config.temperature(step)
                self._step(step, tau)
                trace.append((tau, self.result.total.mean(), self.log_prob.mean()))
                if step >= config.burn_in:
                    every.append(self.result.total)
                    if (step - config.burn_in) % config.thin == 0:
                        samples.append((self.crystals, self.result.total))
                bar.update()
                rate = self.accepted.sum() / max(self.proposed.sum(), 1)
                bar.set_postfix(reward=f"{trace[-1][1]:.3f}", accepted=f"{rate:.1%}", refresh=False)
                if interrupt.requested:
                    break
        time = autocorrelation_time(np.array(every)) if every else np.nan
        rates = {name: a / t for name, a, t in zip(MOVES, self.accepted, self.proposed, strict=True) if t}
        return MCMCResult(
            self.crystals,
            self.result,
            self.log_prob,
            CrystalBatch.concatenate([crystals for crystals, _ in samples]),
            np.array([rewards for _, rewards in samples]).reshape(-1, len(self.crystals)),
            self.top_k.crystals,
            self.top_k.rewards,
            np.array(trace),
            rates,
            time,
            len(every) * len(self.crystals) / time,
            self.calls,
            len(trace) < config.steps,
        )

    def _step(self, step: int, tau: float) -> None:
        """Let every chain propose a move, and accept it or not."""
        size, config = len(self.crystals), self.config
        streams = RandomStreams([config.seed, step, _MOVE])
        choice, chance, *_ = uniforms = streams.uniforms(np.arange(size), 2 + N_UNIFORMS).T
        is_new = choice < (config.p_independent if config.moves == "crystal" else 0.0)
        proposal, kind = self.moves.propose(self.crystals, uniforms[2:].T)
        if is_new.any():
            kind = np.where(is_new, 0, kind)
            rows = np.flatnonzero(is_new)
            proposal = _replaced(proposal, rows, self._sample_new(step, rows))
        rows = np.flatnonzero(_differ(proposal, self.crystals))  # a step to where a chain is already is none
        new_log_prob = np.full(size, -np.inf)
        new_log_prob[rows] = self._log_prob(proposal[rows])
        possible = rows[np.isfinite(new_log_prob[rows])]
        scored = self._score(proposal[possible])
        gain = (scored.total - self.result.total[possible]) / tau
        gain += np.where(is_new, 0.0, new_log_prob - self.log_prob)[possible]
        accepted = np.log(chance[possible]) < gain  # NaN is not
        self._accept(proposal, new_log_prob, scored, possible, accepted)
        np.add.at(self.proposed, kind[rows], 1)
        np.add.at(self.accepted, kind[possible[accepted]], 1)

    def _accept(
        self,
        proposal: CrystalBatch,
        log_prob: NDArray[np.float64],
        scored: RewardResult,
        possible: NDArray[np.int64],
        accepted: NDArray[np.bool_],
    ) -> None:
        """Move the chains whose proposals, scored where they are ``possible`` (n,), are ``accepted`` (n,)."""
        rows = possible[accepted]
        self.crystals = _replaced(self.crystals, rows, proposal[rows])
        self.log_prob[rows] = log_prob[rows]
        source = np.arange(len(self.log_prob))
        source[rows] = len(source) + np.flatnonzero(accepted)
        self.result = RewardResult.concatenate([self.result, scored], self.scorer.floor).take(source)
        self.top_k.add(self.crystals[rows], self.result.total[rows])

    def _sample_start(self, grammar: Grammar) -> CrystalBatch:
        """Return crystals of the model, one for each chain."""
        streams = RandomStreams([self.config.seed, 0, _START])
        groups = grammar.sample_groups(self.config.chains, streams.for_space_groups())
        return self._sample(groups, streams, np.arange(len(groups)))

    def _sample_new(self, step: int, rows: NDArray[np.int64]) -> CrystalBatch:
        """Return crystals of the model for some chains (n,), in their space groups."""
        return self._sample(self.crystals.G[rows], RandomStreams([self.config.seed, step, _SAMPLE]), rows)

    def _sample(self, groups: NDArray[np.int64], streams: RandomStreams, chains: NDArray[np.int64]) -> CrystalBatch:
        batch_size = self.model.default_batch_size()
        return sample_crystals(self.model, groups, self.distribution, streams, batch_size, index=chains).crystals

    def _log_prob(self, crystals: CrystalBatch) -> NDArray[np.float64]:
        total: NDArray[np.float64] = log_prob(self.model, crystals, self.distribution).total.double().cpu().numpy()
        return total

    def _score(self, crystals: CrystalBatch) -> RewardResult:
        self.calls += len(crystals.distinct()[0])
        with torch.inference_mode(False):  # a reward may need gradients
            return self.scorer(crystals)


def _grammar_of(groups: NDArray[np.int64], options: dict[str, Any]) -> Grammar:
    return compile_grammar(constraints(space_group=np.unique(groups).tolist(), **options))


def _differ(crystals: CrystalBatch, others: CrystalBatch) -> NDArray[np.bool_]:
    """Return which crystals (B,) differ in any number from others (B,)."""
    pairs = [(getattr(crystals, name), getattr(others, name)) for name in ("W", "A", "XYZ", "L")]
    return np.any([(a != b).reshape(len(a), -1).any(1) for a, b in pairs], axis=0)


def _replaced(crystals: CrystalBatch, rows: NDArray[np.int64], others: CrystalBatch) -> CrystalBatch:
    """Return crystals (B,) with others (n,) in place of some rows (n,)."""
    source = np.arange(len(crystals))
    source[rows] = len(crystals) + np.arange(len(rows))
    return CrystalBatch.concatenate([crystals, others])[source]
