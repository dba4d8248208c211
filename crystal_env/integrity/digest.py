"""Hashes of objects and files by their content, to tell whether two rewards or potentials are the same."""

import hashlib
import io
import sys
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import cloudpickle


def digest(parts: Any) -> str | None:
    """Return a hash of what objects are made of, the same in every process, or None if there is none.

    Functions and classes that can be imported count by their names, others by their code.
    """
    for by_value in (True, False):
        buffer = io.BytesIO()
        pickler = _Digester(buffer)
        pickler.fast = by_value  # equal objects give equal bytes, whether or not they are one; no cycles
        try:
            pickler.dump(parts)
        except Exception:  # noqa: BLE001  a user's reward may hold anything
            continue
        return sha256(buffer.getvalue()).hexdigest()
    return None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, read again only where it has changed."""
    stat = path.stat()
    return _file_digest(path.absolute(), (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=256)
def _file_digest(path: Path, version: tuple[int, ...]) -> str:
    del version  # part of the cache key, so that a changed file is another entry
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Digester(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType) and not _can_be_imported(obj):
            cells = [cell.cell_contents for cell in obj.__closure__ or ()]
            used = [(name, obj.__globals__[name]) for name in obj.__code__.co_names if name in obj.__globals__]
            return tuple, ((_code(obj.__code__), obj.__defaults__, obj.__kwdefaults__, cells, used),)
        if isinstance(obj, type) and (obj.__module__ == "__main__" or "<locals>" in obj.__qualname__):
            own = [(name, value) for name, value in vars(obj).items() if not name.startswith("__") or callable(value)]
            return tuple, ((obj.__qualname__, obj.__bases__, own),)
        return super().reducer_override(obj)


def _can_be_imported(obj: Any) -> bool:
    found = sys.modules.get(obj.__module__) if obj.__module__ != "__main__" else None
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj


def _code(code: CodeType) -> tuple[Any, ...]:
    consts = [_code(const) if isinstance(const, CodeType) else const for const in code.co_consts]
    return code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars
