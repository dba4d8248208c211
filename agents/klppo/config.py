"""The settings of KLPPO, once for class, command line and documentation, and the presets that are recommended."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import numpy as np

from agents.crystalformer.config import GroupChoice
from agents.crystalformer.temperature import Temperature, TemperatureChoice, Temperatures, check_temperature
from agents.klppo.losses import Baseline, Loss
from agents.klppo.selection import FILTERS
from agents.training.replay_buffer import Draw
from agents.training.run_folder import RunFolder
from agents.training.scored_samples import Relax
from agents.training.transitions import PARTS
from crystal_env.arguments import choice, finite_number, integer
from crystal_env.errors import InputError
from crystal_env.reward import resolve_reward

Preset = Literal["paper", "best"]

PRESETS: dict[Preset, dict[str, Any]] = {
    "paper": {},
    "best": {
        "loss": "topr",
        "tau": 0.01,
        "temperature": {"coordinates": 0.1, "lattice": 0.1},
        "batch_size": 500,
        "learning_starts": 2000,
        "draw": "recent",
        "replay_ratio": 6.0,
        "learning_rate": 3e-4,
        "warmup": 10,
        "schedule": "linear",
    },
}
"""Settings that differ from the defaults, by preset: those of the paper, and those that docs/reinforcement.md measures
to be best for rewards between 0 and 1."""

SHARP = {"letters": 0.6, "elements": 0.8, "coordinates": 0.01, "lattice": 0.01}
"""Temperatures at which models that were trained with the preset ``best`` are sampled."""

RUN_PRESETS: dict[Preset, dict[str, Any]] = {
    "paper": {},
    "best": {"reward": "rewards:SUN", "sample_temperature": SHARP},
}
"""What the presets add for a training run."""

_CHOICES = {
    "schedule": ("constant", "linear"),
    "ratio": ("sequence", "token"),
    "baseline": get_args(Baseline),
    "loss": get_args(Loss),
    "draw": get_args(Draw),
}


@dataclass(frozen=True, kw_only=True)
class KLPPOConfig:
    """The settings of `KLPPO`; the defaults are the paper's (arXiv:2504.02367, Table S1, Appendix C).

    With the loss "ppo" a batch is learned from once, when it is fresh. The losses "topr" and "balance" learn from every
    crystal that was ever scored: an iteration adds a batch to the replay buffer and takes steps on minibatches of it.

    Attributes:
        tau: Coefficient of the KL divergence from the reference policy, in units of the reward.
        temperature: Temperature at which policy and reference policy are sampled and scored, a number or, as JSON, one
            for each of letters, elements, coordinates, lattice; see `Temperatures`.
        loss: "ppo" (the paper's, on fresh crystals only), "topr" (tapered off-policy REINFORCE: advantage-weighted
            likelihood, from the buffer) or "balance" (trajectory balance, from the buffer).
        learning_rate: Peak Adam learning rate; in Python also a stable-baselines3 schedule by remaining progress.
        warmup: Optimiser steps in which the learning rate rises to its peak.
        schedule: "constant", or "linear": the learning rate falls to zero at the end of training.
        batch_size: Crystals sampled per iteration.
        n_epochs: Optimiser steps per iteration on the whole batch, with the loss "ppo".
        clip_range: Clipping range epsilon of the probability ratio.
        max_grad_norm: Norm that longer gradients are clipped to.
        ratio: Probability ratio of whole crystals, "sequence" (Eq. S1), or of each decision, "token" (PPO).
        log_ratio_weights: Weight of each part in the log ratio, 1 by default. The score of the lattice, whose Gaussians
            are narrow, is mostly noise: {"lattice": 0} leaves it out. The KL divergence of "ppo" always counts all
            parts. With the other losses coordinates and lattice have weight 0 by default, in the KL divergence too:
            they are learned by likelihood, see likelihood_coef.
        baseline: Baseline of the advantages with "ppo": "ema" (Eq. S3), "batch", "leave_one_out" (RLOO), or "group",
            the mean of the space group (GRPO). The other losses take "group" over the buffer.
        ema_decay: Decay of the moving average of the baseline "ema", per iteration.
        reward_range: Lower and upper bound that rewards are clipped to.
        learning_starts: Crystals sampled in the first iteration, if more than batch_size; from the buffer only.
        buffer_size: Crystals kept in the replay buffer, the latest ones.
        draw: How minibatches are drawn from the buffer: "uniform", "recent" or "rank".
        recency: Weight of a crystal for each iteration of its age, with draw "recent".
        replay_ratio: Crystals drawn from the buffer for each one that is sampled.
        minibatch_size: Crystals of a minibatch from the buffer.
        negatives: Factor of negative advantages with "topr"; 0 learns from good crystals only.
        likelihood_coef: Coefficient of the log-likelihood of coordinates and lattice of crystals that succeeded and are
            better than their space group, from the buffer.
        augmentation: Fraction of the drawn crystals of positive advantage that are put into a random equivalent setting
            (see `equivalents`).
        filters: What rejects a crystal before it is scored: "contact", a distance below 0.65 of the sum of the covalent
            radii; "repeat", a group, letters and elements that were scored before. A rejected crystal costs no call and
            enters the buffer with the lowest reward.
        oversampling: Crystals sampled for each one that is scored, so that filters leave enough.
        relax_fraction: Fraction of the crystals with free coordinates that are relaxed before they are scored, with
            losses that learn from the buffer. They enter it with the coordinates and the lattice so reached, whose
            likelihood is learned if they succeed. A step of a relaxation is a call of the potential.
        relax: Relaxation, as "module:attribute", or in Python a callable from B crystals to B relaxed ones and, for
            each, None or the reason why it stayed as it was.
        relax_kwargs: Arguments that the relaxation is made with, as JSON.
        paper_update: Update as the paper's published code does: the KL divergence inside the differentiated surrogate
            and out of the baseline, crystals scored by its likelihood. Only on the continuous environment.
        max_tokens: Maximum tokens per micro-batch, by default what suits the device.
        sample_batch_size: Crystals sampled in parallel, by default what suits the device.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    tau: float = 0.1
    temperature: Temperature = 1.0
    loss: Loss = "ppo"
    learning_rate: float | Callable[[float], float] = 1e-4
    warmup: int = 0
    schedule: Literal["constant", "linear"] = "constant"
    batch_size: int = 1000
    n_epochs: int = 3
    clip_range: float = 0.2
    max_grad_norm: float = 1.0
    ratio: Literal["sequence", "token"] = "sequence"
    log_ratio_weights: Mapping[str, float] = field(default_factory=dict)
    baseline: Baseline = "ema"
    ema_decay: float = 0.95
    reward_range: tuple[float, float] | None = None
    learning_starts: int = 0
    buffer_size: int = 100_000
    draw: Draw = "uniform"
    recency: float = 0.9
    replay_ratio: float = 3.0
    minibatch_size: int = 128
    negatives: float = 1.0
    likelihood_coef: float = 0.1
    augmentation: float = 0.0
    oversampling: float = 1.0
    filters: tuple[str, ...] = ()
    relax_fraction: float = 0.0
    relax: str | Relax = "rewards.relaxation.relax:Relaxation"
    relax_kwargs: Mapping[str, Any] = field(default_factory=lambda: {"steps": 8})
    paper_update: bool = False
    max_tokens: int | None = None
    sample_batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_epochs", "buffer_size", "minibatch_size"):
            integer(name, getattr(self, name), 1)
        for name in ("max_tokens", "sample_batch_size"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), 1)
        for name in ("warmup", "learning_starts"):
            integer(name, getattr(self, name), 0)
        for name in ("tau", "replay_ratio", "negatives", "likelihood_coef"):
            finite_number(name, getattr(self, name), least=0)
        finite_number("recency", self.recency, above=0, most=1)
        for name in ("augmentation", "relax_fraction"):
            finite_number(name, getattr(self, name), least=0, most=1)
        finite_number("oversampling", self.oversampling, least=1)
        for name in ("clip_range", "max_grad_norm"):
            finite_number(name, getattr(self, name), above=0)
        if not callable(self.learning_rate):
            finite_number("learning_rate", self.learning_rate, least=0)
        finite_number("ema_decay", self.ema_decay, least=0, below=1)
        for name, allowed in _CHOICES.items():
            choice(name, getattr(self, name), allowed)
        if not isinstance(self.filters, tuple | list) or not set(self.filters) <= set(FILTERS):
            raise InputError(f"filters must be some of {FILTERS}, got {self.filters!r}")
        if not (isinstance(self.relax, str) or callable(self.relax)):
            raise InputError(f'relax must be "module:attribute" or callable, got {self.relax!r}')
        if not isinstance(self.relax_kwargs, Mapping):
            raise InputError(f"relax_kwargs must be a dictionary, got {self.relax_kwargs!r}")
        if self.relax_fraction:
            self.relaxation()
        if not Temperatures.of(self.temperature).have_densities:
            raise InputError(f"temperature must leave densities to coordinates and lattice, got {self.temperature!r}")
        if not isinstance(self.paper_update, bool):
            raise InputError(f"paper_update must be True or False, got {self.paper_update!r}")
        self._check_weights()
        self._check_range()
        self._check_loss()

    def _check_loss(self) -> None:
        plain = set(self.weights().values()) == {1.0} and Temperatures.of(self.temperature).are_one
        if self.paper_update and not (self.loss == "ppo" and self.ratio == "sequence" and plain):
            raise InputError(
                "paper_update takes loss 'ppo', ratio 'sequence', temperature 1 and no log_ratio_weights, got "
                f"{self.loss!r}, {self.ratio!r}, {self.temperature!r}, {self.log_ratio_weights!r}"
            )
        if self.loss != "ppo" and self.ratio != "sequence":
            raise InputError(f"ratio must be 'sequence' with loss {self.loss!r}, got {self.ratio!r}")
        if self.loss == "ppo" and (
            self.filters or self.oversampling > 1 or self.learning_starts or self.relax_fraction
        ):
            names = "filters, oversampling, learning_starts and relax_fraction"
            raise InputError(f"{names} need a replay buffer: loss 'topr' or 'balance'")
        if self.loss == "balance" and not self.tau:
            raise InputError("tau must be above 0 with loss 'balance', got 0")

    def _check_weights(self) -> None:
        given = self.log_ratio_weights
        is_known = isinstance(given, Mapping) and set(given) <= set(PARTS)
        if (
            not is_known
            or not all(_is_number(w) and w >= 0 for w in given.values())
            or not any(self.weights().values())
        ):
            raise InputError(
                f"log_ratio_weights must map some of {PARTS} to finite numbers of at least 0, not all 0, got {given!r}"
            )

    def _check_range(self) -> None:
        given = self.reward_range
        if given is None:
            return
        is_pair = isinstance(given, tuple | list) and len(given) == 2 and all(map(_is_number, given))
        if not is_pair or not given[0] < given[1]:
            raise InputError(f"reward_range must be two finite numbers (low, high) with low < high, got {given!r}")

    def weights(self) -> dict[str, float]:
        """Return the weight of every part in the log ratio."""
        by_policy_gradient = PARTS if self.loss == "ppo" else PARTS[:2]
        default = {name: float(name in by_policy_gradient) for name in PARTS}
        return default | {name: float(weight) for name, weight in self.log_ratio_weights.items()}

    def relaxation(self) -> Relax:
        """Return the relaxation.

        Raises:
            ValueError: if its name cannot be imported, or it does not take the arguments.
        """
        if isinstance(self.relax, str):
            return cast(Relax, resolve_reward(self.relax, dict(self.relax_kwargs)))
        return self.relax

    def of_rollouts(self) -> dict[str, Any]:
        """Return the settings that the numbers of a rollout depend on."""
        bounds = None if self.reward_range is None else tuple(map(float, self.reward_range))
        temperature = Temperatures.of(self.temperature).to_dict()
        return {
            "ratio": self.ratio, "paper_update": self.paper_update, "reward_range": bounds, "temperature": temperature,
        }  # fmt: skip

    def learning_rate_at(self, step: int, remaining: float) -> float:
        """Return the learning rate of an optimiser step.

        Args:
            step: counted from 0.
            remaining: fraction of the training that is still to come, from 1 to 0.
        """
        remaining = min(1.0, max(0.0, remaining))
        peak = self.learning_rate(remaining) if callable(self.learning_rate) else self.learning_rate
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        return float(peak * warm * (remaining if self.schedule == "linear" else 1.0))

    @classmethod
    def from_preset(cls, preset: Preset, **settings: Any) -> Self:
        """Return the settings of a preset; those given win.

        Raises:
            ValueError: naming a preset or a setting that does not exist, or one that is out of range.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise InputError(f"unknown settings {unknown}: there are {known}")
        return cls(**{**cls._defaults_of(preset, settings), **settings})

    @classmethod
    def _defaults_of(cls, preset: Preset, settings: Mapping[str, Any]) -> dict[str, Any]:
        if preset not in PRESETS:
            raise InputError(f"preset must be in {tuple(PRESETS)}, got {preset!r}")
        return PRESETS[preset]


SETTINGS = tuple(f.name for f in fields(KLPPOConfig))
"""The names of all settings of `KLPPO`."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(KLPPOConfig):
    """The settings of `train`: those of `KLPPO`, of its environment and of the run.

    Attributes:
        run: Folder of the run: settings, agent, model, history, logs, samples.
        model: Base model that is fine-tuned, a name or a path.
        reward: Reward of a crystal, as "module:attribute".
        reward_kwargs: Arguments that the reward is made with, as JSON.
        floor: Reward of a crystal that cannot be scored; by default the lowest that the reward can give, at most -1.
        space_group: Space groups to sample: a number, a list of numbers, 230 weights or "mp20".
        constraints: Constraints of the environment on the crystals, as JSON.
        bins: Numeric bins of the discrete environment; 0 for the continuous one, as in the paper.
        iterations: Training iterations.
        replay_from: File of crystals with rewards that the replay buffer starts with, such as those of a search or of
            another run: .npz, .csv or .csv.gz, see `agents.training.replay_file`. The rewards must be those that the
            reward of this run would give; how many crystals the policy can sample stands in run.json ("replayed").
        samples: Crystals of the trained model to sample and score at the end, as CIF files and a table.
        sample_temperature: Temperature of these crystals, which the trained model recommends: a number, or JSON for
            parts of a crystal, or None for that of training.
        device: Device such as "cuda"; by default a GPU where there is one.
        seed: Seed of everything random.
        checkpoint_minutes: Minutes between checkpoints: the most that a crash can lose.
        resume: Resume the run in the folder, if there is one.
    """

    run: Path
    model: str = "mp20"
    reward: str = "rewards:EnergyAboveHull"
    reward_kwargs: dict[str, Any] = field(default_factory=dict)
    floor: float | None = None
    space_group: GroupChoice = "mp20"
    constraints: dict[str, Any] = field(default_factory=dict)
    bins: int = 0
    iterations: int = 100
    replay_from: Path | None = None
    samples: int = 100
    sample_temperature: TemperatureChoice = None
    device: str | None = None
    seed: int = 0
    checkpoint_minutes: float = 5.0
    resume: bool = False
    temperature: float | dict[str, float] = 1.0
    learning_rate: float = 1e-4  # type: ignore[assignment]  # a run is settings that can be written as JSON
    relax: str = "rewards.relaxation.relax:Relaxation"
    relax_kwargs: dict[str, Any] = field(default_factory=lambda: {"steps": 8})
    log_ratio_weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("iterations", 1), ("samples", 0), ("seed", 0)):
            integer(name, getattr(self, name), least)
        for name in ("learning_rate", "checkpoint_minutes"):
            finite_number(name, getattr(self, name), above=0)
        if self.floor is not None:
            finite_number("floor", self.floor)
        check_temperature("sample_temperature", self.sample_temperature)
        if self.replay_from is not None and self.loss == "ppo":
            raise InputError(f"replay_from needs loss 'topr' or 'balance', got {self.replay_from} and 'ppo'")
        for name in ("reward_kwargs", "constraints"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name} must be a dictionary, got {getattr(self, name)!r}")

    @classmethod
    def _defaults_of(cls, preset: Preset, settings: Mapping[str, Any]) -> dict[str, Any]:
        return super()._defaults_of(preset, settings) | RUN_PRESETS[preset]

    @property
    def sampling(self) -> Temperatures:
        """The temperatures at which the trained model is sampled."""
        return Temperatures.of(self.temperature if self.sample_temperature is None else self.sample_temperature)

    def agent_options(self) -> dict[str, Any]:
        """Return the arguments of `KLPPO`, the environment apart."""
        options = {name: getattr(self, name) for name in SETTINGS}
        return options | {
            "policy_kwargs": {"model": self.model}, "seed": self.seed, "device": self.device or "auto",
        }  # fmt: skip

    def environment_options(self) -> dict[str, Any]:
        """Return the arguments of ``gym.make_vec``."""
        mode = {"action_mode": "discrete", "bins": self.bins} if self.bins else {"action_mode": "continuous"}
        reward = {"reward": self.reward, "reward_kwargs": self.reward_kwargs, "invalid_reward": self.floor}
        return {**mode, **reward, "space_group": self.space_group, **self.constraints}

    @classmethod
    def of_run(cls, run: Path, **changes: Any) -> Self:
        """Return the settings of a run, to resume it.

        Args:
            run: folder of the run.
            changes: settings that may change when a run is resumed, such as the device.

        Raises:
            ValueError: if the folder holds no run, or one of another kind.
        """
        settings = RunFolder.settings_of(run)
        try:
            bounds = settings["reward_range"]
            settings["reward_range"] = None if bounds is None else tuple(bounds)
            settings["filters"] = tuple(settings["filters"])
            settings["replay_from"] = settings["replay_from"] and Path(settings["replay_from"])
            return cls(**{**settings, "run": run, "resume": True, **changes})
        except (KeyError, TypeError) as error:
            raise InputError(f"{run} holds no run of this kind to resume: {error}") from error

    def plain(self) -> dict[str, Any]:
        """Return the settings in the types of JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return settings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
