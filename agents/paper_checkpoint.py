"""Checkpoints published with the paper: pickles of haiku parameters, read without jax and without running anything."""

import pickle
import pickletools
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.config import N_SPECIES, CrystalFormerConfig

Parameters = Mapping[str, Mapping[str, NDArray[Any]]]

_PAPER_KEY_SIZE = 64
_LIBRARIES = ("jax", "jaxlib", "haiku", "optax", "flax", "chex")
_JAX_ARRAYS = ("_reconstruct_array", "reconstruct_device_array")
_HAIKU_DICTS = ("FlatMapping", "FlatMap", "frozendict", "to_haiku_dict")
_NUMBERS = frozenset(kind + size for kind in "fiu" for size in "1248" if kind + size != "f1") | {"b1"}
_MALFORMED = (  # what an unpickler raises
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def read_pickle(path: str | Path) -> Parameters:
    """Return the parameters {module: {name: array}} in a checkpoint of the paper's code.

    Arrays and dicts are all that is rebuilt; the optimiser's classes come back as empty shells.

    Raises:
        ValueError: if the file is no pickle, asks for anything else, or holds no such parameters.
    """
    try:
        with open(path, "rb") as file:
            _check_opcodes(file)
            file.seek(0)
            parameters = _parameters(_ArraysOnly(file).load())
    except _MALFORMED as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is no checkpoint of the paper's code: {reason}") from error
    return parameters


def _check_opcodes(file: IO[bytes]) -> None:
    """Refuse what an unpickler would do without asking `_ArraysOnly`."""
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name.startswith("EXT"):  # may be known from another pickle
            raise pickle.UnpicklingError("it asks for a registered extension")
        if opcode.name.endswith("PUT") and int(argument or 0) > (position or 0):  # takes memory for all places before
            raise pickle.UnpicklingError("it counts its parts wrongly")


def _parameters(content: Any) -> Parameters:
    """Return the arrays by module and name in the content of a checkpoint."""
    modules = content.get("params", content) if isinstance(content, dict) else None
    if not isinstance(modules, dict) or not modules:
        raise ValueError("it needs haiku parameters, a dict of dicts of arrays")
    parameters: dict[str, dict[str, NDArray[Any]]] = {}
    for module, arrays in modules.items():
        if not isinstance(module, str) or not isinstance(arrays, dict):
            raise ValueError("it needs haiku parameters, a dict of dicts of arrays")
        for name, array in arrays.items():
            value = array.value if isinstance(array, _Array) else None
            if not isinstance(name, str) or value is None or value.dtype.kind != "f":
                raise ValueError(f"its {module}/{name} is no array of real numbers")
            parameters.setdefault(module, {})[name] = value
    return parameters


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
        raise ValueError(f"sizes must be fields of CrystalFormerConfig, got {unknown}")
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
        raise ValueError(
            f"the checkpoint has {output} outputs, but {config.output_size} follow from lattice_components = "
            f"{config.lattice_components} and coordinate_components = {config.coordinate_components}: give them"
        )
    return config


def _heads(inner: int, n_heads: int | float | None, key_size: int | float | None) -> tuple[int, int]:
    """Return number and width of the heads that have ``inner`` numbers together."""
    for name, value in (("n_heads", n_heads), ("key_size", key_size)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    width = int(key_size or (inner // n_heads if n_heads else _PAPER_KEY_SIZE))
    heads = int(n_heads or (inner // width if width else 0))
    if not inner or heads * width != inner:
        raise ValueError(f"{heads} heads of width {width} do not make {inner}: give key_size or n_heads")
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
            raise ValueError(f"the weights of {', '.join(modules)} differ in shape")
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
        raise ValueError(f"the checkpoint has {len(names)} parameters of no use, such as {names[0]}")
    return state


def _get(parameters: Parameters, module: str, name: str, axes: int) -> NDArray[Any]:
    """Return a parameter, which is to have a number of axes."""
    if name not in parameters.get(module, {}):
        raise ValueError(f"the checkpoint lacks the parameter {module}/{name}")
    array = parameters[module][name]
    if array.ndim != axes:
        raise ValueError(f"the parameter {module}/{name} must have {axes} axes, got the shape {array.shape}")
    return array


def _linear(number: int) -> str:
    return "linear" + (f"_{number}" if number else "")


# What an unpickler calls are the classes below and dict, never numpy itself: a pickle may give an array or its dtype
# any state it likes. All of them have a __setstate__, without which a pickle may set any attribute, of classes too.


class _Shell(tuple):
    """Stands for a class of the optimiser: takes any arguments and does nothing."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Shell":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _StandIn:
    """Stands for a class or a function that makes arrays."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what makes arrays")


class _DType(_StandIn):
    """Stands for ``numpy.dtype``; only numbers have one."""

    value: np.dtype[Any] | None = None

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in _NUMBERS:
            raise pickle.UnpicklingError(f"it has arrays of {code!r}, and only arrays of numbers are read")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if self.value is not None:
            self.value = self.value.newbyteorder(state[1])


class _Array(_StandIn):
    """Stands for ``numpy.ndarray``, and for the function that makes an empty one, to be filled by its state."""

    value: NDArray[Any] | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> "_Array":
        """Set the numbers, in the byte order of this machine."""
        if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _DType) or dtype.value is None:
            raise pickle.UnpicklingError("it has arrays of something else than numbers")
        array = np.frombuffer(data, dtype.value).reshape(shape, order=order)
        self.value = array.astype(array.dtype.newbyteorder("="))
        return self


class _FromBuffer(_StandIn):
    """Stands for the function that makes an array in protocol 5."""

    def __new__(cls, data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:  # type: ignore[misc]
        """Return the array."""
        return _Array().fill(data, dtype, shape, order)


class _FromJax(_StandIn):
    """Stands for the functions that make a jax array of the parts of a numpy array."""

    def __new__(cls, function: Any, args: Any, state: Any, *_: Any) -> _Array:  # type: ignore[misc]
        """Return the numpy array."""
        if function is not _Array:
            raise pickle.UnpicklingError("it has jax arrays that are made of something else than arrays")
        array = _Array()
        array.__setstate__(state)
        return array


class _Encode(_StandIn):
    """Stands for ``_codecs.encode``, by which protocol 2 writes bytes."""

    def __new__(cls, text: Any, encoding: Any) -> bytes:  # type: ignore[misc]
        """Return the bytes."""
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it encodes something else than bytes")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], type] = {
    ("builtins", "dict"): dict,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _Encode,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _STAND_INS[_core + ".multiarray", "_reconstruct"] = _Array
    _STAND_INS[_core + ".multiarray", "scalar"] = _Shell
    _STAND_INS[_core + ".numeric", "_frombuffer"] = _FromBuffer


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds arrays and dicts and nothing else."""

    def find_class(self, module: str, name: str) -> type:
        """Return what stands for one of the few things that a pickle of arrays needs."""
        library = module.split(".")[0]
        if library in ("jax", "jaxlib") and name in _JAX_ARRAYS:
            return _FromJax
        if library == "haiku" and name in _HAIKU_DICTS:
            return dict
        if library in _LIBRARIES:
            return _Shell
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays and dicts are read")
