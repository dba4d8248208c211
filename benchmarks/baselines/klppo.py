"""KLPPO with its presets, and variants with some settings changed: fine-tuning of the base model."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.crystalformer.temperature import Temperature, Temperatures
from agents.klppo.config import SHARP, KLPPOConfig, Preset
from agents.klppo.losses import Baseline
from benchmarks.baselines.element_substitution import Substitution
from benchmarks.baselines.search import grammar_of, iteration_size, range_width
from benchmarks.baselines.shaped_reward import shaped_reward
from benchmarks.baselines.training_set import TRAINING_SET, load_training_set
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session
from benchmarks.tasks.oracle import Oracle
from crystal_env.crystal import CrystalBatch
from crystal_env.reward import Reward

if TYPE_CHECKING:
    from agents import KLPPO

_SEARCH = 3  # separates the random numbers of the search from others of the same seed
_MAX_REPEATS = 10  # times the iterations of the budget: an agent that samples the same few crystals spends no calls


@dataclass(frozen=True)
class KLPPOPaper:
    """Fine-tunes the base model with `agents.KLPPO` and its preset ``paper`` (arXiv:2504.02367, Table S1, Appendix C).

    The trained model is kept in the agent's folder, ``model``.

    Budgets and rewards differ between tasks. Batches are therefore smaller than the preset's where the budget has fewer
    than ``iterations`` of them, and tau is in units of the task: 1/12 of the reward range is the paper's 0.1 eV/atom
    for stability, and close to its 15 and 2 for the two figures of merit of dielectrics.

    Attributes:
        model: Base model: ``"mp20"``, which ships with the package, or a path.
        preset: Preset of `agents.KLPPO`.
        settings: Settings of `agents.KLPPO` that differ from the preset; its ``batch_size`` is the largest one.
        tau: KL coefficient as a fraction of the width of the task's reward range.
        iterations: Minimum number of iterations that the budget is split into.
        temperature: Temperatures at which the trained model is sampled: see `agents.CrystalFormer.sample`.
        device: Device such as ``"cuda"``; ``"auto"`` takes a GPU if there is one.
    """

    model: str = "mp20"
    preset: Preset = "paper"
    settings: dict[str, Any] = field(default_factory=dict)
    tau: float = 1 / 12
    iterations: int = 20
    temperature: Temperature = 1.0
    device: str = "auto"

    def train(self, session: Session) -> ModelSampler:
        """Spend the budget and return the trained sampler."""
        from stable_baselines3.common.callbacks import BaseCallback, CallbackList

        task, oracle, config = session.task, session.oracle, self.config(session)
        agent: Any = self.algorithm()(
            "CrystalFormerPolicy",
            session.make_vec(1, shaped=self.reward(session), action_mode="continuous"),
            policy_kwargs={"model": self.model},
            seed=session.seed,
            device=self.device,
            **vars(config),
        )

        self.prepare(agent, session)
        cost = 1 if not config.relax_fraction else 1 + int(config.relax_kwargs.get("steps", 0))  # calls, at most

        class Pace(BaseCallback):
            def _on_rollout_start(self) -> None:
                session.progress(f"iteration {agent.iteration + 1}")
                agent.batch_size = max(1, min(config.batch_size, oracle.left // cost))  # nothing beyond the budget

            def _on_step(self) -> bool:
                return True

        agent.learn(
            n_iterations=_MAX_REPEATS * (task.budget // config.batch_size + 1),
            callback=CallbackList([session.callback(), Pace()]),
            log_interval=0,
            progress=lambda: oracle.calls / task.budget,
        )
        if agent.is_pending:  # the crystals that have spent the budget
            agent.train()
        if session.folder != Path():
            agent.model.temperature = Temperatures.of(self.temperature)
            agent.model.save_pretrained(session.folder / "model")
        return ModelSampler(agent.model, task, temperature=self.temperature)

    def config(self, session: Session) -> KLPPOConfig:
        """Return the settings of `agents.KLPPO` in the units of a session's task."""
        return self._scaled(session)

    def _scaled(self, session: Session) -> KLPPOConfig:
        task = session.task
        config = KLPPOConfig.from_preset(self.preset, **self.settings)
        return replace(
            config,
            tau=self.tau * range_width(task),
            batch_size=iteration_size(task, config.batch_size, self.iterations),
        )

    def reward(self, session: Session) -> Reward:
        """Return what is maximised."""
        return session.oracle

    def prepare(self, agent: "KLPPO", session: Session) -> None:
        """Do what comes before the first iteration: nothing."""

    def algorithm(self) -> "type[KLPPO]":
        """Return the class of the agent."""
        from agents import KLPPO

        return KLPPO


class MeteredRelaxation:
    """A relaxation whose steps are calls of a session's oracle: a `rewards.relaxation.relax.Relaxation`."""

    def __init__(self, relaxation: Any, oracle: Oracle) -> None:
        self.relaxation, self.oracle = relaxation, oracle

    def __call__(self, crystals: CrystalBatch) -> Any:
        """Relax B crystals, as the relaxation does."""
        relaxed, paths = self.relaxation.with_paths(crystals)
        self.oracle.charge(int(paths.steps.sum()))
        return relaxed


@dataclass(frozen=True)
class KLPPOBest(KLPPOPaper):
    """`KLPPOPaper` with the preset ``best``: it learns from everything that it has paid for.

    It maximises `shaped_reward`, between 0 and 1, in whose units tau is. The first tenth of the budget, at most the
    preset's ``learning_starts``, is spent on samples of the base model.

    Attributes:
        sun: Arguments of `rewards.SUN` that differ from its defaults, for stability: ``{"known": 1, "repeated": 1}``
            leaves novelty and uniqueness out.
    """

    preset: Preset = "best"
    tau: float = 0.01
    iterations: int = 40
    temperature: Temperature = field(default_factory=lambda: dict(SHARP))
    sun: dict[str, float] = field(default_factory=dict)

    def config(self, session: Session) -> KLPPOConfig:
        """Return the settings of `agents.KLPPO` for a session's budget."""
        task = session.task
        config = KLPPOConfig.from_preset(self.preset, **self.settings)
        return replace(
            config,
            tau=self.tau,
            relax=MeteredRelaxation(config.relaxation(), session.oracle) if config.relax_fraction else config.relax,
            batch_size=iteration_size(task, config.batch_size, self.iterations),
            learning_starts=min(config.learning_starts, task.budget // 10),
        )

    def reward(self, session: Session) -> Reward:
        """Return what is maximised."""
        return shaped_reward(session, **self.sun)


@dataclass(frozen=True)
class KLPPOSeeded(KLPPOBest):
    """`KLPPOBest` whose buffer begins with a substitution search: `benchmarks.baselines.ElementSubstitution`.

    Attributes:
        search: Fraction of the budget that the search spends, in place of samples of the base model.
        training_set: File of known crystals, or the name of one in the folder $CRYSTALGEN_DATA.
    """

    search: float = 0.1
    training_set: str = TRAINING_SET

    def config(self, session: Session) -> KLPPOConfig:
        """Return the settings of `agents.KLPPO`, without a larger first batch."""
        return replace(super().config(session), learning_starts=0)

    def prepare(self, agent: "KLPPO", session: Session) -> None:
        """Let the search spend its part of the budget, and add its crystals to the replay buffer."""
        grammar = grammar_of(session.task)
        rng = np.random.default_rng([session.seed, _SEARCH])
        search = Substitution(load_training_set(self.training_set), grammar)
        session.progress("substitution search")
        agent.add_to_buffer(search.sample(grammar.sample_groups(round(self.search * session.task.budget), rng), rng))


@dataclass(frozen=True)
class KLPPOBalance(KLPPOBest):
    """`KLPPOBest` with the loss ``balance``: trajectory balance against the replay buffer (TBA, arXiv:2503.18929)."""

    settings: dict[str, Any] = field(default_factory=lambda: {"loss": "balance"})
    tau: float = 0.25


@dataclass(frozen=True)
class KLPPOPositives(KLPPOBest):
    """`KLPPOBest` without negative advantages: only crystals better than their space group are learned from."""

    settings: dict[str, Any] = field(default_factory=lambda: {"negatives": 0.0})


@dataclass(frozen=True)
class ExpertIteration(KLPPOBest):
    """Imitation at equal terms: the likelihood of all crystals so far, weighted by their rewards, is maximised.

    Samples, reward, replay buffer, minibatches, steps and the likelihood of coordinates and lattice are those of
    `KLPPOBest`; the weight of letters and elements is the reward, always positive, in place of the advantage, and no KL
    divergence is subtracted.
    """

    tau: float = 0.0

    def algorithm(self) -> "type[KLPPO]":
        """Return the class of the agent."""
        from agents import KLPPO
        from agents.klppo.replay import ReplayLosses

        class RewardWeightedLikelihood(ReplayLosses):
            def gain(self, log_prob: Any, old: Any, returns: Any, rewards: Any) -> Any:
                return rewards * log_prob

        class Imitation(KLPPO):
            replay_losses = RewardWeightedLikelihood

        return Imitation


@dataclass(frozen=True)
class KLPPOOnPolicy(KLPPOPaper):
    """`KLPPOPaper` with smaller batches, one step each, and a baseline by space group: what fresh crystals alone give.

    Rewards are clipped to the task's range and ``margin`` of its width on both sides, [-2, 1.2] eV/atom for stability.

    Attributes:
        baseline: Baseline of the advantages: see `agents.klppo.config.KLPPOConfig`.
        margin: Fraction of the width of the task's range.
    """

    iterations: int = 40
    baseline: Baseline = "group"
    margin: float = 5 / 6

    def config(self, session: Session) -> KLPPOConfig:
        """Return the settings of `agents.KLPPO` in the units of a session's task."""
        task, width = session.task, range_width(session.task)
        settings = {
            "batch_size": 500, "n_epochs": 1, "learning_rate": 4e-4, "warmup": 5, "schedule": "linear",
            "baseline": self.baseline, "log_ratio_weights": {"lattice": 0.0},
            "reward_range": (task.range[0] - self.margin * width, task.range[1] + self.margin * width),
        }  # fmt: skip
        return replace(self, settings={**settings, **self.settings})._scaled(session)


@dataclass(frozen=True)
class LeaveOneOutREINFORCE(KLPPOOnPolicy):
    """`KLPPOOnPolicy` with the leave-one-out baseline: the mean reward of the rest of the batch.

    It is RLOO (arXiv:2402.14740). With one step a batch the ratio is 1 and nothing is clipped, so this is REINFORCE
    with the KL divergence from the base model in the reward.
    """

    baseline: Baseline = "leave_one_out"


@dataclass(frozen=True)
class TokenPPO(KLPPOPaper):
    """`KLPPOPaper` with a ratio for each decision instead of the whole crystal.

    Every decision of a crystal has the same advantage (Schulman et al., arXiv:1707.06347, with returns of whole
    episodes and no value network).
    """

    settings: dict[str, Any] = field(default_factory=lambda: {"ratio": "token"})
