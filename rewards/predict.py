"""Predictions of a property model for crystals: screened, with failures isolated."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import without_failure
from rewards.potentials.matgl import MatglProperty
from rewards.screen import Screen

if TYPE_CHECKING:
    from ase import Atoms

Model = Callable[["Sequence[Atoms]"], Any]
"""From ASE atoms of B primitive cells to values (B,) or (B, k), or to these and the reasons (B,) of failures."""


def as_model(model: "str | Path | Model", **options: Any) -> Model:
    """Return a model: the callable itself, or a property model of matgl by its folder or name.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(model, str | Path):
        return MatglProperty(model, **options)
    if not callable(model):
        raise InputError(f"model must be a folder or name of a matgl model, or a callable, got {model!r}")
    return model


def predict(
    model: Model, crystals: CrystalBatch, screen: Screen | None
) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Return a model's predictions (B, k) for B crystals, NaN where it fails, and the reasons (B,).

    Without a screen the model sees all of them. If it raises or returns another number of values, it is called again
    crystal by crystal.
    """
    failures = np.full(len(crystals), None, object) if screen is None else screen(crystals)
    rows = without_failure(failures)
    found: dict[int, NDArray[np.float64]] = {}
    if len(rows):
        for row, value in zip(rows, _evaluate(model, crystals[rows].to_atoms()), strict=True):
            if isinstance(value, str):
                failures[row] = value
            else:
                found[int(row)] = value
    width = max((len(value) for value in found.values()), default=1)
    values = np.full((len(crystals), width), np.nan)
    for row, value in found.items():
        if len(value) == width:
            values[row] = value
        else:
            failures[row] = f"the model gave {len(value)} numbers, {width} elsewhere"
    return values, failures


def _evaluate(model: Model, atoms: "list[Atoms]") -> "list[NDArray[np.float64] | str]":
    """Return numbers or a reason for each structure."""
    try:
        result = model(atoms)
        values, reasons = result if isinstance(result, tuple) else (result, [None] * len(atoms))
        values = np.asarray(values, np.float64)
        if values.ndim not in (1, 2) or len(values) != len(atoms) or len(reasons) != len(atoms):
            raise ValueError(f"the model gave values of shape {values.shape} for {len(atoms)} structures")
    except Exception as error:  # noqa: BLE001  a user's model may raise anything; nothing may be lost
        if len(atoms) == 1:
            return [f"{type(error).__name__}: {error}"]
        return [part for one in atoms for part in _evaluate(model, [one])]
    values = values.reshape(len(atoms), -1)
    return [
        str(reason) if reason is not None else value if np.isfinite(value).all() else f"the model gave {value}"
        for value, reason in zip(values, reasons, strict=True)
    ]
