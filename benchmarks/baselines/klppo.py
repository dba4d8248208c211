"""KLPPO with its presets, and variants with one setting changed: fine-tuning of the base model, held close to it."""

from dataclasses import dataclass, field, replace
from typing import Any

from agents.klppo.config import KLPPOConfig, Preset
from benchmarks.baselines.search import iteration_size, range_width
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session

_MAX_REPEATS = 10  # times the iterations of the budget: an agent that samples the same few crystals spends no calls


@dataclass(frozen=True)
class KLPPOPaper:
    """Fine-tunes the base model with `agents.KLPPO` and its preset ``paper`` (arXiv:2504.02367, Table S1, Appendix C).

    Budgets and rewards differ between tasks. Batches are therefore smaller than the preset's where the budget has fewer
    than ``iterations`` of them, and tau is in units of the task: 1/12 of the reward range is the paper's 0.1 eV/atom
    for stability, and close to its 15 and 2 for the two figures of merit of dielectrics.

    Attributes:
        model: Base model: ``"mp20"``, which ships with the package, or a path.
        preset: Preset of `agents.KLPPO`.
        settings: Settings of `agents.KLPPO` that differ from the preset; its ``batch_size`` is the largest one.
        tau: KL coefficient as a fraction of the width of the task's reward range.
        iterations: Minimum number of iterations that the budget is split into.
        margin: Rewards are clipped to the task's range and this fraction of its width on both sides; None: not at all.
        device: Device such as ``"cuda"``; ``"auto"`` takes a GPU if there is one.
    """

    model: str = "mp20"
    preset: Preset = "paper"
    settings: dict[str, Any] = field(default_factory=dict)
    tau: float = 1 / 12
    iterations: int = 20
    margin: float | None = None
    device: str = "auto"

    def train(self, session: Session) -> ModelSampler:
        """Spend the budget and return the trained sampler."""
        from stable_baselines3.common.callbacks import CallbackList, ConvertCallback

        from agents import KLPPO

        task, oracle, config = session.task, session.oracle, self.config(session)
        agent = KLPPO(
            "CrystalFormerPolicy",
            session.make_vec(1, action_mode="continuous"),
            policy_kwargs={"model": self.model},
            seed=session.seed,
            device=self.device,
            **vars(config),
        )

        def show(*_: Any) -> bool:
            session.progress(f"iteration {agent.iteration + 1}")
            return True

        agent.learn(
            n_iterations=_MAX_REPEATS * (task.budget // config.batch_size + 1),
            callback=CallbackList([session.callback(), ConvertCallback(show)]),
            log_interval=0,
            progress=lambda: oracle.calls / task.budget,
        )
        return ModelSampler(agent.model, task)

    def config(self, session: Session) -> KLPPOConfig:
        """Return the settings of `agents.KLPPO` in the units of a session's task."""
        task, width = session.task, range_width(session.task)
        config = KLPPOConfig.from_preset(self.preset, **self.settings)
        bounds = None
        if self.margin is not None:
            bounds = task.range[0] - self.margin * width, task.range[1] + self.margin * width
        size = iteration_size(task, config.batch_size, self.iterations)
        return replace(config, tau=self.tau * width, batch_size=size, reward_range=bounds)


@dataclass(frozen=True)
class KLPPOBest(KLPPOPaper):
    """`KLPPOPaper` with the preset ``best``, that of ``benchmarks/results/stability/runs/best-*.json``.

    Rewards are clipped to [-2, 1.2] eV/atom for stability.
    """

    preset: Preset = "best"
    iterations: int = 40
    margin: float | None = 5 / 6


@dataclass(frozen=True)
class LeaveOneOutREINFORCE(KLPPOBest):
    """`KLPPOBest` with the leave-one-out baseline: the mean reward of the rest of the batch (RLOO, arXiv:2402.14740).

    With one step a batch the ratio is 1 and nothing is clipped, so this is REINFORCE with the KL divergence from the
    base model in the reward.
    """

    settings: dict[str, Any] = field(default_factory=lambda: {"baseline": "leave_one_out"})


@dataclass(frozen=True)
class TokenPPO(KLPPOPaper):
    """`KLPPOPaper` with a ratio for each decision instead of the whole crystal.

    Every decision of a crystal has the same advantage (Schulman et al., arXiv:1707.06347, with returns of whole
    episodes and no value network).
    """

    settings: dict[str, Any] = field(default_factory=lambda: {"ratio": "token"})
