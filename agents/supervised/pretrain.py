"""Pre-training: maximum likelihood on known crystals."""

import contextlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from tqdm import tqdm

from agents.crystalformer.distribution import Distribution, any_crystal
from agents.crystalformer.likelihood import Likelihood, LogProb, log_prob, score
from agents.crystalformer.model import CrystalFormer
from agents.supervised.pretrain_config import PretrainConfig
from agents.supervised.training_data import load_training_data
from agents.training.interrupt import Interrupt
from agents.training.micro_batches import epoch_order, micro_batches
from agents.training.optimiser import Log, adam, optimiser_step, writer
from agents.training.run_folder import RunFolder
from crystal_env.crystal import CrystalBatch
from crystal_env.equivalents import equivalents
from crystal_env.errors import InputError


def pretrain(config: PretrainConfig, progress: bool = True) -> CrystalFormer:
    """Train a model on a file of structures and return it, the best one where there is validation data.

    SIGINT and SIGTERM end the run after the current step, with its state saved. Where ``torchrun`` has started several
    processes, each takes a part of every batch.

    Args:
        config: all settings.
        progress: show a bar with the time left.

    Raises:
        KeyboardInterrupt: if the run was ended from outside.
        ValueError: if data or settings are unusable, or the run to resume was another one.
    """
    with _process_group(), torch.random.fork_rng(_devices()), Interrupt() as interrupt, _lock(config.run):
        return _Run(config, progress).train(interrupt)


def _lock(run: Path) -> contextlib.AbstractContextManager[None]:
    """Return the lock of a folder, which the first of several processes holds for all."""
    return contextlib.nullcontext() if _rank()[0] else RunFolder(run).lock()


def _devices() -> list[int]:
    """Return the GPU whose generator a run uses, if there is one."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


class _Run:
    """A run that can be resumed at any optimiser step."""

    def __init__(self, config: PretrainConfig, progress: bool) -> None:
        self.config = config
        self.rank, self.n_ranks = _rank()
        self.progress = progress and self.rank == 0
        self.device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cuda" and self.n_ranks > 1:
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        self.folder = RunFolder(config.run)
        resumes = self.folder.has_state
        if resumes and not config.resume:
            raise InputError(f"run {config.run} has a checkpoint already: resume it, or choose another folder")
        self._load_data()
        self.shown = self.data
        self.model = self._new_model().to(self.device)
        self.optimiser = adam(self.model, config.learning_rate, config.betas, config.weight_decay)
        self.step, self.best, self.seconds = 0, np.nan, 0.0
        if resumes:
            self._restore()
        elif self.rank == 0:
            facts = {"crystals": len(self.data), "parameters": self.model.n_parameters}
            self.folder.write_settings(config.plain(), **facts)

    def _load_data(self) -> None:
        config, report = self.config, self.config.run / "skipped.csv" if self.rank == 0 else None
        self.data = load_training_data(config.data, report, self.progress)
        self.validation = None
        if config.validation is not None:
            self.validation = load_training_data(config.validation, progress=self.progress)
        if len(self.data) < config.batch_size:
            raise InputError(f"batch_size must be at most the {len(self.data)} crystals, got {config.batch_size}")
        if config.batch_size < self.n_ranks:
            raise InputError(f"batch_size must be at least the {self.n_ranks} processes, got {config.batch_size}")

    def _new_model(self) -> CrystalFormer:
        if self.config.initial is None:
            return CrystalFormer(self.config.model, seed=self.config.seed)
        return CrystalFormer.from_pretrained(self.config.initial)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; crystals that are left over wait for another one."""
        return len(self.data) // self.config.batch_size

    @property
    def total(self) -> int:
        """Optimiser steps of the run."""
        return self.config.epochs * self.steps_per_epoch

    def train(self, interrupt: Interrupt) -> CrystalFormer:
        """Run to the end, or until it is interrupted."""
        saved = time.monotonic()
        bar = tqdm(total=self.total, initial=self.step, unit="step", desc="pretrain", disable=not self.progress)
        with bar, writer(self.config.run, self.step, self.rank) as log:
            for rows in self._batches():
                started = time.monotonic()
                loss, norm = self._update(rows)
                seconds = time.monotonic() - started
                self.seconds += seconds
                log("train/loss", loss, self.step)
                log("train/grad_norm", norm, self.step)
                log("train/crystals_per_second", len(rows) / seconds, self.step)
                if self.step % (self.config.validate_every * self.steps_per_epoch) == 0 or self.step == self.total:
                    self._validate(log, loss)
                bar.update()
                bar.set_postfix(loss=f"{loss:.2f}", best=f"{self.best:.2f}", refresh=False)
                if interrupt.requested or time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                    self._save()
                    saved = time.monotonic()
                if interrupt.requested:
                    raise KeyboardInterrupt(
                        f"run {self.config.run} is saved at step {self.step}; resume it to continue"
                    )
            self._save()
        if self.n_ranks > 1:
            distributed.all_reduce(torch.zeros((), device=self.device))  # waits for the first to have written the model
        return CrystalFormer.from_pretrained(self.folder.model)

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        """Yield the rows (B,) of every batch that is still to come."""
        size = self.config.batch_size
        while self.step < self.total:
            epoch, start = divmod(self.step, self.steps_per_epoch)
            order = epoch_order(len(self.data), self.config.seed, epoch)
            if self.config.augment:
                self.shown = equivalents(self.data, np.random.default_rng([self.config.seed, epoch, 1]))
            for batch in range(start, self.steps_per_epoch):
                yield order[batch * size : (batch + 1) * size]

    def _update(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        """Take one optimiser step; return the mean loss and the norm of the gradient before clipping."""
        config, model = self.config, self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, self.step, self.total)
        draws = np.random.SeedSequence([config.seed, self.step, self.rank])  # a resumed run drops out the same
        torch.manual_seed(int(draws.generate_state(1)[0]))
        loss = torch.zeros((), device=self.device)
        all_reduce = partial(self._all_reduce, loss) if self.n_ranks > 1 else None
        norm = optimiser_step(model, self.optimiser, self._losses(rows, loss), config.max_grad_norm, all_reduce)
        self.step += 1
        return loss.item(), norm

    def _losses(self, rows: NDArray[np.int64], total: Tensor) -> Iterator[Tensor]:
        """Yield the losses of this process's micro-batches of a batch (B,), and add them to the total."""
        mine = rows[self.rank :: self.n_ranks]
        for part in micro_batches(self.data.n_sites()[mine], self.config.max_tokens):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
                scores = score(self.model, self.shown[mine[part]], Distribution(any_crystal()), self.config.likelihood)
            loss = -scores.total.sum() / len(rows)
            total += loss.detach()
            yield loss

    def _all_reduce(self, loss: Tensor) -> None:
        """Sum loss and gradients over all processes."""
        every = [loss, *(p.grad for p in self.model.parameters() if p.grad is not None)]
        flat = torch.cat([tensor.flatten() for tensor in every])
        distributed.all_reduce(flat)
        for tensor, part in zip(every, flat.split([tensor.numel() for tensor in every]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def _validate(self, log: Log, loss: float) -> None:
        """Measure the likelihood of the validation data by part; keep the model if it is the best."""
        if self.rank:
            return
        entry = {"step": self.step, "epoch": self.step / self.steps_per_epoch, "hours": self.seconds / 3600}
        entry["train_loss"] = loss
        value = np.inf  # without validation data the last model is kept
        if self.validation is not None:
            means = mean_log_prob(self.model, self.validation, self.config.likelihood)
            value = means["total"]
            entry |= {f"validation_{name}": mean for name, mean in means.items()}
            for name, mean in means.items():
                log(f"validation/{name}", mean, self.step)
        self.folder.append_history(entry)
        if value > self.best or np.isnan(self.best) or self.validation is None:
            self.best = value
            self.model.save_pretrained(self.folder.model)

    def _save(self) -> None:
        if self.rank == 0:
            model, optimiser = self.model.state_dict(), self.optimiser.state_dict()
            progress = {"step": self.step, "best": float(self.best), "seconds": self.seconds}
            self.folder.save_state({"model": model, "optimiser": optimiser, **progress})

    def _restore(self) -> None:
        self.folder.check_settings(self.config.plain(), self.folder.read_settings())
        state = self.folder.load_state(self.device)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]


def learning_rate(config: PretrainConfig, step: int, total: int) -> float:
    """Return the learning rate of a step: a linear warm-up, then constant or half a cosine."""
    warm = min(1.0, (step + 1) / max(config.warmup, 1))
    shape = 0.5 * (1 + np.cos(np.pi * step / total)) if config.schedule == "cosine" else 1.0
    return float(config.learning_rate * warm * shape)


def mean_log_prob(model: CrystalFormer, crystals: CrystalBatch, likelihood: Likelihood = "exact") -> dict[str, float]:
    """Return the mean log-likelihood of crystals in nats, as a whole and by part."""
    was_training = model.training
    with torch.inference_mode():
        scores = log_prob(model.eval(), crystals, Distribution(any_crystal()), likelihood)
    model.train(was_training)
    return {name: float(getattr(scores, name).double().mean()) for name in LogProb._fields}


@contextlib.contextmanager
def _process_group() -> Iterator[None]:
    """Join the processes that ``torchrun`` has started, if it has."""
    joins = "LOCAL_RANK" in os.environ and not distributed.is_initialized()
    if joins:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        if joins:
            distributed.destroy_process_group()


def _rank() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
