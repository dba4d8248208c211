"""The settings that fine-tuning by likelihood and by preferences have in common."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from agents.crystalformer.config import GroupChoice
from agents.crystalformer.distribution import check_constraints
from agents.crystalformer.likelihood import Likelihood
from agents.crystalformer.temperature import TemperatureChoice, check_temperature
from agents.training.run_folder import RunFolder
from crystal_env.arguments import choice, finite_number, integer
from crystal_env.errors import InputError
from crystal_env.vocabulary import Vocabulary


@dataclass(frozen=True)
class FinetuningLoopConfig:
    """Settings that `finetune` and `dpo` have in common.

    Attributes:
        run: Output folder: settings, checkpoint, model, sampled crystals, logs.
        model: Initial model, a name or a path.
        reward: Reward, as ``"module:attribute"``.
        reward_kwargs: Keyword arguments of the reward, as JSON.
        floor: Reward of a crystal that cannot be scored.
        space_group: Space groups to sample: a number, a list of numbers, 230 weights or ``"mp20"``.
        constraints: Constraints as for the environment, as JSON.
        bins: Number of bins for coordinates and lattice, as on the discrete environment; 0 for densities.
        likelihood: ``"exact"``, or ``"paper"``, which the paper's code maximises.
        samples: Crystals to sample.
        temperature: Temperature that they are sampled at: a number, or JSON such as '{"coordinates": 0.1}' for parts
            of a crystal, or None for what the model recommends. Likelihoods in the loss are at temperature 1.
        sample_batch_size: Crystals sampled, relaxed and scored together; an interruption waits for them.
        epochs: Maximum passes over the data.
        batch_size: Examples per optimiser step.
        learning_rate: Constant Adam learning rate.
        validation_fraction: Fraction of the data held out for early stopping and for choosing the best weights; with 0,
            training runs through all epochs and keeps the last weights.
        patience: Epochs without a lower validation loss after which training stops.
        max_grad_norm: Norm that longer gradients are clipped to.
        max_tokens: Maximum tokens per micro-batch.
        device: Device such as ``"cuda"``; by default a GPU if there is one.
        seed: Random seed.
        checkpoint_minutes: Minutes between checkpoints.
        resume: Resume the run in the folder, if there is one.

    Raises:
        ValueError: naming the setting that is out of range.
    """

    run: Path
    model: str = "mp20"
    reward: str = "rewards:EnergyAboveHull"
    reward_kwargs: dict[str, Any] = field(default_factory=dict)
    floor: float = -10.0
    space_group: GroupChoice = "mp20"
    constraints: dict[str, Any] = field(default_factory=dict)
    bins: int = 0
    likelihood: Likelihood = "exact"
    samples: int = 10_000
    temperature: TemperatureChoice = 1.0
    sample_batch_size: int = 200
    epochs: int = 55
    batch_size: int = 100
    learning_rate: float = 1e-5
    validation_fraction: float = 0.1
    patience: int = 5
    max_grad_norm: float = 1.0
    max_tokens: int = 2_000
    device: str | None = None
    seed: int = 0
    checkpoint_minutes: float = 5.0
    resume: bool = False

    _COUNTS: ClassVar[tuple[str, ...]] = (
        "samples", "sample_batch_size", "epochs", "batch_size", "patience", "max_tokens",
    )  # fmt: skip
    _PATHS: ClassVar[tuple[str, ...]] = ("run",)

    def __post_init__(self) -> None:
        for name in self._COUNTS:
            integer(name, getattr(self, name), 1)
        integer("seed", self.seed, 0)
        for name in ("learning_rate", "max_grad_norm", "checkpoint_minutes"):
            finite_number(name, getattr(self, name), above=0)
        finite_number("validation_fraction", self.validation_fraction, least=0, below=1)
        finite_number("floor", self.floor)
        choice("likelihood", self.likelihood, ("exact", "paper"))
        if self.likelihood == "paper" and (self.bins or self.constraints):
            raise InputError("likelihood 'paper' takes no bins or constraints")
        check_temperature("temperature", self.temperature)
        Vocabulary(self.bins)  # checks the bins
        check_constraints(self.space_group, self.constraints)

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
        settings = {name: value for name, value in settings.items() if not name.startswith("given_")}
        try:
            paths = {name: Path(settings[name]) for name in cls._PATHS if settings[name] is not None}
            return cls(**{**settings, **paths, "run": run, "resume": True, **changes})
        except (KeyError, TypeError) as error:
            raise InputError(f"{run} holds no run of this version: its settings do not fit, {error}") from error

    def plain(self) -> dict[str, Any]:
        """Return the settings in the types of JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self), default=_plain))
        return settings


def _plain(value: Any) -> Any:
    """Return a value of a type that JSON lacks as one that it has."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset | range):
        return sorted(value)
    return str(value)
