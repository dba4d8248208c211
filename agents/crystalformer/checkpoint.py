"""Models on disk: a folder with ``config.json`` and ``model.safetensors``."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agents.crystalformer import paper_checkpoint
from agents.crystalformer.config import CrystalFormerConfig
from agents.crystalformer.network import Network
from agents.crystalformer.paper_pickle import read_pickle
from agents.crystalformer.temperature import Temperatures
from crystal_env.errors import InputError

MODELS = Path(__file__).parents[1] / "models"
"""The folder of the models that ship with the package."""

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_FORMAT = "crystalformer-1"


def save(model: Network, path: str | Path, temperature: Temperatures) -> None:
    """Write a model and its recommended temperatures into a folder; a file is replaced whole or not at all."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    weights, config = path / f".{WEIGHTS_FILE}.{os.getpid()}", path / f".{CONFIG_FILE}.{os.getpid()}"
    entries: dict[str, Any] = {"format": _FORMAT, **model.config.to_dict()}
    if not temperature.are_one:
        entries["temperature"] = temperature.to_dict()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(state, weights, metadata={"format": _FORMAT})
        config.write_text(json.dumps(entries, indent=2) + "\n")
        weights.chmod(config.stat().st_mode)  # as new files are; the library makes private ones
        weights.replace(path / WEIGHTS_FILE)
        config.replace(path / CONFIG_FILE)
    finally:
        for unfinished in (weights, config):
            unfinished.unlink(missing_ok=True)


def read(name_or_path: str | Path, **sizes: int) -> tuple[CrystalFormerConfig, Temperatures, dict[str, torch.Tensor]]:
    """Return sizes, recommended temperatures and weights of a model; see `CrystalFormer.from_pretrained`."""
    shipped = sorted(file.parent.name for file in MODELS.glob(f"*/{CONFIG_FILE}"))
    path = MODELS / name_or_path if name_or_path in shipped else Path(name_or_path)
    if path.is_dir():
        if sizes:
            raise InputError(f"{path} has its own sizes in {CONFIG_FILE}, got {sorted(sizes)}")
        config, temperature, state = _read_folder(path)
    elif path.is_file():
        parameters, temperature = read_pickle(path), Temperatures()
        try:
            config = paper_checkpoint.infer_config(parameters, **sizes)
            state = paper_checkpoint.convert(parameters, config)
        except ValueError as error:
            raise InputError(f"{path} is no CrystalFormer of these sizes: {error}") from error
    else:
        raise InputError(
            f"no model {str(name_or_path)!r}: neither a folder, nor a file, nor one of those that ship with the "
            f"package, {shipped}"
        )
    _check(config, state, path)
    return config, temperature, state


def _read_folder(path: Path) -> tuple[CrystalFormerConfig, Temperatures, dict[str, torch.Tensor]]:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise InputError(f"{path} is no model: it lacks {name}")
    try:
        entries = json.loads((path / CONFIG_FILE).read_text())
        if not isinstance(entries, dict) or entries.pop("format", None) != _FORMAT:
            raise InputError(f"its format is not {_FORMAT!r}")
        temperature = Temperatures.of(entries.pop("temperature", 1.0))
        config = CrystalFormerConfig(**entries)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path / CONFIG_FILE} is no configuration of a model: {error}") from error
    try:
        return config, temperature, load_file(path / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path / WEIGHTS_FILE} is truncated or no safetensors file: {error}") from error


def _check(config: CrystalFormerConfig, state: dict[str, torch.Tensor], path: Path) -> None:
    """Raise a ValueError that names what is wrong with weights for a network of these sizes."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Network(config).state_dict().items()}
    wrong = [f"lacks {name}" for name in sorted(shapes.keys() - state.keys())]
    wrong += [f"has the unknown {name}" for name in sorted(state.keys() - shapes.keys())]
    wrong += [
        f"has {name} of shape {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in state and state[name].shape != shape
    ]
    wrong += [f"has values in {name} that are not finite" for name in state if not state[name].isfinite().all()]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"the weights in {path} do not fit their configuration: the file {', '.join(wrong[:3])}{more}")
