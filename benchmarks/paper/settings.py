"""The settings that all figures and tables share, and the files that stand in for the paper's."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crystal_env.dataset import cache_folder, data_folder
from crystal_env.errors import InputError
from rewards.property import BAND_GAP_MODEL

_GAP_FOLDER = "MEGNet-MP-2019.4.1-BandGap-mfi"
_HULL, _ELEMENTS = "mp_hull_reference.csv.gz", "mp_elemental_reference_entries_2023-02-07.json.gz"
_TRAINING, _VALIDATION = "mp20_train.csv.gz", "mp20_val.csv.gz"
_TARGETS = "mp_dielectric_targets.csv.gz"


@dataclass(frozen=True)
class Settings:
    """How large, with which models, and where to.

    Attributes:
        size: crystals that are drawn of each model (of each group of it, in fig4; read of the training set, in fig_s1
            and fig_s2); by default what takes minutes on one core.
        out: folder of the pictures, tables and numbers.
        cache: folder of what figures share: crystals, energies, trained models; by default in the user's cache.
        base: the base model, a name or a path, such as the paper's own checkpoint after ``crystalgen convert``.
        setting: of reinforcement: ``"paper"`` for Table S1, which wants batches of 1,000, or ``"small"``, which learns
            from few crystals.
        iterations: of reinforcement; the paper has 100 to 200.
        batch_size: crystals of an iteration; the paper has 1,000.
        sft_samples: crystals drawn for supervised fine-tuning; the paper has 10,000.
        sft_relax: relax these before the stable ones are chosen, as the paper does, by CHGNet; seconds a crystal.
        epochs: most passes over the data of the dielectric constant.
        training: structures that the base model was trained on, a CSV file with a column ``cif``; by default MP-20's.
        hull: a hull's name or file; by default that of ``mp_hull_reference.csv.gz`` in the data folder, else the
            shipped one.
        orb_weights: checkpoint of Orb-v2, by default ``orb-v2*.ckpt`` in $CRYSTALGEN_MODELS; CHGNet takes its place
            where there is none.
        dielectric_model: model of the dielectric constant, by default one that is trained here.
        gap_model: model of the band gap, by default MEGNet's.
        seed: of everything random.
        n_jobs: processes that compare structures.
    """

    size: int | None = None
    out: Path = Path("runs/paper")
    cache: Path | None = None
    base: str = "mp20"
    setting: Literal["small", "paper"] = "small"
    iterations: int = 24
    batch_size: int = 250
    sft_samples: int = 1000
    sft_relax: bool = False
    epochs: int = 20
    training: Path | None = None
    hull: str | None = None
    orb_weights: Path | None = None
    dielectric_model: Path | None = None
    gap_model: str | None = None
    seed: int = 0
    n_jobs: int = 1

    def __post_init__(self) -> None:
        for name in ("size", "iterations", "batch_size", "sft_samples", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")

    def cache_folder(self) -> Path:
        """Return the folder of what figures share."""
        return cache_folder() / "paper" if self.cache is None else self.cache

    def training_file(self) -> Path:
        """Return the file of the training set."""
        return _existing(data_folder() / _TRAINING if self.training is None else self.training, "training")

    def hull_files(self) -> tuple[Path, Path] | None:
        """Return the files of formation energies and of the elements' entries, None where they are not there."""
        files = data_folder() / _HULL, data_folder() / _ELEMENTS
        return files if all(file.is_file() for file in files) else None

    def orb_file(self) -> Path | None:
        """Return the checkpoint of Orb-v2, None where there is none."""
        if self.orb_weights is not None:
            return _existing(self.orb_weights, "orb_weights")
        return next(iter(sorted(_models().glob("orb-v2*.ckpt"))), None)

    def gap(self) -> str:
        """Return the folder or name of the model of the band gap."""
        folder = _models() / _GAP_FOLDER
        return self.gap_model or (str(folder) if folder.is_dir() else BAND_GAP_MODEL)

    def dielectric_data(self) -> tuple[tuple[Path, ...], Path]:
        """Return the files of structures and that of their dielectric constants."""
        structures = tuple(_existing(data_folder() / name, "$CRYSTALGEN_DATA") for name in (_TRAINING, _VALIDATION))
        return structures, _existing(data_folder() / _TARGETS, "$CRYSTALGEN_DATA")


def _models() -> Path:
    return Path(os.environ.get("CRYSTALGEN_MODELS") or cache_folder() / "models")


def _existing(path: Path, argument: str) -> Path:
    if not path.is_file():
        raise InputError(f"{argument} must lead to a file, and {path} is none")
    return path
