"""Reinforcement fine-tuning as a run: a folder that holds all of it, to be resumed after an interruption."""

import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from tqdm import tqdm

import crystal_env  # noqa: F401  registers the environment
from agents.klppo.config import TrainConfig
from agents.klppo.klppo import KLPPO
from agents.training.interrupt import Interrupt
from agents.training.replay_buffer import ReplayBuffer
from agents.training.run_folder import RunFolder
from agents.training.sample_files import write_samples
from crystal_env.errors import InputError
from crystal_env.files import atomic_write

_AGENT_FILE = "agent.zip"
_SAMPLES = 7  # tells the random numbers of the samples from those of training


def train(config: TrainConfig, progress: bool = True) -> KLPPO:
    """Fine-tune a base model by reinforcement and return the agent.

    The folder of the run holds the settings and versions (``run.json``), a line of numbers an iteration
    (``history.jsonl``, ``tensorboard/``) and their curves (``curve.png``), the agent (``agent.zip``, with optimiser,
    reference policy and random state), the fine-tuned network (``model/``, for `CrystalFormer.from_pretrained`) and in
    the end crystals of it (``samples/``). SIGINT and SIGTERM end the run after the current iteration, with all of it
    saved.

    Args:
        config: all settings.
        progress: show a bar with the time left.

    Raises:
        KeyboardInterrupt: if the run was ended from outside.
        ValueError: if settings are unusable, the run to resume was another one, or another process runs it.
    """
    folder = RunFolder(config.run)
    with Interrupt() as interrupt, folder.lock():
        agent = _agent(config, folder)
        hook = _RunHook(config, agent, folder, interrupt, progress)
        agent.learn(n_iterations=config.iterations, callback=hook, reset_num_timesteps=False)
        hook.end()
        if config.samples:
            _write_samples(config, agent)
        agent.logger.close()
        return agent


def _agent(config: TrainConfig, folder: RunFolder) -> KLPPO:
    """Return the agent of a run: that in its folder, or a new one."""
    path = config.run / _AGENT_FILE
    if path.is_file() and not config.resume:
        raise InputError(f"run {config.run} has an agent already: resume it, or choose another folder")
    env: Any = gym.make_vec("CrystalGen-v0", **config.environment_options())
    settings = config.plain()
    if path.is_file():
        folder.check_settings(settings, folder.read_settings())
        agent = KLPPO.load(path, env=env, device=config.device or "auto")
        folder.check_settings(settings, agent.run_settings)
        folder.forget_after(agent.iteration)
    else:
        given = None if config.replay_from is None else ReplayBuffer.load(config.replay_from).data
        agent = KLPPO("CrystalFormerPolicy", env, **config.agent_options())
        replayed = 0 if given is None else agent.add_to_buffer(given.crystals, given.result)
        if given is not None and not replayed:
            raise InputError(f"replay_from must hold crystals of the environment, {config.replay_from} has none")
        folder.write_settings(settings, parameters=agent.model.n_parameters, replayed=replayed)
    agent.run_settings = settings
    agent.model.temperature = config.sampling
    return agent


def _save(agent: KLPPO, folder: RunFolder) -> None:
    atomic_write(folder.path / _AGENT_FILE, agent.save)
    agent.model.save_pretrained(folder.model)


def _write_samples(config: TrainConfig, agent: KLPPO) -> None:
    """Sample crystals of the trained model, score them and write them to files."""
    assert agent.adapter is not None
    options: dict[str, Any] = {"bins": config.bins, "temperature": config.sampling, **config.constraints}
    rng = np.random.default_rng([config.seed, _SAMPLES])
    crystals = agent.model.sample(config.space_group, config.samples, seed=rng, **options)
    with torch.inference_mode():
        log_prob = agent.model.log_prob(crystals, **options).total.double().cpu().numpy()
        reference = agent.reference.log_prob(crystals, **options).total.double().cpu().numpy()
    numbers = {"log_prob": log_prob, "reference_log_prob": reference}
    write_samples(config.run / "samples", crystals, agent.adapter.score(crystals), numbers)


class _RunHook(BaseCallback):
    """Saves the agent between two iterations when it is time, and ends an interrupted run."""

    def __init__(
        self, config: TrainConfig, agent: KLPPO, folder: RunFolder, interrupt: Interrupt, progress: bool
    ) -> None:
        super().__init__()
        self._config, self._agent, self._folder, self._interrupt = config, agent, folder, interrupt
        self._bar = tqdm(
            total=config.iterations, initial=agent.iteration, unit="it", desc="train", disable=not progress
        )
        self._saved = time.monotonic()
        board = TensorBoardOutputFormat(str(config.run / "tensorboard"))
        agent.set_logger(Logger(str(config.run), [_HistoryWriter(agent, folder, self._bar), board]))

    def _on_rollout_start(self) -> None:
        if self._interrupt.requested or time.monotonic() - self._saved > 60 * self._config.checkpoint_minutes:
            _save(self._agent, self._folder)
            self._saved = time.monotonic()
        self._end_if_interrupted()

    def _on_step(self) -> bool:
        return True

    def end(self) -> None:
        """Save the agent at the end of training."""
        self._bar.close()
        _save(self._agent, self._folder)
        self._end_if_interrupted()

    def _end_if_interrupted(self) -> None:
        if self._interrupt.requested:
            self._bar.close()
            raise KeyboardInterrupt(f"run {self._config.run} is saved at iteration {self._agent.iteration}; resume it")


class _HistoryWriter(KVWriter):
    """Appends the numbers of every iteration to the history of a run."""

    def __init__(self, agent: KLPPO, folder: RunFolder, bar: "tqdm[Any]") -> None:
        self._agent, self._folder, self._bar = agent, folder, bar

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """Write the numbers of an iteration."""
        numbers = {name: float(value) for name, value in key_values.items() if not isinstance(value, str)}
        entry = {"step": self._agent.iteration, "crystals": self._agent._episode_num, **numbers}
        self._folder.append_history(entry, draw_curves)
        self._bar.update()
        shown = ("rollout/reward_mean", "rollout/kl", "rollout/success_rate")
        self._bar.set_postfix({name.split("/")[1]: f"{entry.get(name, np.nan):.3f}" for name in shown}, refresh=False)

    def close(self) -> None:
        """Do nothing: no file is open."""


def draw_curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw reward, KL divergence, success and failure rates and variety by iteration, as the paper's Fig. 2."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    panels = {
        "mean reward": ("rollout/reward_mean",),
        "KL divergence from the reference (nats)": ("rollout/kl",),
        "rate": ("rollout/success_rate", "rollout/unique_success_rate", "rollout/failure_rate"),
        "entropy (nats)": ("entropy/letters", "entropy/elements"),
        "distinct in a batch": ("variety/formulas", "variety/templates", "variety/prototypes"),
        "time (s)": ("time/sampling_seconds", "time/reward_seconds", "time/scoring_seconds", "time/update_seconds"),
    }
    for axes, (title, names) in zip(figure.subplots(2, 3).flat, panels.items(), strict=True):
        for name in names:
            points = [(entry["step"], entry[name]) for entry in history if name in entry]
            if points:
                axes.plot(*zip(*points, strict=True), linewidth=1, label=name.split("/")[1].replace("_", " "))
        axes.set(xlabel="iteration", ylabel=title)
        if len(names) > 1 and axes.has_data():
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
