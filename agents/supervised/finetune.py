"""Supervised fine-tuning: maximum likelihood of the successful ones among a model's own samples."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from agents.crystalformer.distribution import Distribution, decision_masks
from agents.crystalformer.likelihood import Likelihood, LogProb, score
from agents.crystalformer.model import CrystalFormer
from agents.supervised.finetuning_config import FinetuningLoopConfig
from agents.supervised.finetuning_loop import FinetuningLoop
from agents.supervised.training_data import impossible
from agents.training.interrupt import Interrupt
from agents.training.run_folder import RunFolder
from agents.training.scored_samples import Relax, ScoredSamples
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, Scorer, resolve_reward


@dataclass(frozen=True)
class FinetuneConfig(FinetuningLoopConfig):
    """Settings of `finetune`; the defaults are the paper's (arXiv:2504.02367, Appendix A).

    Attributes:
        rounds: Rounds of sampling and learning, each from the model of the last one; more than one is expert iteration.
        relax: Relaxation of crystals before they are scored, as ``"module:attribute"``, such as
            ``"rewards.relaxation.relax:Relaxation"``.
        relax_kwargs: Keyword arguments of the relaxation, as JSON.
        distinct: Keep the best one of crystals with the same `Crystal.key`.
    """

    rounds: int = 1
    relax: str | None = None
    relax_kwargs: dict[str, Any] = field(default_factory=dict)
    distinct: bool = False

    _COUNTS: ClassVar[tuple[str, ...]] = (*FinetuningLoopConfig._COUNTS, "rounds")


def finetune(
    config: FinetuneConfig, progress: bool = True, *, reward: Reward | None = None, relax: Relax | None = None
) -> CrystalFormer:
    """Fine-tune a model on the successful ones among its own samples, and return it.

    A round samples ``samples`` crystals, relaxes them on request, and keeps those that succeed
    (`RewardResult.success`) and that the environment could build under the constraints. Their likelihood is maximised
    without dropout, until the loss on a held-out fraction stops falling. All crystals with their
    rewards are in ``samples-0.npz``, ``samples-1.npz`` ... of the folder (see
    `agents.training.scored_samples.ScoredSamples`), those kept in ``kept-0.npz`` ...

    SIGINT and SIGTERM end the run after the current step, with its state saved.

    Args:
        config: all settings.
        progress: show bars with the time left.
        reward: takes the place of the reward in the settings.
        relax: takes the place of the relaxation in the settings.

    Raises:
        KeyboardInterrupt: if the run was ended from outside.
        ValueError: if nothing is kept, settings are unusable, or the run to resume was another one.
    """
    with Interrupt() as interrupt, RunFolder(config.run).lock():
        run = FinetuningLoop(config, {"reward": reward, "relax": relax}, interrupt, progress)
        if run.at.round < config.rounds:
            if reward is None:
                reward = resolve_reward(config.reward, config.reward_kwargs)
            if relax is None and config.relax is not None:
                relax = resolve_reward(config.relax, config.relax_kwargs)
            scorer = Scorer(reward, config.floor)
        while run.at.round < config.rounds:
            samples = run.sample(scorer, relax)
            kept = keep(samples, run.distribution(samples.crystals.G), config.distinct)
            if progress:
                tqdm.write(f"round {run.at.round + 1}: {kept}")
            if not len(kept.rows):
                raise InputError(f"nothing to learn from is left of {kept}")
            crystals = samples.crystals[kept.rows]
            crystals.save(config.run / f"kept-{run.at.round}.npz")
            facts = kept.facts() | {"reward_mean": float(samples.result.total.mean())}
            run.fit(LogLikelihood(crystals, run.distribution(crystals.G), config.likelihood), facts)
    return CrystalFormer.from_pretrained(run.folder.model)


class Kept(NamedTuple):
    """Which of a round's samples are kept for learning.

    Attributes:
        rows (n,): of the crystals kept.
        sampled: crystals before.
        succeeded: crystals that the reward calls a success.
        possible: crystals among them that the environment could build under the constraints.
    """

    rows: NDArray[np.int64]
    sampled: int
    succeeded: int
    possible: int

    def __str__(self) -> str:
        return (
            f"{self.sampled} crystals: {self.succeeded} succeeded, the environment could "
            f"build {self.possible} of these, {len(self.rows)} are kept"
        )

    def facts(self) -> dict[str, float]:
        """Return the numbers for the history."""
        return {**{name: getattr(self, name) for name in self._fields[1:]}, "kept": len(self.rows)}


def keep(samples: ScoredSamples, distribution: Distribution, distinct: bool) -> Kept:
    """Choose the crystals to learn from."""
    succeeded = np.flatnonzero(samples.result.success())
    crystals = samples.crystals[succeeded]
    allowed = np.ones(len(succeeded), bool)
    allowed[list(impossible(crystals))] = False
    letters, _ = decision_masks(crystals, distribution.grammar)
    allowed &= letters[np.arange(len(crystals)), crystals.n_sites(), 0]
    rows = possible = succeeded[allowed]
    if distinct:
        best_first = possible[np.argsort(-samples.result.total[possible], kind="stable")]
        keys = [crystal.key() for crystal in samples.crystals[best_first]]
        _, first = np.unique(keys, return_index=True)
        rows = np.sort(best_first[first])
    return Kept(rows, len(samples), len(succeeded), len(possible))


class LogLikelihood:
    """The negative log-likelihood of crystals.

    Attributes:
        sites (N,): of the crystals.
        shown: the parts of the log-likelihood.
    """

    shown: tuple[str, ...] = LogProb._fields[1:]

    def __init__(self, crystals: CrystalBatch, distribution: Distribution, likelihood: Likelihood = "exact") -> None:
        self.crystals, self.sites = crystals, crystals.n_sites()
        self.distribution, self.likelihood = distribution, likelihood

    def __call__(self, model: CrystalFormer, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the loss and the log-likelihoods of crystals (n,), as a whole and by part, in nats."""
        scores = score(model, self.crystals[rows], self.distribution, self.likelihood)
        return {"loss": -scores.total, **scores._asdict()}
