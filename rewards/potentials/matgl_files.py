"""Model files of matgl, loaded with the convention of their training.

From matgl 3.0 on, MEGNet and M3GNet sum the messages of edges at the other end of each edge. An older file loads
without an error and predicts wrong values for compounds. Nothing in the file distinguishes the two, so the model is
evaluated on known values (`_KNOWN_ENERGIES`, `_KNOWN_GAPS`) under both conventions.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from crystal_env.errors import InputError, MissingFileError, MissingPackageError
from rewards.potentials.batching import library_defaults
from rewards.potentials.matgl_graphs import evaluate_graphs, graph_of

Aggregation = Literal["auto", "source", "target"]
"""The end of edges at which messages are summed: their source (matgl from 3.0 on) or their target (before)."""

MODEL_FILES = ("model.json", "model.pt", "state.pt")
"""The files of a folder of matgl."""

_KEY = "crystalgen_aggregation"
_CONVOLUTIONS = ("MEGNetGraphConv", "M3GNetGraphConv")
_HALITE = ((0, 0, 0), (0.5, 0.5, 0.5))
_FLUORITE = ((0, 0, 0), (0.25, 0.25, 0.25), (0.75, 0.75, 0.75))
_FCC = ((0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))
_KNOWN = {  # symbols, fractional coordinates in the primitive cell, lattice parameter in Å
    "NaCl": (("Na", "Cl"), _HALITE, 5.69),
    "MgO": (("Mg", "O"), _HALITE, 4.26),
    "CaF2": (("Ca", "F", "F"), _FLUORITE, 5.51),
}
_KNOWN_ENERGIES = {"NaCl": -3.39, "MgO": -5.97, "CaF2": -5.82}  # eV/atom, uncorrected PBE of the Materials Project
_KNOWN_GAPS = {"NaCl": 5.0, "CaF2": 6.6}  # eV, PBE; models of that data are far off for MgO
_ENERGY_TOLERANCE, _GAP_TOLERANCE = 0.1, 0.5


def load_matgl(model: str | Path, aggregation: Aggregation = "auto") -> Any:
    """Return a matgl model that sums messages as in its training.

    Args:
        model: a folder with ``model.json``, ``model.pt`` and ``state.pt``, or a name that matgl fetches from Hugging
            Face, such as ``"TensorNet-MatPES-PBE-v2025.1-PES"`` or ``"owner/name"``.
        aggregation: ``"source"`` for models trained with matgl from 3.0 on, ``"target"`` for older ones, ``"auto"`` to
            detect it from metadata in the file, or from known energies or band gaps.

    Raises:
        ImportError: if matgl is not installed.
        ValueError: if the folder holds no matgl model, or its convention cannot be detected.
        FileNotFoundError: if a name cannot be fetched.
    """
    if aggregation not in get_args(Aggregation):
        raise InputError(f"aggregation must be one of {get_args(Aggregation)}, got {aggregation!r}")
    with library_defaults(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = _load(model)
        loaded.requires_grad_(False).eval()
        layers = [layer for layer in loaded.modules() if type(layer).__name__ in _CONVOLUTIONS]
        if aggregation == "auto" and layers:
            aggregation = _noted(model) or _detected(loaded, layers, str(model))  # type: ignore[assignment]
        if not layers:
            _check_other(loaded, str(model), aggregation)
        elif aggregation == "target":
            _set_aggregation(layers, "target")
    return loaded


def metadata(aggregation: Literal["source", "target"] = "source") -> dict[str, str]:
    """Return the metadata for ``save(path, metadata=...)`` by which `load_matgl` knows a model's convention."""
    return {_KEY: aggregation}


def _load(model: str | Path) -> Any:
    try:
        import torch
        from matgl.data.transformer import Normalizer
        from matgl.utils.io import load_model
    except ImportError as error:
        raise MissingPackageError(f'matgl models need matgl: pip install "crystalgen[matgl]" ({error})') from error

    folder, name = Path(model), str(model)
    if folder.exists():
        missing = [file for file in MODEL_FILES if not (folder / file).is_file()]
        if missing:
            raise InputError(f"{name} is no matgl model: it has no {', '.join(missing)}")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingFileError(f"model: there is no folder {name}")
    try:
        with torch.serialization.safe_globals([Normalizer]):
            return load_model(folder if folder.exists() else name)
    except Exception as error:
        if folder.exists():
            reason = error.__cause__ or error
            raise InputError(f"{name} is no model that this matgl can load: {reason}") from error
        raise MissingFileError(
            f"model {name!r} is no folder and could not be fetched from Hugging Face ({error.__cause__ or error}); "
            f"download its files {', '.join(MODEL_FILES)} and give their folder as model"
        ) from error


def _noted(model: str | Path) -> Any:
    """Return the aggregation in the `metadata` of a file, None without any."""
    path = Path(model) / "model.json"
    note = json.loads(path.read_text()).get("metadata") if path.is_file() else None
    return note.get(_KEY) if isinstance(note, dict) else None


def _network(loaded: Any) -> Any:
    network = getattr(loaded, "model", loaded)
    return getattr(network, "model", network)


def _detected(loaded: Any, layers: Sequence[Any], name: str) -> str:
    """Return the aggregation that reproduces known values.

    Raises:
        ValueError: if neither does.
    """
    known, tolerance = (_KNOWN_ENERGIES, _ENERGY_TOLERANCE)
    if not hasattr(loaded, "calc_forces"):
        known, tolerance = (_KNOWN_GAPS, _GAP_TOLERANCE)
    errors = {}
    for aggregation in ("source", "target"):
        _set_aggregation(layers, aggregation)
        errors[aggregation] = _largest_error(loaded, known)
    _set_aggregation(layers, "source")
    best = min(errors, key=errors.__getitem__)
    if not errors[best] <= tolerance < max(errors.values()):
        what = "energies" if known is _KNOWN_ENERGIES else "band gaps"
        raise InputError(
            f"the convention of {name} cannot be detected: known {what} of {', '.join(known)} are missed by "
            f"{errors['source']:.2f} eV with that of matgl from 3.0 on and by {errors['target']:.2f} eV with the older "
            "one; give aggregation='source' if it was trained with matgl 3.0 or later, else 'target'"
        )
    return best


def _largest_error(loaded: Any, known: dict[str, float]) -> float:
    from ase import Atoms

    errors = []
    for formula, value in known.items():
        symbols, positions, a = _KNOWN[formula]
        atoms = Atoms(symbols, scaled_positions=positions, cell=a * np.array(_FCC), pbc=True)
        graph, _ = graph_of(atoms, _network(loaded))
        result = float(np.ravel(evaluate_graphs(loaded, [graph], "cpu"))[0])
        errors.append(abs((result / len(atoms) if known is _KNOWN_ENERGIES else result) - value))
    return max(errors)


def _check_other(loaded: Any, name: str, aggregation: str) -> None:
    """Refuse a TensorNet or another network of unknown training: older ones than matgl 3.0 cannot be restored.

    Raises:
        ValueError: if it is a potential that misses known energies, or a property model without an ``aggregation``.
    """
    if aggregation == "source" or _noted(name) == "source":
        return
    if hasattr(loaded, "calc_forces"):
        error = _largest_error(loaded, _KNOWN_ENERGIES)
        if error <= _ENERGY_TOLERANCE:
            return
        found = f"it misses the energies of {', '.join(_KNOWN_ENERGIES)} by up to {error:.2f} eV/atom"
    else:
        found = "there are no known values to compare with"
    raise InputError(
        f"the {type(_network(loaded)).__name__} {name} may be older than matgl 3.0 ({found}); give "
        "aggregation='source' if it was trained with matgl 3.0 or later; older ones cannot be restored"
    )


def _set_aggregation(layers: Sequence[Any], aggregation: str) -> None:
    """Set whether layers sum messages at the source or at the target of each edge."""
    for layer in layers:
        layer.__class__ = _classes()[type(layer).__name__, aggregation]


def _classes() -> dict[tuple[str, str], type]:
    """Return the class of a layer by its name and aggregation; those for "target" keep the name of the original."""
    import torch
    from matgl.layers import _graph_convolution as matgl_layers
    from matgl.utils.maths import scatter_add, scatter_mean

    global _known_classes
    if _known_classes:
        return _known_classes

    def messages_at_target(layer: Any, edge_index: Any, edge_feat: Any, node_feat: Any, u: Any, n: int) -> Any:
        mean = scatter_mean(edge_feat, edge_index[1], dim_size=n, dim=0)
        return layer.node_func(torch.hstack([node_feat, mean, u]))

    def update_at_target(layer: Any, edge_index: Any, edge_feat: Any, node_feat: Any, rbf: Any, u: Any, n: int) -> Any:
        inputs = [node_feat[edge_index[0]], node_feat[edge_index[1]], edge_feat, *([u] if layer.include_state else [])]
        messages = layer.node_update_func(torch.hstack(inputs)) * layer.node_weight_func(rbf)
        return scatter_add(messages, edge_index[1], dim_size=n, dim=0)

    updates: dict[str, Callable[..., Any]] = {
        "MEGNetGraphConv": messages_at_target,
        "M3GNetGraphConv": update_at_target,
    }
    for name, update in updates.items():
        original = getattr(matgl_layers, name)
        _known_classes[name, "source"] = original
        _known_classes[name, "target"] = type(name, (original,), {"node_update_": update})
    return _known_classes


_known_classes: dict[tuple[str, str], type] = {}
