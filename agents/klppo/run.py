"""Reinforcement fine-tuning as a run: a folder that holds all of it, to be taken up again after an interruption."""

import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from tqdm import tqdm

import crystal_env  # noqa: F401  registers the environment
from agents.klppo.config import TrainConfig
from agents.klppo.klppo import KLPPO
from agents.training.interrupt import Interrupt
from agents.training.optimiser import check_settings
from agents.training.run_folder import RunFolder
from agents.training.sample_files import write_samples
from crystal_env.errors import InputError

_AGENT_FILE = "agent.zip"
_SAMPLES = 7  # tells the random numbers of the samples from those of training


def train(config: TrainConfig, progress: bool = True) -> KLPPO:
    """Fine-tune a base model by reinforcement and return the agent.

    The folder of the run holds the settings and versions (``run.json``), a line of numbers an iteration
    (``history.jsonl``, ``tensorboard/``) and their curves (``curve.png``), the agent (``agent.zip``, with optimiser,
    base model and random state), the fine-tuned network (``model/``, for `CrystalFormer.from_pretrained`) and in the
    end crystals of it (``samples/``). SIGINT and SIGTERM end the run after the iteration at hand, with all of it saved.

    Args:
        config: all settings.
        progress: show a bar with the time left.

    Raises:
        KeyboardInterrupt: if the run was ended from outside.
        ValueError: if settings are unusable, or the run to resume was another one.
    """
    with Interrupt() as interrupt:
        return _Run(config, progress).go(interrupt)


class _Run:
    def __init__(self, config: TrainConfig, progress: bool) -> None:
        self.config, self.progress, self.folder = config, progress, RunFolder(config.run)
        path = config.run / _AGENT_FILE
        if path.is_file() and not config.resume:
            raise InputError(f"run {config.run} has an agent already: resume it, or choose another folder")
        env: Any = gym.make_vec(
            "CrystalGen-v0", num_envs=1, autoreset_mode=AutoresetMode.SAME_STEP, **config.environment_options()
        )
        if path.is_file():
            check_settings(config.run, config.plain(), self.folder.read_settings())
            self.agent = KLPPO.load(path, env=env, device=config.device or "auto")
            self.folder.forget_after(self.agent.iteration)
        else:
            options = config.agent_options()
            self.agent = KLPPO("CrystalFormerPolicy", env, policy_kwargs={"model": config.model}, **options)
            self.folder.write_settings(config.plain(), parameters=self.agent.model.n_parameters)
        self._numbers = _Numbers()
        board = TensorBoardOutputFormat(str(config.run / "tensorboard"))
        self.agent.set_logger(Logger(str(config.run), [self._numbers, board]))

    def go(self, interrupt: Interrupt) -> KLPPO:
        """Run to the end, or until it is interrupted."""
        config, agent, saved = self.config, self.agent, time.monotonic()
        bar = tqdm(total=config.iterations, initial=agent.iteration, unit="it", desc="train", disable=not self.progress)
        with bar:
            while agent.iteration < config.iterations:
                agent.learning_rate = config.rate(agent.iteration)
                agent._setup_lr_schedule()
                agent.learn(1, reset_num_timesteps=False)
                entry = {"step": agent.iteration, "crystals": agent._episode_num, **self._numbers.last}
                self.folder.append_history(entry, draw_curves)
                bar.update()
                shown = ("rollout/reward_mean", "rollout/kl", "rollout/success_share")
                bar.set_postfix({name.split("/")[1]: f"{entry.get(name, np.nan):.3f}" for name in shown}, refresh=False)
                if interrupt.requested or time.monotonic() - saved > 60 * config.checkpoint_minutes:
                    self._save()
                    saved = time.monotonic()
                if interrupt.requested:
                    raise KeyboardInterrupt(
                        f"run {config.run} is saved at iteration {agent.iteration}; resume it to go on"
                    )
        self._save()
        if config.samples:
            self._draw_samples()
        self.agent.logger.close()
        return agent

    def _save(self) -> None:
        temporary = self.config.run / f".{_AGENT_FILE}"
        with temporary.open("wb") as file:
            self.agent.save(file)
        temporary.replace(self.config.run / _AGENT_FILE)
        self.agent.model.save_pretrained(self.folder.model)

    def _draw_samples(self) -> None:
        """Draw crystals of the trained model, score them and write them down."""
        agent, config = self.agent, self.config
        assert agent.task is not None
        options: dict[str, Any] = {"bins": config.bins, **config.constraints}
        rng = np.random.default_rng([config.seed, _SAMPLES])
        crystals = agent.model.sample(config.space_group, config.samples, seed=rng, **options)
        with torch.inference_mode():
            log_prob = agent.model.log_prob(crystals, **options).total.double().cpu().numpy()
            base = agent.reference.log_prob(crystals, **options).total.double().cpu().numpy()
        numbers = {"log_prob": log_prob, "log_prob_base": base}
        write_samples(config.run / "samples", crystals, agent.task.score(crystals), numbers)


class _Numbers(KVWriter):
    """Keeps the numbers that were logged last."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.last = {name: float(value) for name, value in key_values.items() if not isinstance(value, str)}

    def close(self) -> None:
        """Do nothing: no file is open."""


def draw_curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw reward, divergence, share of successes and variety by iteration, as the paper's Fig. 2."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    panels = {
        "mean reward": ("rollout/reward_mean",),
        "KL(p || p_base) (nats)": ("rollout/kl",),
        "share of crystals": ("rollout/success_share", "rollout/unique_success_share", "rollout/failed_share"),
        "entropy (nats)": ("entropy/letters", "entropy/elements"),
        "distinct / crystals": ("variety/formulas", "variety/prototypes"),
        "seconds": ("time/sampling_seconds", "time/reward_seconds", "time/scoring_seconds", "time/update_seconds"),
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
