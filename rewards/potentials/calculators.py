"""Who a calculator belongs to: one thread of one process, always."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from crystal_env.errors import InputError

_MAX_KEPT = 4  # potentials that were sent to this process; a calculator may hold gigabytes


class Calculators:
    """The calculators of one potential in this process, one for each thread that computes."""

    def __init__(self) -> None:
        self._process, self._local = os.getpid(), threading.local()

    def mine(self, create: Callable[[], Any]) -> Any:
        """Return the calculator of the thread that asks, created by its first call; a forked process starts anew."""
        if self._process != os.getpid():
            self._process, self._local = os.getpid(), threading.local()
        if not hasattr(self._local, "calculator"):
            self._local.calculator = create()
        return self._local.calculator


class _Owner(NamedTuple):
    """The thread that a given calculator belongs to, and the calculator before its use: its pickle, or the reason."""

    calculator: "weakref.ref[Any]"
    process: int
    thread: threading.Thread
    unused: bytes | Exception


_LOCK = threading.Lock()
_RECEIVED: OrderedDict[str, Calculators] = OrderedDict()
_OWNERS: dict[int, _Owner] = {}


def calculators_of(token: str) -> Calculators:
    """Return the calculators of a potential that other processes know by a token; the last few are kept."""
    with _LOCK:
        found = _RECEIVED.setdefault(token, Calculators())
        _RECEIVED.move_to_end(token)
        while len(_RECEIVED) > _MAX_KEPT:
            _RECEIVED.popitem(last=False)
    return found


def for_this_thread(calculator: Any) -> Any:
    """Return a calculator to the first living thread that asks for it, and copies of its unused state to all others.

    Raises:
        ValueError: if a copy is needed and it cannot be pickled.
    """
    import cloudpickle

    me, process = threading.current_thread(), os.getpid()
    with _LOCK:
        for key in [key for key, owner in _OWNERS.items() if owner.calculator() is None]:
            del _OWNERS[key]
        owner = _OWNERS.get(id(calculator))
        if owner is None:
            owner = _Owner(weakref.ref(calculator), process, me, _pickled(calculator))
        elif owner.process == process and not owner.thread.is_alive():
            owner = owner._replace(thread=me)
        _OWNERS[id(calculator)] = owner
    if owner.process == process and owner.thread is me:
        return calculator
    if isinstance(owner.unused, Exception):
        raise InputError(
            f"calculator {type(calculator).__name__} belongs to another thread and cannot be copied "
            f"({owner.unused}): give a class or function that makes one"
        ) from owner.unused
    return cloudpickle.loads(owner.unused)


def _pickled(calculator: Any) -> bytes | Exception:
    import cloudpickle

    try:
        pickled: bytes = cloudpickle.dumps(calculator)
    except Exception as error:  # noqa: BLE001  a calculator may hold anything
        return error
    return pickled
