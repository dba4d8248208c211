"""The folder of a training run: settings, state, history, curve and logs."""

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from crystal_env.errors import InputError
from crystal_env.files import atomic_write

_SETTINGS_FILE, _STATE_FILE, _HISTORY_FILE, _CURVE_FILE = "run.json", "checkpoint.pt", "history.jsonl", "curve.png"
_PACKAGES = ("crystalgen", "torch", "numpy")


class RunFolder:
    """Keeps what a run needs to be taken up again, and what it has to show.

    Args:
        path: the folder, made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def has_state(self) -> bool:
        """Whether there is a run to go on with."""
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
            ValueError: if the folder holds no run.
        """
        try:
            settings: dict[str, Any] = json.loads((self.path / _SETTINGS_FILE).read_text())["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path} holds no run: {_SETTINGS_FILE} is missing or damaged") from error
        return settings

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state aside, then put it in the place of the last one."""
        atomic_write(self.path / _STATE_FILE, lambda file: torch.save(state, file))

    def load_state(self, device: torch.device) -> dict[str, Any]:
        """Return the last state, with its tensors on a device; history written after it is taken back."""
        state: dict[str, Any] = torch.load(self.path / _STATE_FILE, map_location=device, weights_only=True)
        self.forget_after(state["step"])
        return state

    def forget_after(self, step: int) -> None:
        """Take back the history after a step."""
        kept = [entry for entry in self.history() if entry["step"] <= step]
        atomic_write(self.path / _HISTORY_FILE, "".join(f"{json.dumps(entry)}\n" for entry in kept))

    def history(self) -> list[dict[str, float]]:
        """Return the validations so far."""
        path = self.path / _HISTORY_FILE
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def append_history(
        self, entry: dict[str, float], draw: Callable[[list[dict[str, float]], Path], None] | None = None
    ) -> None:
        """Add a validation, and draw the curve anew, by default with `draw_curve`."""
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
