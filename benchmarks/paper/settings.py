"""The settings that all figures and tables share, and the files used in place of the paper's."""

import os
from dataclasses import dataclass
from pathlib import Path

from agents.crystalformer.temperature import check_temperature
from agents.klppo.config import Preset
from crystal_env.dataset import cache_folder, data_folder
from crystal_env.errors import InputError
from rewards.property import BAND_GAP_MODEL

_GAP_FOLDER = "MEGNet-MP-2019.4.1-BandGap-mfi"
_HULL, _ELEMENTS = "mp_hull_reference.csv.gz", "mp_elemental_reference_entries_2023-02-07.json.gz"
_TRAINING, _VALIDATION = "mp20_train.csv.gz", "mp20_val.csv.gz"
_NAMES = {"mp20", "base", "base_sharp", "rl", "sft", "fom"}  # of models
_TARGETS = "mp_dielectric_targets.csv.gz"


@dataclass(frozen=True)
class Settings:
    """How many crystals, of which models, and where the results go.

    Attributes:
        size: Crystals sampled from each model (fig4: in each space group; fig_s1, fig_s2: read from the training
            set). The default takes minutes on one core.
        out: Folder for pictures, tables and numbers.
        cache: Folder of what figures share: crystals, energies, trained models. By default in the user's cache.
        base: Base model: a name, or a path such as the paper's checkpoint after ``crystalgen convert``.
        preset: Preset of `agents.KLPPO`: ``"paper"`` (Table S1, needs batches of 1,000; the reward is minus the energy
            above the hull), or ``"best"``, which learns from few crystals and maximises S.U.N.
        iterations: Iterations of reinforcement; the paper has 100 to 200.
        batch_size: Crystals in an iteration; the paper has 1,000.
        temperature: Temperature that all models are sampled at. By default 1, as in the paper, but for models of
            reinforcement what they recommend: 1 with the preset ``"paper"``, less with ``"best"``.
        sft_samples: Crystals sampled for supervised fine-tuning; the paper has 10,000.
        sft_relax: Relax these with CHGNet before the stable ones are selected, as in the paper; seconds a crystal.
        epochs: Maximum number of passes over the data of the dielectric constant.
        training: Training set of the base model: a CSV file with a column ``cif``. By default MP-20's.
        hull: Name or file of the convex hull. By default that of ``mp_hull_reference.csv.gz`` in the data folder, else
            the shipped one.
        orb_weights: Checkpoint of Orb-v2, by default ``orb-v2*.ckpt`` in $CRYSTALGEN_MODELS. Without it, CHGNet.
        dielectric_model: Model of the dielectric constant. By default one is trained.
        gap_model: Model of the band gap. By default MEGNet's.
        max_dielectric: Largest dielectric constant that is accepted. By default any.
        runs: Finished runs of reinforcement that fig6 compares with the base model; table_s2 and table_s3 are of the
            first. By default one run is trained.
        seed: Seed of all random numbers.
        n_jobs: Processes that compare structures.
    """

    size: int | None = None
    out: Path = Path("runs/paper")
    cache: Path | None = None
    base: str = "mp20"
    preset: Preset = "best"
    iterations: int = 24
    batch_size: int = 250
    temperature: float | None = None
    sft_samples: int = 1000
    sft_relax: bool = False
    epochs: int = 20
    training: Path | None = None
    hull: str | None = None
    orb_weights: Path | None = None
    dielectric_model: Path | None = None
    gap_model: str | None = None
    max_dielectric: float | None = None
    runs: tuple[Path, ...] = ()
    seed: int = 0
    n_jobs: int = 1

    def __post_init__(self) -> None:
        for name in ("size", "iterations", "batch_size", "sft_samples", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        check_temperature("temperature", self.temperature)
        for run in self.runs:
            if not (run / "model").is_dir():
                raise InputError(f"runs must be folders of finished runs, and {run} has no model")
        if len({run.name for run in self.runs} - _NAMES) < len(self.runs):
            raise InputError(
                f"runs must have different names, none of {sorted(_NAMES)}, got {list(map(str, self.runs))}"
            )
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")

    def cache_folder(self) -> Path:
        """Return the folder of what figures share."""
        return cache_folder() / "paper" if self.cache is None else self.cache

    def training_file(self) -> Path:
        """Return the file of the training set."""
        return _existing(data_folder() / _TRAINING if self.training is None else self.training, "training")

    def hull_files(self) -> tuple[Path, Path] | None:
        """Return the files of formation energies and of the elements' entries, None where one is missing."""
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
