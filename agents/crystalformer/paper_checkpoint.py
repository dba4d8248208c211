"""The paper's haiku parameters as those of `Network`, and the sizes that their shapes tell."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.crystalformer.config import N_SPECIES, CrystalFormerConfig
from agents.crystalformer.paper_pickle import Parameters
from crystal_env.errors import InputError

_PAPER_KEY_SIZE = 64


def infer_config(parameters: Parameters, **known: int | float) -> CrystalFormerConfig:
    """Return the sizes that the shapes of parameters tell.

    Args:
        parameters: as `read_pickle` returns them.
        known: sizes that shapes do not tell, or not alone: by default ``key_size`` is that of the paper, 64, and
            ``coordinate_components`` 16.

    Raises:
        ValueError: if a parameter is missing, or the shapes fit no configuration.
    """
    unknown = sorted(known.keys() - {field.name for field in fields(CrystalFormerConfig)})
    if unknown:
        raise InputError(f"sizes must be fields of CrystalFormerConfig, got {unknown}")
    embed_size = _get(parameters, "~", "g_embeddings", 2).shape[1]
    table = "w_params" in parameters["~"]
    first = 0 if table else 2  # the first letter's network takes linear and linear_1
    model_size, inner = _get(parameters, "multi_head_attention/query", "w", 2).shape
    n_heads, key_size = _heads(inner, known.get("n_heads"), known.get("key_size"))
    n_layers = sum(name.startswith("multi_head_attention") and name.endswith("/query") for name in parameters)
    output = len(_get(parameters, _linear(first + 5 + 2 * n_layers), "b", 1))
    sizes: dict[str, Any] = {
        "n_layers": n_layers,
        "n_heads": n_heads,
        "key_size": key_size,
        "model_size": model_size,
        "embed_size": embed_size,
        "first_letter_size": 0 if table else len(_get(parameters, "linear", "b", 1)),
        "n_frequencies": (len(_get(parameters, _linear(first + 2), "w", 2)) - embed_size) // 2,
        "lattice_components": max(1, (output - N_SPECIES) // 13),
    }
    config = CrystalFormerConfig(**(sizes | known))
    if config.output_size != output:
        raise InputError(
            f"the checkpoint has {output} outputs, but {config.output_size} follow from lattice_components = "
            f"{config.lattice_components} and coordinate_components = {config.coordinate_components}: give them"
        )
    return config


def _heads(inner: int, n_heads: int | float | None, key_size: int | float | None) -> tuple[int, int]:
    """Return number and width of the heads that have ``inner`` numbers together."""
    for name, value in (("n_heads", n_heads), ("key_size", key_size)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a positive integer, got {value!r}")
    width = int(key_size or (inner // n_heads if n_heads else _PAPER_KEY_SIZE))
    heads = int(n_heads or (inner // width if width else 0))
    if not inner or heads * width != inner:
        raise InputError(f"{heads} heads of width {width} do not make {inner}: give key_size or n_heads")
    return heads, width


def convert(parameters: Parameters, config: CrystalFormerConfig) -> dict[str, Tensor]:
    """Return the parameters under the names and in the shapes of `CrystalFormer`.

    Raises:
        ValueError: if a parameter is missing or unknown, or its shape is impossible.
    """
    state: dict[str, Tensor] = {}
    unknown = {(module, name) for module, arrays in parameters.items() for name in arrays}

    def get(module: str, name: str, axes: int) -> NDArray[Any]:
        unknown.discard((module, name))
        return _get(parameters, module, name, axes)

    def put(name: str, *arrays: NDArray[Any]) -> None:
        state[name] = torch.from_numpy(np.ascontiguousarray(np.concatenate(arrays)))

    def put_linear(name: str, *modules: str) -> None:
        weights = [get(module, "w", 2).T for module in modules]
        if len({weight.shape for weight in weights}) > 1:
            raise InputError(f"the weights of {', '.join(modules)} differ in shape")
        put(f"{name}.weight", *weights)
        put(f"{name}.bias", *(get(module, "b", 1) for module in modules))

    def put_norm(name: str, number: int) -> None:
        module = "layer_norm" + (f"_{number}" if number else "")
        put(f"{name}.weight", get(module, "scale", 1))
        put(f"{name}.bias", get(module, "offset", 1))

    group = get("~", "g_embeddings", 2)
    put("group_embedding.weight", np.zeros((1, group.shape[1]), group.dtype), group)
    put("letter_embedding.weight", get("~", "w_embeddings", 2))
    put("element_embedding.weight", get("~", "a_embeddings", 2))
    if config.first_letter_size:
        put_linear("first_letter.0", "linear")
        put_linear("first_letter.2", "linear_1")
    else:
        table = get("~", "w_params", 2)
        put("first_letter.weight", np.zeros((1, table.shape[1]), table.dtype), table)
    number = 2 if config.first_letter_size else 0
    for name in ("letter_input", "element_input", *(f"coordinate_inputs.{axis}" for axis in range(3))):
        put_linear(name, _linear(number))
        number += 1
    for layer in range(config.n_layers):
        block, attention = f"blocks.{layer}", "multi_head_attention" + (f"_{layer}" if layer else "")
        put_norm(f"{block}.attention_norm", 2 * layer)
        put_linear(f"{block}.attention.qkv", *(f"{attention}/{part}" for part in ("query", "key", "value")))
        put_linear(f"{block}.attention.out", f"{attention}/linear")
        put_norm(f"{block}.feed_forward_norm", 2 * layer + 1)
        put_linear(f"{block}.feed_forward.0", _linear(number))
        put_linear(f"{block}.feed_forward.2", _linear(number + 1))
        number += 2
    put_norm("final_norm", 2 * config.n_layers)
    put_linear("head", _linear(number))
    if unknown:
        names = sorted("/".join(parameter) for parameter in unknown)
        raise InputError(f"the checkpoint has {len(names)} parameters of no use, such as {names[0]}")
    return state


def _get(parameters: Parameters, module: str, name: str, axes: int) -> NDArray[Any]:
    """Return a parameter, which is to have a number of axes."""
    if name not in parameters.get(module, {}):
        raise InputError(f"the checkpoint lacks the parameter {module}/{name}")
    array = parameters[module][name]
    if array.ndim != axes:
        raise InputError(f"the parameter {module}/{name} must have {axes} axes, got the shape {array.shape}")
    return array


def _linear(number: int) -> str:
    return "linear" + (f"_{number}" if number else "")


# What an unpickler calls are the classes below and dict, never numpy itself: a pickle may give an array or its dtype
# any state it likes. All of them have a __setstate__, without which a pickle may set any attribute, of classes too.
