"""The settings of reinforcement fine-tuning as a run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from agents.crystalformer.config import GroupChoice
from agents.klppo.losses import Baseline
from agents.training.run_folder import RunFolder
from crystal_env.errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """What `train` does; the command line has the same names. The defaults are the paper's (Table S1, Appendix C).

    Attributes:
        run: folder of the run: settings, agent, model, history, logs, crystals.
        model: base model, a name or a path.
        reward: ``"module:attribute"`` of what says what crystals are worth.
        reward_kwargs: arguments that the reward is made with, as JSON on the command line.
        floor: reward of a crystal that cannot be scored.
        space_group: of the crystals: a number, a list of numbers, 230 weights or ``"mp20"``.
        constraints: what the crystals must be like, as for the environment, as JSON.
        bins: numeric bins of the discrete environment; 0 for the continuous one, as in the paper.
        iterations: batches to draw and to learn from.
        batch_size: crystals of an iteration.
        tau: coefficient of the divergence from the base model, in units of the reward.
        learning_rate: of Adam, at its highest.
        warmup: iterations in which the learning rate rises to it.
        schedule: ``"constant"``, or ``"linear"``: it falls to zero at the end.
        n_epochs: steps between drawing, each on the whole batch.
        clip_range: epsilon of the clipped ratio.
        max_grad_norm: norm to which longer gradients are cut.
        ratio: of whole crystals, or of each decision.
        weights: part -> weight in the log ratio, 1 by default, as JSON.
        baseline: what rewards are compared with.
        ema: share of the moving average that an iteration keeps.
        kl: divergence as part of the reward, or of the loss.
        target_kl: divergence in nats that tau is adapted to.
        ent_coef: weight of the entropy of letters and elements.
        reward_range: bounds that rewards are cut to.
        replay: weight of the likelihood of the best crystals so far.
        replay_size: crystals kept for replay.
        paper_update: do as the paper's published code does.
        max_tokens: most tokens in memory at once, by default what suits the device.
        samples: crystals of the trained model to draw and score at the end, as CIF files and a table.
        device: such as ``"cuda"``; by default a GPU where there is one.
        seed: of all that is random.
        checkpoint_minutes: most time that an interruption can lose.
        resume: go on with the run in the folder, if there is one.

    What `KLPPO` says of its arguments holds here.
    """

    run: Path
    model: str = "mp20"
    reward: str = "rewards:EnergyAboveHull"
    reward_kwargs: dict[str, Any] = field(default_factory=dict)
    floor: float = -10.0
    space_group: GroupChoice = "mp20"
    constraints: dict[str, Any] = field(default_factory=dict)
    bins: int = 0
    iterations: int = 100
    batch_size: int = 1000
    tau: float = 0.1
    learning_rate: float = 1e-4
    warmup: int = 0
    schedule: Literal["constant", "linear"] = "constant"
    n_epochs: int = 3
    clip_range: float = 0.2
    max_grad_norm: float = 1.0
    ratio: Literal["sequence", "token"] = "sequence"
    weights: dict[str, float] = field(default_factory=dict)
    baseline: Baseline = "ema"
    ema: float = 0.95
    kl: Literal["reward", "loss"] = "reward"
    target_kl: float | None = None
    ent_coef: float = 0.0
    reward_range: tuple[float, float] | None = None
    replay: float = 0.0
    replay_size: int = 1000
    paper_update: bool = False
    max_tokens: int | None = None
    samples: int = 100
    device: str | None = None
    seed: int = 0
    checkpoint_minutes: float = 5.0
    resume: bool = False

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("warmup", 0), ("samples", 0), ("seed", 0)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise InputError(f"{name} must be an integer of at least {least}, got {getattr(self, name)!r}")
        for name in ("learning_rate", "checkpoint_minutes"):
            if not 0 < getattr(self, name) < np.inf:
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)!r}")
        if self.schedule not in ("constant", "linear"):
            raise InputError(f"schedule must be 'constant' or 'linear', got {self.schedule!r}")
        for name in ("reward_kwargs", "constraints", "weights"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name} must be a dictionary, got {getattr(self, name)!r}")

    def rate(self, iteration: int) -> float:
        """Return the learning rate of an iteration, counted from 0."""
        warm = min(1.0, (iteration + 1) / max(self.warmup, 1))
        left = 1 - iteration / self.iterations if self.schedule == "linear" else 1.0
        return self.learning_rate * warm * left

    def agent_options(self) -> dict[str, Any]:
        """Return the arguments of `KLPPO` that the settings hold."""
        names = (
            "tau", "batch_size", "n_epochs", "clip_range", "max_grad_norm", "ratio", "weights", "baseline", "ema", "kl",
            "target_kl", "ent_coef", "reward_range", "replay", "replay_size", "paper_update", "max_tokens", "seed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"device": self.device or "auto"}

    def environment_options(self) -> dict[str, Any]:
        """Return the arguments of ``gym.make_vec`` that the settings hold."""
        mode = {"action_mode": "discrete", "bins": self.bins} if self.bins else {"action_mode": "continuous"}
        reward = {"reward": self.reward, "reward_kwargs": self.reward_kwargs, "invalid_reward": self.floor}
        return {**mode, **reward, "space_group": self.space_group, **self.constraints}

    @classmethod
    def of_run(cls, run: Path) -> Self:
        """Return the settings of a run, to resume it.

        Raises:
            ValueError: if the folder holds no run, or one of another kind.
        """
        settings = RunFolder(run).read_settings() if run.is_dir() else {}
        try:
            bounds = settings["reward_range"]
            bounds = None if bounds is None else tuple(bounds)
            return cls(**{**settings, "run": run, "resume": True, "reward_range": bounds})
        except (KeyError, TypeError) as error:
            raise InputError(f"{run} holds no run of this kind to resume: {error}") from error

    def plain(self) -> dict[str, Any]:
        """Return the settings in the types of JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return settings
