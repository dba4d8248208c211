"""The settings of pre-training."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from agents.crystalformer.config import CrystalFormerConfig
from agents.crystalformer.likelihood import Likelihood
from agents.training.run_folder import RunFolder
from crystal_env.arguments import choice, finite_number, integer
from crystal_env.errors import InputError

_CHOICES = {"schedule": ("cosine", "constant"), "likelihood": ("exact", "paper"), "precision": ("float32", "bfloat16")}


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of `pretrain`; the command line has the same names.

    Attributes:
        data: Training data: a CSV file with a column ``cif``, a folder of CIF files, or a file that ASE reads.
        run: Output folder: settings, checkpoint, model, logs.
        validation: Validation data, by which the best model is chosen.
        initial: Initial model, a name or a path; its sizes replace ``model``.
        model: Sizes of the network.
        epochs: Passes over the data.
        batch_size: Crystals per optimiser step.
        learning_rate: Peak Adam learning rate.
        warmup: Steps in which the learning rate rises from zero.
        schedule: Learning rate after the warm-up: ``"cosine"`` falls to zero at the end, ``"constant"`` stays.
        betas: Betas of Adam.
        weight_decay: Decoupled weight decay, of matrices only.
        max_grad_norm: Norm that longer gradients are clipped to.
        max_tokens: Maximum tokens per micro-batch.
        likelihood: ``"exact"``, or ``"paper"``, which the paper's code maximises.
        augment: Re-set each crystal in every epoch, to a random equivalent origin, axes and letters.
        precision: ``"bfloat16"`` trains with automatic mixed precision, for GPUs.
        device: Device such as ``"cuda"``; by default a GPU if there is one.
        seed: Seed of the weights, the order of the crystals, dropout and augmentation.
        validate_every: Epochs between validations.
        checkpoint_minutes: Minutes between checkpoints.
        resume: Resume the run in the folder, if there is one.

    Raises:
        ValueError: naming the setting that is out of range.
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
    max_grad_norm: float = 1.0
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
            integer(name, getattr(self, name), 1)
        for name in ("warmup", "seed"):
            integer(name, getattr(self, name), 0)
        for name in ("learning_rate", "max_grad_norm", "checkpoint_minutes"):
            finite_number(name, getattr(self, name), above=0)
        finite_number("weight_decay", self.weight_decay, least=0)
        if not isinstance(self.betas, tuple) or len(self.betas) != 2:
            raise InputError(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        for beta in self.betas:
            finite_number("betas", beta, least=0, below=1)
        for name, allowed in _CHOICES.items():
            choice(name, getattr(self, name), allowed)

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
