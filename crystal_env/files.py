"""Files and folders: written whole or not at all, held by one process; tables read with errors that name the file."""

import contextlib
import lzma
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from crystal_env.errors import InputError, MissingFileError

if TYPE_CHECKING:
    import pandas as pd


def atomic_write(path: str | Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Replace a file whole or not at all: an interrupted write leaves the old file.

    Args:
        path: a file, which need not exist, in a folder that does.
        content: bytes, text (written as UTF-8), or a function that writes to an open binary file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_table(path: str | Path, columns: Sequence[str] = (), *, header_only: bool = False) -> "pd.DataFrame":
    """Return a CSV file, also compressed, as a table in which empty cells are empty text.

    Args:
        path: the file.
        columns: columns that it must have.
        header_only: read only the names of the columns.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is damaged or not a CSV file, or a column is missing.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no such file: {path}")
    try:  # the formula NaN is sodium nitride
        table = pd.read_csv(path, keep_default_na=False, nrows=0 if header_only else None)
    except (ValueError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path} is damaged or not a CSV file: {type(error).__name__}: {error}") from error
    if missing := [column for column in columns if column not in table]:
        names = ", ".join(repr(column) for column in missing)
        raise InputError(f"{path} needs a column {names}, it has {list(table.columns)}")
    return table


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes out of a folder; without effect where the system or the file system has no locks.

    Args:
        folder: an existing folder.
        name: name of the folder in the error, such as ``"run runs/stable"``.

    Raises:
        InputError: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # a platform without locks
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{name} is in use by {_holder(descriptor)}: wait, or end it") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Return which process holds the lock of a file, as far as the system tells."""
    with contextlib.suppress(OSError):
        inode = f":{os.fstat(descriptor).st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE pid device:inode start end
            if "FLOCK" in words and any(word.endswith(inode) for word in words):
                return f"process {words[words.index('WRITE') + 1]}"
    return "another process"
