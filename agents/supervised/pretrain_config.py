"""The settings of pre-training."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agents.crystalformer.config import CrystalFormerConfig
from agents.crystalformer.likelihood import Likelihood
from agents.training.run_folder import RunFolder
from crystal_env.errors import InputError

_CHOICES = {"schedule": ("cosine", "constant"), "likelihood": ("exact", "paper"), "precision": ("float32", "bfloat16")}


@dataclass(frozen=True)
class PretrainConfig:
    """What `pretrain` does; the command line has the same names.

    Attributes:
        data: CSV with a column ``cif``, folder of CIF files, or any file of structures that ASE reads.
        run: folder of the run: configuration, checkpoint, model, logs.
        validation: structures whose likelihood is logged, and by which the best model is chosen.
        initial: model to start from, a name or a path; its sizes replace ``model``.
        model: sizes of the network.
        epochs: passes over the data.
        batch_size: crystals of an optimiser step.
        learning_rate: of Adam, after the warm-up.
        warmup: steps in which the learning rate rises from zero.
        schedule: ``"cosine"`` falls to zero at the end, ``"constant"`` does not.
        betas: of Adam.
        weight_decay: decoupled from the gradient, on matrices only.
        max_gradient: norm to which longer gradients are cut.
        max_tokens: most tokens in memory at once; a batch is cut into parts whose gradients add up.
        likelihood: ``"exact"``, or ``"paper"`` for what the paper's code maximises.
        augment: describe each crystal anew in every epoch, by a random equivalent origin, axes and letters.
        precision: ``"bfloat16"`` trains with automatic mixed precision, for GPUs.
        device: such as ``"cuda"``; by default a GPU where there is one.
        seed: of the weights, the order of the crystals, dropout and augmentation.
        validate_every: epochs between validations.
        checkpoint_minutes: most time that an interruption can lose.
        resume: go on with the run in the folder, if there is one.
    """

    data: Path
    run: Path
    validation: Path | None = None
    initial: str | None = None
    model: CrystalFormerConfig = field(default_factory=CrystalFormerConfig)
    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-3
    warmup: int = 200
    schedule: Literal["cosine", "constant"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    max_gradient: float = 1.0
    max_tokens: int = 2_000
    likelihood: Likelihood = "exact"
    augment: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str | None = None
    seed: int = 0
    validate_every: int = 1
    checkpoint_minutes: float = 5.0
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_tokens", "validate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "max_gradient", "checkpoint_minutes"):
            if not 0 < getattr(self, name) < np.inf:
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(f"{name} must be a number of at least 0, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be in [0, 1), got {self.betas}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be in {allowed}, got {getattr(self, name)!r}")

    @classmethod
    def of_run(cls, run: Path, **changes: Any) -> "PretrainConfig":
        """Return the settings of a run, to resume it.

        Args:
            run: folder of the run.
            changes: settings that may change when a run is resumed, such as the device.

        Raises:
            ValueError: if the folder holds no run.
        """
        settings = RunFolder.settings_of(run)
        try:
            paths = {name: Path(settings[name]) for name in ("data", "validation") if settings[name] is not None}
            model = CrystalFormerConfig(**settings["model"])
            betas = tuple(settings["betas"])
            changed = {**paths, "model": model, "betas": betas, "run": run, "resume": True, **changes}
            return cls(**{**settings, **changed})
        except (KeyError, TypeError) as error:
            raise InputError(f"{run} holds no run of this version: its settings do not fit, {error}") from error

    def plain(self) -> dict[str, Any]:
        """Return the settings in the types of JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return settings
