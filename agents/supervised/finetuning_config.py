"""The settings that fine-tuning by likelihood and by preferences share."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from agents.crystalformer.config import GroupChoice
from agents.crystalformer.likelihood import Likelihood
from agents.training.run_folder import RunFolder
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import constraints
from crystal_env.vocabulary import Vocabulary


@dataclass(frozen=True)
class TuningConfig:
    """What `finetune` and `dpo` need to know alike.

    Attributes:
        run: folder of the run: settings, checkpoint, model, drawn crystals, logs.
        model: model to start from, a name or a path.
        reward: ``"module:attribute"`` of what says what crystals are worth.
        reward_kwargs: arguments that the reward is made with.
        floor: reward of a crystal that cannot be scored.
        space_group: of the crystals to draw: a number, a list of numbers, 230 weights or ``"mp20"``.
        constraints: what the crystals must be like, as for the environment.
        bins: draw and score crystals on that many bins, for the discrete environment; 0 for densities.
        likelihood: ``"exact"``, or ``"paper"`` for what the paper's code maximises.
        samples: crystals to draw.
        sample_batch_size: crystals that are drawn, relaxed and scored at a time; an interruption waits for them.
        epochs: most passes over the data.
        batch_size: examples of an optimiser step.
        learning_rate: of Adam, constant.
        validation_share: share of the data that is held out to stop early and to choose the best weights; with none,
            all epochs are gone through and the last weights are kept.
        patience: epochs without a lower validation loss after which training stops.
        max_gradient: norm to which longer gradients are cut.
        max_tokens: most tokens in memory at once; a batch is cut into parts whose gradients add up.
        device: such as ``"cuda"``; by default a GPU where there is one.
        seed: of all that is random.
        checkpoint_minutes: most time that an interruption can lose.
        resume: go on with the run in the folder, if there is one.
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
    sample_batch_size: int = 200
    epochs: int = 55
    batch_size: int = 100
    learning_rate: float = 1e-5
    validation_share: float = 0.1
    patience: int = 5
    max_gradient: float = 1.0
    max_tokens: int = 2_000
    device: str | None = None
    seed: int = 0
    checkpoint_minutes: float = 5.0
    resume: bool = False

    _COUNTS: ClassVar[tuple[str, ...]] = ("samples", "sample_batch_size", "epochs", "batch_size", "patience")
    _PATHS: ClassVar[tuple[str, ...]] = ("run",)

    def __post_init__(self) -> None:
        for name in (*self._COUNTS, "max_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "max_gradient", "checkpoint_minutes"):
            if not 0 < getattr(self, name) < np.inf:
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed must be a number of at least 0, got {self.seed}")
        if not 0 <= self.validation_share < 1:
            raise InputError(f"validation_share must be in [0, 1), got {self.validation_share}")
        if not np.isfinite(self.floor):
            raise InputError(f"floor must be a finite number, got {self.floor}")
        if self.likelihood not in ("exact", "paper"):
            raise InputError(f"likelihood must be in ('exact', 'paper'), got {self.likelihood!r}")
        if self.likelihood == "paper" and (self.bins or self.constraints):
            raise InputError("likelihood 'paper' takes no bins or constraints")
        Vocabulary(self.bins)  # checks the bins
        if not isinstance(self.constraints, Mapping):
            raise InputError(f"constraints must be a dictionary, got {self.constraints!r}")
        if constraints(space_group=self.space_group, **self.constraints).chooses_group:
            raise InputError("space_group must be given or drawn: the network does not choose it, got 'agent'")

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
    """Return a value that JSON has no type for as one that it has."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset | range):
        return sorted(value)
    return str(value)
