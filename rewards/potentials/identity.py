"""What energies of a potential depend on: weights, arguments, code and versions. Energies on disk are kept by it."""

import importlib.util
import json
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import metadata
from importlib.machinery import ModuleSpec
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from crystal_env.integrity.digest import digest, file_digest

_OWN = "rewards.potentials"
_LIBRARIES = ("ase", "numpy", "torch")


def identity(potential: Any) -> dict[str, Any] | None:
    """Return everything that the energies of a potential depend on, JSON-plain, or None if that cannot be told.

    It holds the potential's class and name, its arguments, the digests of the files that they name, and for the code
    behind it the version of an installed package, else a digest of the source. Arguments are what its method
    ``made_of`` returns if it has one; else the fields of a dataclass, but for those with ``compare=False`` (a counter,
    a number of processes); else all attributes. Folders that arguments name count by their name.
    """
    try:
        found = _identity(potential)
        json.dumps(found)
    except (_UnknownError, OSError, RecursionError):
        return None
    return found


class _UnknownError(Exception):
    """Something has no digest."""


def _identity(potential: Any) -> dict[str, Any]:
    kind = type(potential)
    if hasattr(potential, "made_of"):
        parts = potential.made_of()
    elif is_dataclass(potential):
        parts = {f.name: getattr(potential, f.name) for f in fields(potential) if f.compare}
    else:
        parts = vars(potential) if hasattr(potential, "__dict__") else {"object": potential}
    libraries = {name: _version(name) for name in (*_LIBRARIES, *getattr(potential, "packages", ()))}
    return {
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        "name": potential.name,
        "arguments": {name: _described(value) for name, value in parts.items()},
        "code": _code(kind.__module__) or _digest_of(kind),
        "versions": {name: number for name, number in libraries.items() if number},
    }


def _described(value: Any) -> Any:
    """Return a value as JSON has it: files and objects as their digests, classes and functions as name and code."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return {"sha256": file_digest(Path(value))} if _is_file(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    if hasattr(value, "energies") and hasattr(value, "name"):
        return _identity(value)
    of = value if hasattr(value, "__qualname__") else type(value)
    return {"object": _digest_of(value), "code": _code(of.__module__)}


def _is_file(path: str | Path) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a text too long for a path, or with a zero byte
        return False


def _digest_of(value: Any) -> str:
    found = digest(value)
    if found is None:
        raise _UnknownError
    return found


@lru_cache(maxsize=64)
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _code(module: str) -> str | None:
    """Return the version of the package that a module is installed with, else a digest of its source.

    The source is that of the whole package, or of a single module and those beside it that it imports. None stands for
    a module without a file.
    """
    spec = _spec(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return f"python {sys.version}" if spec is not None and spec.origin == "built-in" else None
    file, top = Path(spec.origin).resolve(), module.partition(".")[0]
    if any(file.is_relative_to(folder) for folder in _installed()):
        packages = _distributions().get(top, ())
        return ", ".join(f"{name} {_version(name)}" for name in packages) or f"python {sys.version}"
    package = _spec(_OWN if module.startswith(_OWN) else top)
    if package is not None and package.submodule_search_locations:
        files = sorted(path for folder in package.submodule_search_locations for path in Path(folder).rglob("*.py"))
    else:
        finder = ModuleFinder([str(file.parent)])
        finder.run_script(str(file))
        files = sorted(Path(str(found.__file__)) for found in finder.modules.values() if found.__file__)  # type: ignore[attr-defined]
    return sha256(" ".join(file_digest(path) for path in files).encode()).hexdigest()


def _spec(module: str) -> ModuleSpec | None:
    """Return where a module comes from, None if it cannot be found again, as that of a notebook."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    names = ("purelib", "platlib", "stdlib", "platstdlib")
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in names)


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
