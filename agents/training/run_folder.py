"""The folder of a training run: settings, state, history, curve and logs."""

import json
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from crystal_env.errors import InputError
from crystal_env.files import atomic_write, locked

_SETTINGS_FILE, _STATE_FILE, _HISTORY_FILE, _CURVE_FILE = "run.json", "checkpoint.pt", "history.jsonl", "curve.png"
_PACKAGES = ("crystalgen", "torch", "numpy")

MAY_CHANGE = ("run", "resume", "device", "checkpoint_minutes")
"""Settings that may change when a run is resumed."""


class RunFolder:
    """Keeps what a run needs to be resumed, and what it has to show.

    Args:
        path: the folder, made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from running in the folder: see `crystal_env.files.locked`."""
        return locked(self.path, f"run {self.path}")

    @property
    def has_state(self) -> bool:
        """Whether there is a run to resume."""
        return (self.path / _STATE_FILE).is_file()

    @property
    def model(self) -> Path:
        """Folder of the best model so far."""
        return self.path / "model"

    def write_settings(self, settings: dict[str, Any], **facts: Any) -> None:
        """Begin a run: write its settings, facts about it and the versions of what it runs on; drop any history."""
        (self.path / _HISTORY_FILE).unlink(missing_ok=True)
        versions = {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}
        content = {"settings": settings, **facts, "versions": versions}
        atomic_write(self.path / _SETTINGS_FILE, json.dumps(content, indent=2) + "\n")

    def read_settings(self) -> dict[str, Any]:
        """Return the settings.

        Raises:
            ValueError: if the folder holds no run, or its file of settings is damaged.
        """
        path, reason = self.path / _SETTINGS_FILE, f"{self.path} holds no run to resume: {_SETTINGS_FILE} is"
        if not path.is_file():
            raise InputError(f"{reason} missing")
        try:
            settings = json.loads(path.read_text())["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{reason} damaged: {type(error).__name__}: {error}") from error
        if not isinstance(settings, dict):
            raise InputError(f"{reason} damaged: its settings must be a dictionary, got {settings!r}")
        return settings

    @classmethod
    def settings_of(cls, path: Path) -> dict[str, Any]:
        """Return the settings of a run; no folder is made.

        Raises:
            ValueError: as `read_settings`.
        """
        if not path.is_dir():
            raise InputError(f"{path} holds no run to resume: there is no such folder")
        return cls(path).read_settings()

    def check_settings(self, now: dict[str, Any], before: dict[str, Any]) -> None:
        """Refuse to resume a run with other settings than it began with.

        Raises:
            ValueError: naming the settings.
        """
        missing = "missing"
        changed = [
            f"{name} = {now.get(name, missing)} (it was {before.get(name, missing)})"
            for name in dict.fromkeys([*before, *now])
            if name not in MAY_CHANGE and now.get(name, missing) != before.get(name, missing)
        ]
        if changed:
            raise InputError(f"run {self.path} cannot be resumed with {', '.join(changed)}")

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the state by a new one, beside which the settings are kept."""
        content = {**state, "settings": json.dumps(self.read_settings())}
        atomic_write(self.path / _STATE_FILE, lambda file: torch.save(content, file))

    def load_state(self, device: torch.device) -> dict[str, Any]:
        """Return the last state, with its tensors on a device; history written after it is dropped.

        Raises:
            ValueError: if the settings in the folder are not those that the state was saved with.
        """
        state: dict[str, Any] = torch.load(self.path / _STATE_FILE, map_location=device, weights_only=True)
        self.check_settings(self.read_settings(), json.loads(state.pop("settings")))
        self.forget_after(state["step"])
        return state

    def forget_after(self, step: int) -> None:
        """Drop the history after a step."""
        kept = [entry for entry in self.history() if entry["step"] <= step]
        atomic_write(self.path / _HISTORY_FILE, "".join(f"{json.dumps(entry)}\n" for entry in kept))

    def history(self) -> list[dict[str, float]]:
        """Return the history so far; a last line that a crash has left unfinished does not count.

        Raises:
            ValueError: if any other line is damaged.
        """
        path = self.path / _HISTORY_FILE
        lines = path.read_text().splitlines() if path.is_file() else []
        entries = []
        for number, line in enumerate(lines, start=1):
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise InputError(f"line {number} of {path} is damaged: {error}") from error
        return entries

    def append_history(
        self, entry: dict[str, float], draw: Callable[[list[dict[str, float]], Path], None] | None = None
    ) -> None:
        """Add an entry, and draw the curve again, by default with `draw_curve`."""
        with (self.path / _HISTORY_FILE).open("a") as file:
            file.write(json.dumps(entry) + "\n")
        (draw or draw_curve)(self.history(), self.path / _CURVE_FILE)


def draw_curve(history: list[dict[str, float]], path: Path) -> None:
    """Draw log-likelihoods by epoch: all of it on the training and the validation data, and the parts on the latter."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    whole, parts = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    whole.plot(epochs, [-entry["train_loss"] for entry in history], ".-", label="training (with dropout)")
    for axes, names in ((whole, ["total"]), (parts, ["letters", "elements", "coordinates", "lattice"])):
        for name in names:
            if all(f"validation_{name}" in entry for entry in history):
                label = "validation" if name == "total" else name
                axes.plot(epochs, [entry[f"validation_{name}"] for entry in history], ".-", label=label)
        axes.set(xlabel="epoch", ylabel="log-likelihood (nats per crystal)")
        if axes.has_data():
            axes.legend()
    figure.savefig(path, dpi=110)
