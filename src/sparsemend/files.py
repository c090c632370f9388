"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sparsemend.errors import SparsemendError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that is renamed to it at the end.

    Raises
    ------
    SparsemendError
        If the folder does not exist or cannot be written, or ``path`` is a folder.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise SparsemendError(
            f"cannot write there ({error.strerror})", str(path), fix="choose an existing folder"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's 0600 would surprise other users
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path, what: str) -> None:
    """Make a folder that may be there already.

    Raises
    ------
    SparsemendError
        If it cannot be made; ``what`` names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SparsemendError(
            f"{what} cannot be made ({error.strerror})", str(folder), fix="choose another"
        ) from error


def atomic_write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a temporary file that is then renamed to ``path``."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write(file)
