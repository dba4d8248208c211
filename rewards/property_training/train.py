"""Training of a property model: an M3GNet of matgl with one or several outputs, as in the paper's appendix D."""

import csv
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tyro.conf import UseAppendAction

from crystal_env.arguments import finite_number, integer
from crystal_env.errors import InputError, MissingPackageError
from crystal_env.files import atomic_write
from rewards.potentials.batching import library_defaults
from rewards.potentials.matgl_files import metadata
from rewards.potentials.matgl_graphs import graph_of
from rewards.property_training.data import PropertyData, load_property_data, split
from rewards.property_training.report import errors_by_part, parity_plot, write_predictions


@dataclass(frozen=True)
class PropertyConfig:
    """Settings of `train_property`; the defaults are those of the paper's appendix D.

    Attributes:
        run: Folder of the run: model, log, checkpoint, predictions and parity plot.
        structures: CSV files with a column ``cif``.
        target: Name of a column with a target; several times for several outputs, such as the six components of a
            tensor in the order xx, yy, zz, yz, xz, xy.
        targets_file: CSV file with the targets, by default the files of structures.
        key: Column that joins the two.
        low: Lowest value of a target; rows below are left out.
        high: Highest value of a target; rows above are left out.
        epochs: Passes over the training set.
        batch_size: Structures of one step.
        learning_rate: Peak Adam learning rate; it falls to a hundredth along a cosine.
        patience: Epochs without a lower validation error after which training ends.
        split: Proportions of training, validation and test.
        seed: Seed of the split, the weights and the order of the batches.
        device: Torch device.
        resume: Resume an interrupted run.
    """

    run: Path
    structures: tuple[Path, ...]
    target: Annotated[tuple[str, ...], UseAppendAction]
    targets_file: Path | None = None
    key: str = "material_id"
    low: float = -10.0
    high: float = 100.0
    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-4
    patience: int = 50
    split: tuple[float, float, float] = (8.0, 1.0, 1.0)
    seed: int = 0
    device: str = "cpu"
    resume: bool = False

    def __post_init__(self) -> None:
        if not self.target:
            raise InputError("target must name at least one column")
        finite_number("learning_rate", self.learning_rate, above=0)
        for name in ("epochs", "batch_size", "patience"):
            integer(name, getattr(self, name), least=1)
        if not self.low < self.high:
            raise InputError(f"low must be below high = {self.high}, got {self.low}")


def train_property(config: PropertyConfig) -> Path:
    """Train a property model, and return the folder of the best one by the mean absolute error on validation.

    The loss is L1 of standardised targets. The folder ``model`` is one that `rewards.Property`, `rewards.DielectricFoM`
    and matgl itself load. ``test.json`` holds the errors on the test set, beside those of the training mean as the
    trivial prediction; ``predictions.csv`` all of them; ``parity.png`` a picture (as Fig. S4 of the paper). An
    interrupted run resumes with ``resume``, to the same weights as without the interruption.

    Raises:
        ValueError: if the run exists already, cannot be resumed, or the data do not fit the settings.
        ImportError: if matgl is not installed.
    """
    checkpoint = config.run / "checkpoint.pt"
    if config.resume and not checkpoint.is_file():
        raise InputError(f"run {config.run} has no checkpoint to resume from")
    if not config.resume and (config.run / "log.csv").exists():
        raise InputError(f"run {config.run} exists already: give --resume to resume it, or another folder")
    data = load_property_data(
        config.structures, config.target, config.targets_file, config.key, config.low, config.high
    )
    parts = split(len(data.names), config.split, config.seed)
    config.run.mkdir(parents=True, exist_ok=True)
    (config.run / "config.json").write_text(json.dumps(asdict(config), default=str, indent=1) + "\n")
    sizes = ", ".join(f"{len(p)} {n}" for p, n in zip(parts, ("training", "validation", "test"), strict=True))
    print(f"{len(data.names)} structures: {sizes}; left out {data.left_out}")
    with library_defaults():
        trainer = _Trainer(config, data, parts)
        trainer.fit(checkpoint)
        trainer.report(data)
    return config.run / "model"


class _Trainer:
    """The state of a run: the network, its optimiser, and the best weights so far."""

    def __init__(self, config: PropertyConfig, data: PropertyData, parts: tuple[NDArray[np.int64], ...]) -> None:
        import torch

        network, normalizer = _modules()
        self.config, self.parts = config, parts
        train = data.targets[parts[0]]
        self.mean, self.std = float(train.mean()), float(train.std() or 1.0)
        torch.manual_seed(config.seed)
        self.model = network(is_intensive=True, ntargets=len(config.target)).to(config.device)
        self.normalizer = normalizer(self.mean, self.std)
        self.targets = torch.as_tensor((data.targets - self.mean) / self.std, dtype=torch.float32)
        self.graphs = _graphs(data, self.model)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        floor = config.learning_rate / 100
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, config.epochs, floor)
        self.epoch, self.best, self.best_epoch = 0, float("inf"), 0
        self.best_weights = {k: v.clone() for k, v in self.model.state_dict().items()}

    def fit(self, checkpoint: Path) -> None:
        """Train until the last epoch, or until validation has not improved for long."""
        if checkpoint.is_file():
            self._restore(checkpoint)
        with tqdm(total=self.config.epochs, initial=self.epoch, unit="epoch", desc="train") as bar:
            while self.epoch < self.config.epochs and self.epoch - self.best_epoch < self.config.patience:
                start = time.perf_counter()
                train = float(np.mean([self._step(rows) for rows in self._batches()])) * self.std
                validation = self._error(self.parts[1])
                self.schedule.step()
                self.epoch += 1
                if validation < self.best:
                    self.best, self.best_epoch = validation, self.epoch
                    self.best_weights = {k: v.clone() for k, v in self.model.state_dict().items()}
                self._log(
                    [self.epoch, train, validation, float(self.schedule.get_last_lr()[0]), time.perf_counter() - start]
                )
                self._keep(checkpoint)
                bar.set_postfix(train=f"{train:.3g}", validation=f"{validation:.3g}", best=f"{self.best:.3g}")
                bar.update()

    def report(self, data: PropertyData) -> None:
        """Save the best model, its predictions, the errors on the test set and a parity plot."""
        from matgl.models import TransformedTargetModel

        self.model.load_state_dict(self.best_weights)
        wrapped = TransformedTargetModel(self.model, self.normalizer)
        wrapped.save(self.config.run / "model", metadata={**metadata(), "targets": list(self.config.target)})
        predictions = np.concatenate([self._predict(rows) for rows in _chunks(np.arange(len(data.names)), 256)])
        predictions = predictions * self.std + self.mean
        part = np.empty(len(data.names), object)
        for name, rows in zip(("train", "validation", "test"), self.parts, strict=True):
            part[rows] = name
        errors = errors_by_part(data.targets, predictions, self.parts)
        (self.config.run / "test.json").write_text(
            json.dumps({"best_epoch": self.best_epoch, **errors}, indent=1) + "\n"
        )
        write_predictions(self.config.run / "predictions.csv", data, predictions, part, self.config.target)
        parity_plot(self.config.run / "parity.png", data.targets, predictions, part, self.config.target)
        print(json.dumps(errors))

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        order = np.random.default_rng([self.config.seed, self.epoch]).permutation(self.parts[0])
        yield from _chunks(order, self.config.batch_size)

    def _step(self, rows: NDArray[np.int64]) -> float:
        import torch

        self.model.train()
        loss = torch.nn.functional.l1_loss(self._outputs(rows), self.targets[rows].to(self.config.device))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def _error(self, rows: NDArray[np.int64]) -> float:
        """Return the mean absolute error on rows, in the units of the targets."""
        if not len(rows):
            return float("nan")
        found = np.concatenate([self._predict(part) for part in _chunks(rows, 256)])
        return float(np.abs(found - self.targets[rows].numpy()).mean()) * self.std

    def _predict(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        import torch

        self.model.eval()
        with torch.no_grad():
            return self._outputs(rows).cpu().double().numpy()

    def _outputs(self, rows: NDArray[np.int64]) -> Any:
        from torch_geometric.data import Batch

        batch = Batch.from_data_list([self.graphs[row] for row in rows]).to(self.config.device)
        return self.model(g=batch).reshape(len(rows), -1)

    def _log(self, values: list[float]) -> None:
        path = self.config.run / "log.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["epoch", "train_mae", "validation_mae", "learning_rate", "seconds"])
            writer.writerow([f"{value:.6g}" for value in values])

    def _keep(self, path: Path) -> None:
        import torch

        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best_weights": self.best_weights,
            "progress": [self.epoch, self.best, self.best_epoch],
        }
        atomic_write(path, partial(torch.save, state))

    def _restore(self, path: Path) -> None:
        import torch

        state = torch.load(path, map_location=self.config.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.best_weights = state["best_weights"]
        self.epoch, self.best, self.best_epoch = state["progress"]


def _modules() -> tuple[Any, Any]:
    """Return matgl's M3GNet over its usual elements, and its normaliser."""
    try:
        from matgl.config import DEFAULT_ELEMENTS
        from matgl.data.transformer import Normalizer
        from matgl.models import M3GNet
    except ImportError as error:
        raise MissingPackageError(
            f'training a property model needs matgl: pip install "crystalgen[matgl]" ({error})'
        ) from error
    return partial(M3GNet, element_types=tuple(DEFAULT_ELEMENTS)), Normalizer


def _graphs(data: PropertyData, model: Any) -> list[Any]:
    """Return the graphs of the primitive cells, with Cartesian positions.

    Raises:
        ValueError: if a structure has none, with its name.
    """
    graphs = []
    for name, atoms in zip(data.names, tqdm(data.crystals.to_atoms(), desc="graphs", unit="crystal"), strict=True):
        try:
            graph, _ = graph_of(atoms, model)
        except ValueError as error:
            raise InputError(f"{name}: {error}") from error
        graph.pos = graph.frac_coords @ graph.lattice[0]
        graph.pbc_offshift = graph.pbc_offset @ graph.lattice[0]
        graphs.append(graph)
    return graphs


def _chunks(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def main(args: list[str] | None = None) -> None:
    """Run ``crystalgen property train``."""
    import tyro
    from tyro.conf import OmitArgPrefixes

    args = list(sys.argv[1:] if args is None else args)
    if args[:1] != ["train"]:
        raise InputError(f"property has one command, train, got {' '.join(args) or 'none'}")
    try:
        train_property(
            tyro.cli(PropertyConfig, prog="crystalgen property train", args=args[1:], config=(OmitArgPrefixes,))
        )
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command with --resume resumes from here") from None
