"""Checkpoints published with the paper: pickles of haiku parameters, read without jax and without running anything."""

import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError

Parameters = Mapping[str, Mapping[str, NDArray[Any]]]
"""Arrays by module and name."""

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
        raise InputError(f"{path} is no checkpoint of the paper's code: {reason}") from error
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
        raise InputError("it needs haiku parameters, a dict of dicts of arrays")
    parameters: dict[str, dict[str, NDArray[Any]]] = {}
    for module, arrays in modules.items():
        if not isinstance(module, str) or not isinstance(arrays, dict):
            raise InputError("it needs haiku parameters, a dict of dicts of arrays")
        for name, array in arrays.items():
            value = array.value if isinstance(array, _Array) else None
            if not isinstance(name, str) or value is None or value.dtype.kind != "f":
                raise InputError(f"its {module}/{name} is no array of real numbers")
            parameters.setdefault(module, {})[name] = value
    return parameters


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
