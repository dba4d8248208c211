"""Fine-tuning as a run: rounds of sampling, scoring and learning, which can be resumed at any step."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from agents.crystalformer.distribution import Distribution, any_crystal
from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import sample_crystals
from agents.supervised.finetuning_config import FinetuningLoopConfig
from agents.training.interrupt import Interrupt
from agents.training.micro_batches import epoch_order, micro_batches
from agents.training.optimiser import Log, adam, optimiser_step, writer
from agents.training.run_folder import RunFolder
from agents.training.scored_samples import Relax, ScoredSamples
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.reward import Scorer
from crystal_env.wyckoff import N_GROUPS

_SPLIT, _SAMPLE = 1, 2  # tell the random numbers of a seed apart


class Objective(Protocol):
    """A loss over N examples.

    Attributes:
        sites (N,): how long the examples are, in sites of a crystal.
        shown: names of the numbers to plot beside the loss.
    """

    sites: NDArray[np.int64]
    shown: tuple[str, ...]

    def __call__(self, model: CrystalFormer, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return numbers of examples (n,) by name, each (n,), among them the ``loss``, with gradient."""
        ...


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        round: rounds that are over.
        step: optimiser steps of all rounds.
        done: optimiser steps of this round.
        loss: sum of the losses of the epoch so far.
        best: lowest validation loss of this round.
        epochs_without_improvement: epochs since it was reached.
        seconds: time that learning took.
    """

    round: int = 0
    step: int = 0
    done: int = 0
    loss: float = 0.0
    best: float = np.inf
    epochs_without_improvement: int = 0
    seconds: float = 0.0


class FinetuningLoop:
    """A run of fine-tuning.

    Args:
        config: all settings.
        given: name -> the object that takes the place of a setting, or None.
        interrupt: asked after every step.
        progress: show bars with the time left.

    Attributes:
        model: the network, in evaluation mode throughout: fine-tuning is without dropout.
        at: where the run is.
    """

    def __init__(
        self, config: FinetuningLoopConfig, given: dict[str, Any], interrupt: Interrupt, progress: bool
    ) -> None:
        self.config, self.interrupt, self.progress = config, interrupt, progress
        self.device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.grammar = compile_grammar(constraints(space_group=config.space_group, **config.constraints))
        self.folder = RunFolder(config.run)
        resumes = self.folder.has_state
        if resumes and not config.resume:
            raise InputError(f"run {config.run} has a checkpoint already: resume it, or choose another folder")
        settings = config.plain() | {f"given_{name}": _name(thing) for name, thing in given.items()}
        self.model = self.start()
        self.optimiser = adam(self.model, config.learning_rate)
        self.best_weights = _copy(self.model)
        self.at, self._saved = Progress(), time.monotonic()
        if resumes:
            self.folder.check_settings(settings, self.folder.read_settings())
            self._restore()
        else:
            for leftover in config.run.glob("samples-*.npz"):
                leftover.unlink()
            self.folder.write_settings(settings, parameters=self.model.n_parameters)
            self.save()

    def start(self) -> CrystalFormer:
        """Return the model that the run starts from."""
        return CrystalFormer.from_pretrained(self.config.model).to(self.device)

    def sample(self, scorer: Scorer, relax: Relax | None = None) -> ScoredSamples:
        """Return the crystals of the round: those in the folder, the others newly sampled and scored."""
        config, path = self.config, self.config.run / f"samples-{self.at.round}.npz"
        samples = ScoredSamples.load(path) if path.is_file() else ScoredSamples()
        if len(samples) == config.samples:
            return samples
        bar = tqdm(
            total=config.samples,
            initial=len(samples),
            unit="crystal",
            desc="sample and score",
            disable=not self.progress,
        )
        streams = RandomStreams([config.seed, self.at.round, _SAMPLE])
        groups = self.grammar.sample_groups(config.samples, streams.for_space_groups())
        distribution = self.model.distribution(self.grammar, config.temperature, bins=config.bins)
        with bar:
            while len(samples) < config.samples:
                index = np.arange(len(samples), min(len(samples) + config.sample_batch_size, config.samples))
                sampled = sample_crystals(
                    self.model, groups[index], distribution, streams, config.sample_batch_size, index=index
                )
                samples = samples.extended(sampled.crystals, scorer, relax)
                bar.update(len(index))
                bar.set_postfix(success=f"{samples.result.success().mean():.1%}", refresh=False)
                if len(samples) == config.samples or self._is_due():
                    samples.save(path)
                    self._saved = time.monotonic()
                self._end_if_asked(f"with {len(samples)} crystals sampled")
        return samples

    def distribution(self, groups: NDArray[np.int64]) -> Distribution:
        """Return the distribution that learns from crystals of any groups (B,), whether or not these are sampled."""
        if not self.config.constraints:
            return Distribution(any_crystal(), bins=self.config.bins)
        weights = np.bincount(groups, minlength=N_GROUPS + 1)[1:] > 0
        grammar = compile_grammar(constraints(space_group=weights.astype(np.float64), **self.config.constraints))
        return Distribution(grammar, bins=self.config.bins)

    def fit(self, objective: Objective, facts: dict[str, float]) -> None:
        """Take the steps of the round that are left, give the model its best weights, and end the round.

        Args:
            objective: what to minimise.
            facts: about the round, for the history.
        """
        config, at = self.config, self.at
        train, validation = self._split(len(objective.sites))
        per_epoch = -(-len(train) // config.batch_size)
        total = config.epochs * per_epoch
        bar = tqdm(total=total, initial=at.done, unit="step", desc="fine-tune", disable=not self.progress)
        with bar, writer(config.run, at.step) as log:
            if at.done == 0:
                self._record(objective, train, validation, log, facts)
            while at.done < total and at.epochs_without_improvement < config.patience:
                epoch, batch = divmod(at.done, per_epoch)
                order = epoch_order(len(train), config.seed, at.round * config.epochs + epoch)
                self._update(objective, train[np.array_split(order, per_epoch)[batch]], log)
                if at.done % per_epoch == 0:
                    self._record(objective, train, validation, log, {"train_loss": at.loss / len(train)})
                    at.loss = 0.0
                bar.update()
                bar.set_postfix(best=f"{at.best:.3f}", refresh=False)
                if self._is_due():
                    self.save()
                self._end_if_asked(f"at step {at.step}")
        self.model.load_state_dict(self.best_weights)
        self.model.save_pretrained(self.folder.model)
        self.optimiser = adam(self.model, config.learning_rate)
        self.at = Progress(at.round + 1, at.step, seconds=at.seconds)
        self.save()

    def _split(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows to learn from and those held out."""
        order = np.random.default_rng([self.config.seed, self.at.round, _SPLIT]).permutation(size)
        held_out = int(self.config.validation_fraction * size)
        return order[held_out:], order[:held_out]

    def _update(self, objective: Objective, rows: NDArray[np.int64], log: Log) -> None:
        """Take one optimiser step."""
        started, config, at = time.monotonic(), self.config, self.at
        norm = optimiser_step(self.model, self.optimiser, self._losses(objective, rows), config.max_grad_norm)
        at.step += 1
        at.done += 1
        at.seconds += time.monotonic() - started
        log("train/grad_norm", norm, at.step)

    def _losses(self, objective: Objective, rows: NDArray[np.int64]) -> Iterator[Tensor]:
        """Yield the losses of the micro-batches of examples (n,), whose sum is their mean loss."""
        for part in micro_batches(objective.sites[rows], self.config.max_tokens):
            loss = objective(self.model, rows[part])["loss"].sum()
            self.at.loss += float(loss.detach())
            yield loss / len(rows)

    def _record(
        self,
        objective: Objective,
        train: NDArray[np.int64],
        validation: NDArray[np.int64],
        log: Log,
        facts: dict[str, float],
    ) -> None:
        """Record the loss on the held-out data, and keep the weights if they are the best."""
        at, config = self.at, self.config
        epoch = at.done / -(-len(train) // config.batch_size)
        entry: dict[str, float] = {"step": at.step, "round": at.round, "epoch": at.round * config.epochs + epoch}
        entry |= {"hours": at.seconds / 3600, **facts}
        if at.done == 0:
            entry["train_loss"] = self._means(objective, train)["loss"]
        means = self._means(objective, validation)
        entry |= {f"validation_{name}": mean for name, mean in means.items()}
        for name, value in entry.items():
            log(name.replace("_", "/", 1), value, at.step)
        if not any((e["round"], e["epoch"]) == (entry["round"], entry["epoch"]) for e in self.folder.history()):
            self.folder.append_history(entry, lambda history, path: draw_curves(history, path, objective.shown))
        loss = means.get("loss", -np.inf)  # without validation data the last weights are kept
        at.epochs_without_improvement += 1
        if loss < at.best or not len(validation):
            at.best, at.epochs_without_improvement, self.best_weights = loss, 0, _copy(self.model)

    def _means(self, objective: Objective, rows: NDArray[np.int64]) -> dict[str, float]:
        """Return the means of all numbers over examples (n,), none where there is none."""
        sums: dict[str, float] = {}
        with torch.no_grad():
            for part in micro_batches(objective.sites[rows], self.config.max_tokens):
                for name, values in objective(self.model, rows[part]).items():
                    sums[name] = sums.get(name, 0.0) + float(values.double().sum())
        return {name: value / len(rows) for name, value in sums.items()}

    def _is_due(self) -> bool:
        return self.interrupt.requested or time.monotonic() - self._saved > 60 * self.config.checkpoint_minutes

    def _end_if_asked(self, where: str) -> None:
        if self.interrupt.requested:
            raise KeyboardInterrupt(f"run {self.config.run} is saved {where}; resume it to continue")

    def save(self) -> None:
        """Write the state."""
        states = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        self.folder.save_state({**asdict(self.at), **states, "best_weights": self.best_weights})
        self._saved = time.monotonic()

    def _restore(self) -> None:
        state = self.folder.load_state(self.device)
        self.model.load_state_dict(state.pop("model"))
        self.optimiser.load_state_dict(state.pop("optimiser"))
        self.best_weights = state.pop("best_weights")
        self.at = Progress(**state)


def _copy(model: CrystalFormer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def _name(thing: Callable[..., Any] | None) -> str | None:
    """Return what a function or object is called."""
    if thing is None:
        return None
    of = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{of.__module__}:{of.__qualname__}"


def draw_curves(history: list[dict[str, float]], path: Path, shown: tuple[str, ...]) -> None:
    """Plot the losses by epoch, and the other numbers ``shown`` on the held-out data."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    losses, others = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    losses.plot(epochs, [entry["train_loss"] for entry in history], ".-", label="training")
    for axes, name in ((losses, "loss"), *((others, name) for name in shown)):
        if all(f"validation_{name}" in entry for entry in history):
            label = "held out" if name == "loss" else name
            axes.plot(epochs, [entry[f"validation_{name}"] for entry in history], ".-", label=label)
    losses.set(xlabel="epoch", ylabel="loss (nats)")
    others.set(xlabel="epoch", title="held out")
    for axes in (losses, others):
        if axes.has_data():
            axes.legend()
    figure.savefig(path, dpi=110)
